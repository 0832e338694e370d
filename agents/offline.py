"""Learning to plan from logged play: a plan head, the encoder under it, and a critic of chunks.

What a window of logged play teaches depends on the configuration: to do the same (cloning), to do what turned out well
(advantage-weighted, Peng et al. 2019), what led to a return (return-conditioned, Chen et al. 2021), or to a square on
which the same episode stood later (hindsight goals, Andrychowicz et al. 2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import CriticConfig, EncoderConfig, OfflineConfig, PlanHeadConfig
from agents.critic import ChunkBatch, ChunkCritic, critic_loss
from agents.encoders import Encoder
from agents.heads import PLAN_HEADS
from agents.heads.plan_head import PlanCondition
from envs.datasets.dataset import Dataset
from envs.datasets.manifest import OBS
from envs.protocols import ObsSpec

HERO = slice(0, 2)
"""Columns of ``blstats`` that hold the hero's column and row."""
_WARM_UP = 100
_FAR_STEPS = 20.0
"""About how far goals are."""


# ---- logged play


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoggedPlay:
    """S logged steps of K episodes in memory, as much of them as is learned from."""

    obs: Mapping[str, np.ndarray]
    """``{key: [S, ...]}`` before each action."""
    last_obs: Mapping[str, np.ndarray]
    """``{key: [K, ...]}`` after the last action of each episode."""
    tokens: np.ndarray
    """int64 [S]."""
    reward: np.ndarray
    """float32 [S] of one column; 0 where it is not valid."""
    valid: np.ndarray
    """bool [S]."""
    first: np.ndarray
    """int64 [K]: each episode's first step."""
    length: np.ndarray
    """int64 [K]."""
    terminated: np.ndarray
    """bool [K]: nothing follows the last step; a time limit, or the end of the recording, cuts what would have."""
    env_return: np.ndarray
    """float64 [K]: the environment's own."""
    num_actions: int
    """A."""
    legal: np.ndarray | None
    """bool [A], False for actions that are another one's double; None where there are none."""

    @property
    def num_steps(self) -> int:
        """S."""
        return len(self.tokens)

    @property
    def obs_spec(self) -> dict[str, ObsSpec]:
        """Shapes and dtypes of the observations."""
        return {key: ObsSpec(shape=x.shape[1:], dtype=x.dtype) for key, x in self.obs.items()}

    @property
    def knows_squares(self) -> bool:
        """Whether the hero's square is logged."""
        return "blstats" in self.obs


def logged_play(data: Dataset, obs_keys: Sequence[str], reward: str, best_share: float = 1.0) -> LoggedPlay:
    """What is learned from, read into memory.

    Args:
        data: the data set.
        obs_keys: observation columns.
        reward: the reward column.
        best_share: keep this share of the finished episodes alone, those of the highest sum of ``reward``.

    Raises:
        ValueError: a column is not there, or there is no step.
    """
    columns = data.load(["action", *(OBS + key for key in obs_keys)])
    value, valid = data.reward(reward)
    value = np.where(valid, value, np.float32(0))
    episodes = data.episodes
    kept = np.flatnonzero(episodes.length > 0)
    if not len(kept):
        raise ValueError(f"data set {data.path} holds no step")
    ends = np.cumsum(value, dtype=np.float64)
    sums = (
        ends[episodes.first[kept] + episodes.length[kept] - 1]
        - ends[episodes.first[kept]]
        + value[episodes.first[kept]]
    )
    if best_share < 1:
        num = max(1, round(best_share * len(kept)))
        kept = np.sort(kept[np.argsort(-sums, kind="stable")[:num]])
    length = episodes.length[kept]
    first = np.concatenate([[0], np.cumsum(length)[:-1]])
    steps = np.repeat(episodes.first[kept] - first, length) + np.arange(length.sum())
    own = np.array([action.token == index for index, action in enumerate(data.manifest.actions)])
    return LoggedPlay(
        obs={key: columns[OBS + key][steps] for key in obs_keys},
        last_obs={key: data.last(key)[kept] for key in obs_keys},
        tokens=columns["action"][steps].astype(np.int64),
        reward=value[steps].astype(np.float32),
        valid=valid[steps],
        first=first,
        length=length,
        terminated=(episodes.end_status[kept] > 0) & episodes.finished[kept],
        env_return=episodes.env_return[kept],
        num_actions=len(own),
        legal=None if own.all() else own,
    )


