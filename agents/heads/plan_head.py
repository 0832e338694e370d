"""What a plan head promises, and the small transformer that all of them share.

A plan is H tokens: A actions (the first index of those with equal keys), PAD = A where the episode, or the way to the
goal, is over, and MASK = A + 1 for what is not filled in yet, which goes in and never comes out. The first token is
never PAD.

A condition is seven tokens that attend to each other alone. Their keys and values are computed once a plan
(``Context``), whatever the passes and the candidates.

Shape letters: N conditions (games), K candidates of each, M plans side by side, H tokens, A actions, F features,
L layers, C condition tokens, P places in a plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.config import Decoding, PlanHeadConfig
from agents.encoders import CoordinateEmbedding

NUM_RETURN_BINS = 32
_FEATURE_TOKENS = 4
_EXPANSION = 4
"""Width of a layer's perceptron, in widths of the residual stream."""
_BLOCK = 64
"""Plans that go through the network at once on a CPU: more do not fit into its cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanCondition:
    """What N plans are made for."""

    features: Tensor
    """float [N, F] of the encoder."""
    hero: Tensor
    """int64 [N, 2], column and row; -1 = not known."""
    goal: Tensor
    """int64 [N, 2], column and row; -1 = none."""
    return_bin: Tensor
    """int64 [N], 0 to 31; -1 = none."""
    legal: Tensor | None = None
    """bool [N, A], True where allowed, at every place of the plan; None = every action is."""

    def dropped(self, drop: Tensor) -> PlanCondition:
        """Without goal and return where ``drop`` (bool [N]) says so."""
        return replace(
            self,
            goal=self.goal.masked_fill(drop[:, None], -1),
            return_bin=self.return_bin.masked_fill(drop, -1),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """N conditions as plans see them. With guidance they are there twice: as asked, then without goal and return."""

    keys: Tensor
    """[L, 2, N or 2 N, heads, C, width / heads]: keys, then values, in each layer."""
    guidance: float | None
    """w in ``null + w (condition - null)``; None = each condition is there once."""
    temperature: float
    """Divides the logits."""
    legal: Tensor | None
    """bool [N, A]."""

    def places_of(self, rows: Tensor) -> Tensor:
        """Where the conditions ``rows`` [M] are in ``keys``: [M], or [2 M] with guidance."""
        return rows if self.guidance is None else torch.cat([rows, rows + self.keys.shape[2] // 2])

    def doubled(self, x: Tensor) -> Tensor:
        """What goes in for M plans, [M, ...], or [2 M, ...] with guidance."""
        return x if self.guidance is None else torch.cat([x, x])

    def led(self, logits: Tensor) -> Tensor:
        """Logits [M, ...] of [M, ...], or of [2 M, ...] with guidance; fp32."""
        if self.guidance is None:
            return logits.float()
        conditional, null = logits.float().chunk(2)
        return null + self.guidance * (conditional - null)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanSample:
    """K candidates for each of N conditions."""

    tokens: Tensor
    """int64 [N, K, H]."""
    log_prob: Tensor
    """float32 [N, K], nats: what the head gave the tokens that it chose, given the order in which it chose them;
    tokens that were given add nothing."""
    evaluations: Tensor
    """int64 [N, K]: passes that the plan took; with guidance, each asks the network twice."""


class Denoiser(Protocol):
    """Says how likely each token is at each place, given those that are filled in."""

    @property
    def mask(self) -> int:
        """The token of a place that is not filled in, A + 1."""
        ...

    def __call__(self, tokens: Tensor, rows: Tensor, places: Tensor | None = None) -> Tensor:
        """Log-probabilities of the A actions and PAD, with guidance, legality and temperature applied.

        Args:
            tokens: int64 [M, H], MASK where free.
            rows: int64 [M], which condition each is for.
            places: int64 [M, P], the places asked about; None = all.

        Returns:
            float32 [M, P, A + 1], P = H if all places were asked about. What it says of places that are filled in
            already has no meaning.
        """
        ...


class PlanHead(Protocol):
    """Turns conditions into plans, and plans into a loss: an ``nn.Module``."""

    horizon: int
    num_actions: int

    def loss(self, condition: PlanCondition, plans: Tensor, generator: np.random.Generator) -> Tensor:
        """What to minimise for each plan, in nats a token, which a learner weighs and averages.

        Args:
            condition: of N plans; goal and return are dropped here, with ``condition_dropout``.
            plans: int64 [N, H], without MASK.
            generator: where maskings and dropped conditions are drawn from; the same after a resume.

        Returns:
            float32 [N]: -log p(plan) / H, or an unbiased estimate of an upper bound of it.
        """
        ...

    def sample(
        self,
        condition: PlanCondition,
        num_candidates: int,
        decoding: Decoding,
        uniform: Tensor,
        given: Tensor | None = None,
    ) -> PlanSample:
        """Draw K candidates for each of N conditions; no gradients.

        Args:
            condition: of N games.
            num_candidates: K.
            decoding: how tokens are filled in.
            uniform: float32 [N, K, H, 2] in [0, 1), where the network is; all the randomness there is: for the token
                of each place, and for its turn in the order.
            given: int64 [N, K, H], MASK where free; None = all free.
        """
        ...

    def log_prob(
        self,
        condition: PlanCondition,
        plans: Tensor,
        decoding: Decoding,
        uniform: Tensor,
        given: Tensor | None = None,
    ) -> Tensor:
        """float32 [N, K], nats: what ``sample`` says of plans [N, K, H] with the same ``uniform`` and ``given``."""
        ...

    def denoiser(self, condition: PlanCondition, decoding: Decoding) -> Denoiser:
        """What steering asks, with the decoding's guidance and temperature.

        Raises:
            ValueError: the head cannot fill in tokens in any order.
        """
        ...


def _null_last(number: Tensor, count: int) -> Tensor:
    """Place in an embedding of ``count`` things and a null: -1 is the last."""
    return torch.where(number < 0, count, number)


class Layer(nn.Module):
    """Attention and perceptron, each normalised before and added after.

    Keys and values are one tensor [2, M, heads, T, d], d = width / heads: no sequence needs a copy to be multiplied.
    What this small is mostly bound by memory, not arithmetic: hence no biases (the normalisations have them), sums
    within products, and rectifiers in place.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)
        self.perceptron_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, _EXPANSION * width, bias=False)
        self.down = nn.Linear(_EXPANSION * width, width, bias=False)

    def forward(self, x: Tensor, context: Tensor, places: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """One layer of M sequences of T tokens, which see C others before them.

        Args:
            x: [M, T, width].
            context: [2, M, heads, C, d].
            places: int64 [M, P], where the result is wanted; None = everywhere.
            mask: bool [T, C + T], True where attention is allowed; None = everywhere.

        Returns:
            [M, P, width].
        """
        query, own = self.projected(x, places)
        x = x if places is None else at_places(x, places)
        return self.finished(x, attention(query, torch.cat([context, own], -2), mask))

    def projected(self, x: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Queries [M, heads, P, d], and keys and values [2, M, heads, T, d], of [M, T, width]."""
        normal, weight = _norm(x, self.attention_norm), self.query_key_value.weight
        if places is None:
            both = _by_head(functional.linear(normal, weight), 3, self.heads)
            return both[0], both[1:]
        width = x.shape[-1]
        query = functional.linear(at_places(normal, places), weight[:width])
        own = functional.linear(normal, weight[width:])
        return _by_head(query, 1, self.heads)[0], _by_head(own, 2, self.heads)

    def finished(self, x: Tensor, attended: Tensor) -> Tensor:
        """[M, P, width] after attention's result [M, heads, P, d] and the perceptron."""
        flat = x.flatten(0, 1)
        flat = torch.addmm(flat, attended.transpose(1, 2).reshape(flat.shape), self.projection.weight.t())
        hidden = functional.linear(_norm(flat, self.perceptron_norm), self.up.weight).relu_()
        return torch.addmm(flat, hidden, self.down.weight.t()).view_as(x)


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """``norm(x)``, without what it costs to call a module."""
    return functional.layer_norm(x, [x.shape[-1]], norm.weight, norm.bias, norm.eps)


def _by_head(x: Tensor, parts: int, heads: int) -> Tensor:
    """[parts, M, heads, T, d] of [M, T, parts * heads * d]."""
    return x.view(*x.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4)


def attention(query: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention [M, heads, P, d] of ``query`` [M, heads, P, d] over keys and values [2, M, heads, T, d].

    Written out: for sequences this short, it takes half of the time of ``scaled_dot_product_attention`` on a CPU.
    """
    key, value = keys[0].flatten(0, 1), keys[1].flatten(0, 1)
    scale = query.shape[-1] ** -0.5
    scores = torch.baddbmm(query.new_empty(()), query.flatten(0, 1), key.transpose(1, 2), beta=0, alpha=scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.bmm(scores.softmax(-1), value).view_as(query)


def at_places(x: Tensor, places: Tensor) -> Tensor:
    """[M, P, ...] at places int64 [M, P] of [M, T, ...]."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))


class PlanTransformer(nn.Module):
    """Condition tokens and plan tokens through the same layers; plan tokens see both, condition tokens each other.

    Args:
        config: sizes.
        num_features: F.
        num_actions: A.
    """

    never: Tensor
    """[H, A + 1], -inf where a token never stands, 0 elsewhere."""

    def __init__(self, config: PlanHeadConfig, num_features: int, num_actions: int) -> None:
        super().__init__()
        self.horizon, self.num_actions = config.horizon, num_actions
        self.pad, self.mask = num_actions, num_actions + 1
        width = config.width
        self.features = nn.Linear(num_features, _FEATURE_TOKENS * width)
        self.hero, self.goal = CoordinateEmbedding(width), CoordinateEmbedding(width)
        self.return_bin = nn.Embedding(NUM_RETURN_BINS + 1, width)
        self.token = nn.Embedding(num_actions + 2, width)
        self.place = nn.Parameter(torch.zeros(config.horizon, width))
        self.stack = nn.ModuleList(Layer(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, num_actions + 1)
        self.register_buffer("never", torch.zeros(config.horizon, num_actions + 1), persistent=False)
        self.never[0, self.pad] = -torch.inf
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.place, std=0.02)
        # Nearly uniform at first, as every actor head.
        nn.init.normal_(self.logits.weight, std=0.01)

    @property
    def layers(self) -> list[Layer]:
        """The L layers, in order."""
        return cast("list[Layer]", list(self.stack))

    def embed(self, condition: PlanCondition, decoding: Decoding | None = None) -> Context:
        """The conditions' keys and values, for a decoding's guidance and temperature (None: 1, and 1)."""
        guidance, temperature = (1.0, 1.0) if decoding is None else (decoding.guidance, decoding.temperature)
        null = condition.dropped(torch.ones_like(condition.return_bin, dtype=torch.bool))
        if guidance in (0.0, 1.0):
            keys = self._condition_keys(condition if guidance else null)
            return Context(keys=keys, guidance=None, temperature=temperature, legal=condition.legal)
        keys = torch.cat([self._condition_keys(condition), self._condition_keys(null)], 2)
        return Context(keys=keys, guidance=guidance, temperature=temperature, legal=condition.legal)

    def _condition_keys(self, condition: PlanCondition) -> Tensor:
        features = self.features(condition.features).unflatten(-1, (_FEATURE_TOKENS, -1))
        single = [
            self.hero(condition.hero),
            self.goal(condition.goal),
            self.return_bin(_null_last(condition.return_bin, NUM_RETURN_BINS)),
        ]
        x = torch.cat([features, torch.stack(single, 1)], 1)
        found = []
        for number, layer in enumerate(self.layers):
            query, keys = layer.projected(x)
            found.append(keys)
            if number + 1 < len(self.layers):
                x = layer.finished(x, attention(query, keys))
        return torch.stack(found)

    def forward(self, tokens: Tensor, keys: Tensor, places: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Logits of M plans.

        Args:
            tokens: int64 [M, H].
            keys: [L, 2, M, heads, C, d] of each plan's condition.
            places: int64 [M, P], the places wanted; None = all.
            mask: bool [H, C + H], True where attention is allowed; None = everywhere.

        Returns:
            [M, P, A + 1].
        """
        if len(tokens) <= _BLOCK or torch.is_grad_enabled() or not tokens.is_cpu:
            return self._logits(tokens, keys, places, mask)
        blocks = [None] * -(-len(tokens) // _BLOCK) if places is None else places.split(_BLOCK)
        parts = zip(tokens.split(_BLOCK), keys.split(_BLOCK, 2), blocks, strict=True)
        return torch.cat([self._logits(*part, mask) for part in parts])

    def _logits(self, tokens: Tensor, keys: Tensor, places: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.token(tokens) + self.place
        *inner, last = self.layers
        for layer, context in zip(inner, keys, strict=False):
            x = layer(x, context, mask=mask)
        return self.logits(self.norm(last(x, keys[-1], places, mask)))

    def log_probs(
        self,
        tokens: Tensor,
        context: Context,
        rows: Tensor,
        places: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """[M, P, A + 1] of plans int64 [M, H] under the conditions ``rows`` [M]; the others as in ``forward``."""
        keys = context.keys.index_select(2, context.places_of(rows))
        twice = None if places is None else context.doubled(places)
        logits = context.led(self(context.doubled(tokens), keys, twice, mask))
        return self.normalised(logits, context, rows, self.never if places is None else self.never[places])

    def normalised(self, logits: Tensor, context: Context, rows: Tensor, never: Tensor) -> Tensor:
        """Log-probabilities of logits [M, P, A + 1]; illegal actions get -inf, and tokens where ``never`` has it."""
        if context.temperature != 1.0:
            logits = logits / context.temperature
        logits = logits + never
        if context.legal is not None:
            illegal = functional.pad(~context.legal, (0, 1)).index_select(0, rows)
            logits = logits.masked_fill(illegal[:, None], -torch.inf)
        return logits.log_softmax(-1)


@dataclass(frozen=True, slots=True)
class NetworkDenoiser:
    """Asks a network. A ``Denoiser``."""

    network: PlanTransformer
    context: Context

    @property
    def mask(self) -> int:
        """The token of a free place."""
        return self.network.mask

    def __call__(self, tokens: Tensor, rows: Tensor, places: Tensor | None = None) -> Tensor:
        """Log-probabilities [M, P, A + 1] of tokens [M, H] under the conditions ``rows`` [M]."""
        return self.network.log_probs(tokens, self.context, rows, places)


def drop_some(condition: PlanCondition, probability: float, generator: np.random.Generator) -> PlanCondition:
    """Each condition without goal and return with the given probability."""
    if not probability:
        return condition
    drop = generator.random(len(condition.return_bin)) < probability
    return condition.dropped(torch.from_numpy(drop).to(condition.return_bin.device))