def returns_to_go(reward: np.ndarray, first: np.ndarray, length: np.ndarray, gamma: float) -> np.ndarray:
    """Discounted sums of what is still to come in the same episode, ``G_t = r_t + gamma G_(t+1)``.

    Args:
        reward: [S].
        first: int [K], the first step of each episode.
        length: int [K].
        gamma: discount.

    Returns:
        float64 [S].
    """
    found = reward.astype(np.float64)
    # All episodes at once, the last step of each first: as many passes as the longest has steps.
    order = np.argsort(-length, kind="stable")
    last, lengths = (first + length - 1)[order], length[order]
    for back in range(1, int(length.max(initial=1))):
        at = last[: np.searchsorted(-lengths, -back, side="left")] - back
        found[at] += gamma * found[at + 1]
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanBatch:
    """N windows of logged play, as a head learns them."""

    obs: Mapping[str, Tensor]
    condition: Mapping[str, Tensor]
    """``hero``, ``goal``, ``return_bin`` of ``PlanCondition``."""
    plans: Tensor
    """int64 [N, H]."""
    weight: Tensor
    """float32 [N]: 0 for what must not be learned from."""
    chunks: ChunkBatch
    """The same windows as the critic learns them."""


class WindowSampler:
    """Draws windows and what they are conditioned on.

    Args:
        play: logged steps.
        horizon: H.
        config: goals and returns.
        critic: discount, length of chunks, rewards.
        seed: of the shuffled returns.
        device: where windows go.

    Raises:
        ValueError: goals are asked for, and the hero's square is not logged.
    """

    def __init__(
        self,
        play: LoggedPlay,
        horizon: int,
        config: OfflineConfig,
        critic: CriticConfig,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        if (config.goals != "none" or critic.reward == "goal") and not play.knows_squares:
            raise ValueError("goals are squares, and the data set has no observation 'blstats' to read them from")
        self._play, self._horizon, self._config, self._critic = play, horizon, config, critic
        self._device = device or torch.device("cpu")
        self._episode = np.repeat(np.arange(len(play.first)), play.length)
        self._end = play.first + play.length
        self._hero = play.obs["blstats"][:, HERO].astype(np.int64) if play.knows_squares else None
        self._last_hero = play.last_obs["blstats"][:, HERO].astype(np.int64) if play.knows_squares else None
        to_go = returns_to_go(play.reward, play.first, play.length, critic.gamma)
        self.return_spread = float(to_go.std())
        """Standard deviation of the discounted returns to come."""
        edges = np.quantile(to_go, np.arange(1, config.return_bins) / config.return_bins)
        self.return_edges = np.unique(edges)
        """float64 [bins - 1]: where one bin of returns ends and the next begins."""
        self._bins = np.searchsorted(self.return_edges, to_go, side="right")
        if config.shuffle_returns:
            self._bins = np.random.default_rng((seed, 5)).permutation(self._bins)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def draw(self, num: int, generator: np.random.Generator) -> PlanBatch:
        """``num`` windows that begin at steps drawn uniformly."""
        start = generator.integers(0, self._play.num_steps, num)
        return self.at(start, generator)

    def at(self, start: np.ndarray, generator: np.random.Generator) -> PlanBatch:
        """Windows that begin at steps int64 [N]; the generator draws their goals."""
        play, pad = self._play, self._play.num_actions
        episode = self._episode[start]
        end = self._end[episode]
        at = start[:, None] + np.arange(self._horizon)
        plans = np.where(at < end[:, None], play.tokens[np.minimum(at, play.num_steps - 1)], pad)
        obs = {key: self._tensor(x[start]) for key, x in play.obs.items()}
        hero = self._squares(start, episode)
        goal = np.full_like(hero, -1)
        weight = np.ones(len(start), np.float32)
        if self._config.goals == "hindsight":
            goal, plans, weight = self._hindsight(start, episode, hero, plans, generator)
        bins = self._bins[start] if self._config.returns else np.full(len(start), -1)
        condition = {"hero": hero, "goal": goal, "return_bin": bins}
        return PlanBatch(
            obs=obs,
            condition={name: self._tensor(x) for name, x in condition.items()},
            plans=self._tensor(plans),
            weight=self._tensor(weight),
            chunks=self._chunks(start, episode, hero, goal, obs, generator),
        )

    def _squares(self, at: np.ndarray, episode: np.ndarray) -> np.ndarray:
        """Where the hero stands at steps, int64 [..., 2]; past an episode's end, where it ended; -1 where unknown."""
        if self._hero is None or self._last_hero is None:
            return np.full((*at.shape, 2), -1)
        over = at >= self._end[episode]
        inside = self._hero[np.minimum(at, self._play.num_steps - 1)]
        return np.where(over[..., None], self._last_hero[episode], inside)

    def _hindsight(
        self,
        start: np.ndarray,
        episode: np.ndarray,
        hero: np.ndarray,
        plans: np.ndarray,
        generator: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Goals, plans that are over once they are reached, and weights: 0 where the goal is where the hero stands."""
        left = self._end[episode] - start
        ahead = np.minimum(generator.geometric(1 / self._config.goal_steps, len(start)), left)
        goal = self._squares(start + ahead, episode)
        reached = self._reached(start, episode, goal, self._horizon)
        plans = np.where(np.arange(self._horizon) > reached[:, None], self._play.num_actions, plans)
        return goal, plans, (goal != hero).any(1).astype(np.float32)

    def _reached(self, start: np.ndarray, episode: np.ndarray, goal: np.ndarray, steps: int) -> np.ndarray:
        """int64 [N]: the first of the next actions that led to the goal; ``steps`` where none did."""
        at = np.minimum(start[:, None] + np.arange(1, steps + 1), self._end[episode][:, None])
        there = (self._squares(at, np.broadcast_to(episode[:, None], at.shape)) == goal[:, None]).all(-1)
        return np.where(there.any(1), there.argmax(1), steps)

    def _chunks(
        self,
        start: np.ndarray,
        episode: np.ndarray,
        hero: np.ndarray,
        goal: np.ndarray,
        obs: Mapping[str, Tensor],
        generator: np.random.Generator,
    ) -> ChunkBatch:
        play, config = self._play, self._critic
        num, E = len(start), config.chunk_steps
        weight = np.ones(num, np.float32)
        end = self._end[episode]
        place = np.arange(E)
        # Some chunks are cut short, so that the critic can judge plans of fewer steps too.
        span = np.where(generator.random(num) < config.cut_share, generator.integers(1, E + 1, num), E)
        span = np.minimum(span, end - start)
        at = np.minimum(start[:, None] + place, play.num_steps - 1)
        powers = config.gamma**place
        after = start + span
        discount = config.gamma**span * ~(play.terminated[episode] & (after == end))
        if config.reward == "goal":
            goal = self._critic_goals(start, episode, generator)
            reached = self._reached(start, episode, goal, E)
            reward = -(powers * (place < span[:, None]) * (place <= reached[:, None])).sum(1)
            discount = np.where(reached < span, 0.0, discount)
            # An end elsewhere (other stairs than the goal) says nothing about how far the goal is.
            ended = play.terminated[episode] & (after == end) & (reached >= span)
            weight = ((goal != hero).any(1) & ~ended).astype(np.float32)
        else:
            inside = place < span[:, None]
            reward = (powers * inside * play.reward[at]).sum(1)
            weight *= (play.valid[at] | ~inside).all(1)
        chunk = np.where(place < span[:, None], play.tokens[at], play.num_actions)
        over = after == end
        following = {
            key: self._tensor(
                np.where(
                    over.reshape(-1, *[1] * (x.ndim - 1)),
                    play.last_obs[key][episode],
                    x[np.minimum(after, play.num_steps - 1)],
                )
            )
            for key, x in play.obs.items()
        }
        return ChunkBatch(
            obs=obs,
            next_obs=following,
            hero=self._tensor(hero),
            next_hero=self._tensor(self._squares(after, episode)),
            goal=self._tensor(goal),
            chunk=self._tensor(chunk),
            reward=self._tensor(reward.astype(np.float32)),
            discount=self._tensor(discount.astype(np.float32)),
            weight=self._tensor(weight),
        )

    def _critic_goals(self, start: np.ndarray, episode: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Later squares of the same episode, and squares from anywhere: what was never played in one piece."""
        left = self._end[episode] - start
        ahead = np.minimum(generator.geometric(1 / self._config.goal_steps, len(start)), left)
        later = self._squares(start + ahead, episode)
        other = generator.integers(0, self._play.num_steps, len(start))
        anywhere = self._squares(other, self._episode[other])
        return np.where((generator.random(len(start)) < self._critic.random_goals)[:, None], anywhere, later)


# ---- learning


class PlanningModel(nn.Module):
    """The encoder, the plan head on it, and the critic.

    Args:
        head: which plan head.
        critic: sizes of the critic.
        encoder: of both encoders.
        obs_spec: what is observed.
        num_actions: A.
    """

    def __init__(
        self,
        head: PlanHeadConfig,
        critic: CriticConfig,
        encoder: EncoderConfig,
        obs_spec: Mapping[str, ObsSpec],
        num_actions: int,
    ) -> None:
        super().__init__()
        # The critic first: its weights, and so all that it learns, are the same under every head.
        self.critic = ChunkCritic(critic, encoder, obs_spec, num_actions)
        self.encoder = Encoder(encoder, obs_spec)
        self.head = PLAN_HEADS[type(head)](head, self.encoder.width, num_actions)

    def condition(
        self, obs: Mapping[str, Tensor], condition: Mapping[str, Tensor], legal: Tensor | None = None
    ) -> PlanCondition:
        """What the head plans for, [N, ...] each."""
        return PlanCondition(features=self.encoder(obs), legal=legal, **condition)


class OfflineLearner:
    """Improves a ``PlanningModel`` on windows of logged play.

    Args:
        model: improved in place.
        config: hyper-parameters.
        critic: the critic's.
        play: what is learned from.
        device: where it computes.
        seed: fixes every draw.
        frozen_encoder: the encoder was learned elsewhere and stays as it is.
        frozen_critic: so was the critic, and ``acting`` has the same.

    Attributes:
        acting: the running mean of the model's weights, with the critic's slow copy: what plans.
        updates: so far.
    """

    def __init__(
        self,
        model: PlanningModel,
        config: OfflineConfig,
        critic: CriticConfig,
        play: LoggedPlay,
        device: torch.device,
        seed: int,
        *,
        acting: PlanningModel,
        frozen_encoder: bool = False,
        frozen_critic: bool = False,
    ) -> None:
        self.model, self.acting = model.to(device), acting.to(device)
        self.config, self._critic_config, self._seed = config, critic, seed
        self.sampler = WindowSampler(play, model.head.horizon, config, critic, seed, device)
        self._legal = None if play.legal is None else torch.from_numpy(play.legal).to(device)
        self._frozen_critic = frozen_critic
        if not frozen_critic:
            nn.init.constant_(model.critic.scale, self._scale_of_values())
        model.encoder.requires_grad_(not frozen_encoder)
        acting.load_state_dict(model.state_dict())
        acting.requires_grad_(False).eval()
        others = [p for name, p in model.named_parameters() if not name.startswith("critic.")]
        learned = [p for p in others if p.requires_grad]
        fused = device.type in ("cpu", "cuda")
        self._optimizer = torch.optim.AdamW(
            learned, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused
        )
        self._critic_optimizer = torch.optim.Adam(model.critic.parameters(), lr=critic.learning_rate, fused=fused)
        self.updates = 0

    def update(self, progress: float = 0.0) -> dict[str, float]:
        """Gradient steps of the critic, and one of the head.

        Args:
            progress: share of the run that is over, for annealing.

        Returns:
            Metrics without their group.

        Raises:
            FloatingPointError: a loss is not finite; the weights are left as they were before that step.
        """
        # Of the update alone, so that it repeats after a resume; the head draws apart, so that windows and critics are
        # the same under every head.
        windows, masks = (np.random.default_rng((self._seed, 4, self.updates, part)) for part in range(2))
        left = 1.0 - progress if self.config.anneal == "linear" else 1.0
        judged = self._learn_critic(windows, left)
        batch = self.sampler.draw(self.config.batch, windows)
        weight = batch.weight * self._weights(batch)
        legal = None if self._legal is None else self._legal.expand(len(weight), -1)
        condition = self.model.condition(batch.obs, batch.condition, legal)
        losses = self.model.head.loss(condition, batch.plans, masks)
        loss = (losses * weight).sum() / weight.sum().clamp(min=1e-6)
        rate = left * self.config.learning_rate * min(1.0, (self.updates + 1) / _WARM_UP)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        norm = self._descend(self._optimizer, loss, self._optimizer.param_groups[0]["params"])
        self.updates += 1
        # The first means would remember the initial weights: until there are enough updates, they are over fewer.
        for name in ("encoder", "head"):
            self._follow(name, min(self.config.ema, self.updates / (self.updates + 10)))
        found = {"head_loss": loss.detach(), "grad_norm": norm, "weight_max": weight.max(), **judged}
        return {name: float(value) for name, value in found.items()}

    def _scale_of_values(self) -> float:
        """About how far values are apart: the network's outputs are to be of the order of 1."""
        if self._critic_config.reward == "goal":
            return min(1 / (1 - self._critic_config.gamma), _FAR_STEPS)
        return max(self.sampler.return_spread, 1e-3)

    def _learn_critic(self, windows: np.random.Generator, left: float) -> Mapping[str, Tensor]:
        """The critic's gradient steps, on windows of its own, at this share of its step size; metrics of the last."""
        config, critic, metrics = self._critic_config, self.model.critic, {}
        if self._frozen_critic:
            return metrics
        self._critic_optimizer.param_groups[0]["lr"] = config.learning_rate * left
        highest = -1.0 if config.reward == "goal" else torch.inf  # of a step that reaches its goal
        for _ in range(config.updates):
            chunks = self.sampler.draw(config.batch, windows).chunks
            judged = critic_loss(critic, self.acting.critic, chunks, config.expectile, highest)
            self._descend(self._critic_optimizer, judged.loss, list(critic.parameters()))
            self._follow("critic", config.target_decay)
            metrics = judged.metrics
        return metrics

    @torch.no_grad()
    def _weights(self, batch: PlanBatch) -> Tensor:
        """What each plan weighs, [N]: by how its beginning serves what it is learned for."""
        if self.config.weighting == "none":
            return torch.ones_like(batch.weight)
        critic, chunks = self.acting.critic, batch.chunks
        if self._critic_config.reward == "goal":
            states = critic.states(batch.obs, batch.condition["hero"], batch.condition["goal"])
            played = batch.plans
        else:
            states, played = critic.states(batch.obs, chunks.hero, chunks.goal), chunks.chunk
        advantage = critic.scores(states, played) - critic.values(states)
        counted = batch.weight > 0
        spread = advantage[counted].std().clamp(min=1e-6)
        return (advantage / (self.config.beta * spread)).exp().clamp(max=self.config.max_weight)

    def _descend(self, optimizer: torch.optim.Optimizer, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"the gradient is not finite at update {self.updates} (loss {loss.item()})")
        optimizer.step()
        return norm.detach()

    @torch.no_grad()
    def _follow(self, part: str, decay: float) -> None:
        """Move the running mean of a part's weights."""
        slow, fast = getattr(self.acting, part), getattr(self.model, part)
        for mean, weight in zip(slow.parameters(), fast.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Everything but ``acting``'s weights that the next update depends on."""
        return {
            "updates": self.updates,
            "model": {name: x.cpu().numpy().copy() for name, x in self.model.state_dict().items()},
            "optimizers": [_optimizer_state(o) for o in (self._optimizer, self._critic_optimizer)],
        }

    def load_state_dict(self, state: Mapping[str, Any], acting: Mapping[str, np.ndarray]) -> None:
        """Continue from ``state_dict``; ``acting`` holds that model's weights."""
        self.updates = int(state["updates"])
        for model, weights in ((self.model, state["model"]), (self.acting, acting)):
            model.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in weights.items()})
        for optimizer, saved in zip((self._optimizer, self._critic_optimizer), state["optimizers"], strict=True):
            own = optimizer.state_dict()
            own["state"] = {int(i): {k: torch.from_numpy(np.array(v)) for k, v in s.items()} for i, s in saved.items()}
            optimizer.load_state_dict(own)


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, np.ndarray]]:
    states = optimizer.state_dict()["state"]
    return {str(i): {k: v.cpu().numpy().copy() for k, v in s.items()} for i, s in states.items()}
