"""HERON's reward model in training: from segments of play to one version of the reward after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.protocols import State
from rewards.ensemble import Ensemble, disagreement
from rewards.heron.buffer import SegmentBuffer
from rewards.heron.config import TreeConfig
from rewards.heron.cycles import cycle_rate
from rewards.heron.dealing import held_out, learned_by
from rewards.heron.factors import FactorTable
from rewards.heron.input_scale import InputScale
from rewards.heron.judgement import Judgement, judge, segment_returns
from rewards.heron.margins import dead_factors, quantile_margins
from rewards.heron.network import RewardNetwork, preference_loss, segment_sums
from rewards.heron.pairs import balanced_pairs, random_tuples
from rewards.heron.preferences import MIN_JUDGED, PairBatch, PairStore, learnable
from rewards.heron.report import HeronReport, LevelReport, interval
from rewards.heron.scorer import Scorer
from rewards.heron.segments import Segments
from rewards.heron.tree import Level, PreferenceTree

_MEASURE_UPDATES = 10
"""Updates from one look at held-out segments, and at how far inputs spread, to the next."""
_HELD_OUT_PAIRS = 4096
_TRIPLES = 2048
_PROBED_STEPS = 2048
"""Steps, evenly spaced among those kept, that outputs are standardised over."""
_TIE_SHARE = {"half": 0.25, "drop": 0.0}
"""Most of the tree's pairs that may be ties, by ``ComparisonConfig.ties``, where nobody else judges."""
_KEPT_WHOLE = ("human",)
"""Judges none of whose pairs is ever dropped: they are few, and come once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """P labelled pairs among some segments."""

    segments: Segments
    first: np.ndarray
    """int64 [P]: rows."""
    second: np.ndarray
    target: np.ndarray
    """float64 [P]: p(the first is better)."""
    margin: np.ndarray
    """float64 [P]: of the loss."""

    def __len__(self) -> int:
        return len(self.first)

    def take(self, which: np.ndarray | slice) -> _Pairs:
        """Some of the pairs, with only the segments that are in them."""
        rows, at = np.unique(np.stack([self.first[which], self.second[which]]), return_inverse=True)
        first, second = at.reshape(2, -1)
        return _Pairs(
            segments=self.segments.take(rows),
            first=first,
            second=second,
            target=self.target[which],
            margin=self.margin[which],
        )

    def beside(self, other: _Pairs) -> _Pairs:
        """Both."""
        shift = len(self.segments)
        return _Pairs(
            segments=Segments.joined([self.segments, other.segments]),
            first=np.concatenate([self.first, other.first + shift]),
            second=np.concatenate([self.second, other.second + shift]),
            target=np.concatenate([self.target, other.target]),
            margin=np.concatenate([self.margin, other.margin]),
        )


class HeronTrainer:
    """Fits an ensemble to what a preference tree, and others, prefer.

    The tree labels pairs of the segments that are kept, anew in each update, so that only margins are ever fixed: at
    the first update with segments enough, or once a stage. A factor that was the same in all segments then counts any
    difference, until segments differ so much that their quantile is above 0: then it takes its margin, once. Where
    others judge besides the tree, its ties are left to them.

    Episodes are dealt by hash: some are held out, and each member leaves out some of the others.

    Rewards are centred before they are paid, so the mean over a batch is taken off before they are summed, too: what
    is compared is what is paid, and that a segment is longer says nothing by itself.

    Everything follows from the seed and the calls.

    Args:
        config: the tree, the networks, the schedule, and who judges: where the tree does not, only pairs that others
            judged are learned from.
        table: the factors.
        seed: of the initial weights, the split and the pairs.
    """

    def __init__(self, config: TreeConfig, table: FactorTable, seed: int) -> None:
        self._config, self._model, self._table = config, config.model, table
        self._seed, self._uses_tree = seed, "tree" in config.judges.sources
        self._tie_share = _TIE_SHARE[config.comparison.ties] if config.judges.sources == ("tree",) else 0.0
        self._rng = _generator(seed, 21)
        self._aside_rng = _generator(seed, 22)
        """For all but the pairs of the batches and a stage's margins: how often one measures or asks moves no pair."""
        self._buffer = SegmentBuffer(config.model.capacity_segments, self._classes)
        self._judged = PairStore(max(1, config.model.capacity_segments // 2), _KEPT_WHOLE)
        self._ensemble: Ensemble[Tensor] | None = None
        self._scale = InputScale.unknown(0)
        self._tree: PreferenceTree | None = None
        self._scorer: Scorer | None = None
        self._updates = 0
        """Updates that took gradient steps."""
        self._tree_pairs = self._judged_pairs = 0
        """Learned from so far."""
        self._measure_versions = max(1, _MEASURE_UPDATES // config.model.publish_updates)
        self._dead = np.zeros(len(table.names), bool)
        self._late = np.zeros(len(table.names), bool)
        """Factors that were dead when margins were taken, and are to have one taken from data."""
        self._judgement: Judgement | None = None
        self._figures: dict[str, float] = {}

    @property
    def margins(self) -> dict[str, float]:
        """Of each factor, as they are now; empty before they are taken."""
        return {} if self._tree is None else {level.name: level.margin for level in self._tree.levels}

    @property
    def dead_factors(self) -> list[str]:
        """Names of the factors that were the same in all kept segments when that was last looked at.

        It is looked at whether or not there is anything to learn; without a tree, which alone goes by factors, never.
        """
        return [name for name, dead in zip(self._table.names, self._dead.tolist(), strict=True) if dead]

    @property
    def learnable_pairs(self) -> int:
        """Pairs that others have judged and that are learned from: see ``preferences.learnable``."""
        return len(self._judged_to_learn())

    def add(self, segments: Segments) -> None:
        """Keep these segments, and drop the oldest beyond the capacity.

        Raises:
            ValueError: a factor or an input is not finite, or segments do not fit the factors or those before.
        """
        if not len(segments):
            return
        self._check(segments)
        self._buffer.add(segments)
        if self._ensemble is None:
            self._ensemble = self._initial_ensemble(segments.inputs.shape[1])
            self._scale = InputScale.unknown(segments.inputs.shape[1])

    def take(self, pairs: PairBatch) -> None:
        """Learn from these pairs, too, from the next update on.

        Raises:
            ValueError: as of ``add``.
        """
        if not len(pairs):
            return
        self._check(pairs.first)
        self._check(pairs.second)
        self._judged.add(pairs)

    def undecided(self, num: int) -> tuple[Segments, Segments]:
        """Different pairs of one task that the tree does not decide, to ask others about; any pairs without a tree.

        Args:
            num: pairs wanted; fewer, possibly none, where there are not as many.
        """
        kept = self._buffer.kept()
        if kept is None:
            return _NO_SEGMENTS, _NO_SEGMENTS
        # Pairs of a held-out and another segment could neither be learned from nor judge what was learned.
        group = 2 * kept.task + self._held_out(kept)
        first, second = np.zeros((2, 0), np.int64)
        if not self._uses_tree:
            first, second = random_tuples(group, 2, num, self._aside_rng)
        elif self._tree is not None:
            number = num * (len(self._table.names) + 1)
            sample = balanced_pairs(self._tree, kept.factors, group, number, self._aside_rng, tie_share=1.0)
            ties = np.flatnonzero(sample.comparison.level < 0)[:num]
            first, second = sample.first[ties], sample.second[ties]
        return kept.take(first), kept.take(second)

    def update(self) -> Scorer | None:
        """One PPO update's worth of learning; a new version of the reward, where one is due."""
        kept = self._buffer.kept()
        if kept is None or len(kept) < self._model.min_segments:
            return None
        if self._uses_tree:
            self._renew_margins(kept)
        if self._updates % _MEASURE_UPDATES == 0:
            self._scale = self._scale.widened(kept.inputs)
        losses = self._learn(kept)
        if not losses:
            self._find_dead(kept)
            return None
        self._figures["loss"] = float(np.mean(losses))
        self._updates += 1
        if self._updates % self._model.publish_updates:
            return None
        before, self._scorer = self._scorer, self._published()
        if before is None or self._scorer.version % self._measure_versions == 0:
            self._measure(kept, self._scorer)
        return self._scorer

    def _check(self, segments: Segments) -> None:
        names = self._table.names
        if segments.factors.shape[1:] != (len(names),):
            raise ValueError(f"segments have factors {segments.factors.shape}, the ranking has {len(names)}")
        finite = np.isfinite(segments.factors).all(0)
        if not finite.all():
            raise ValueError(f"factor '{names[int(np.argmin(finite))]}' is not finite over a segment")
        D = segments.inputs.shape[1]
        if self._ensemble is not None and len(self._scale.mean) != D:
            raise ValueError(f"the reward model reads {len(self._scale.mean)} inputs a step, got {D}")
        finite = np.isfinite(segments.inputs).all(0)
        if not finite.all():
            raise ValueError(f"input {int(np.argmin(finite))} of the reward model is not finite")

    def _initial_ensemble(self, num_inputs: int) -> Ensemble[Tensor]:
        model = self._model
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence((self._seed, 23)).generate_state(1)[0]))
        network = RewardNetwork(model.members, num_inputs, model.hidden, generator)
        return Ensemble(network, model.learning_rate, model.weight_decay)

    def _is_new_stage(self) -> bool:
        every = self._config.comparison.stage_updates
        return every is not None and self._updates > 0 and self._updates % every == 0

    def _renew_margins(self, kept: Segments) -> None:
        newest = slice(-self._config.comparison.stage_segments, None)
        factors, task = kept.factors[newest], kept.task[newest]
        if self._tree is None or self._is_new_stage():
            self._begin_stage(factors, task)
            self._find_dead(kept)
        elif self._late.any():
            self._take_late_margins(self._tree, factors, task)

    def _begin_stage(self, factors: np.ndarray, task: np.ndarray) -> None:
        """Take margins from these segments; where no two of them are of one task, all stays as it is."""
        if len(np.unique(task)) == len(task):
            return
        given = [factor.margin for factor in self._table.factors]
        margins = quantile_margins(factors, given, self._config.comparison.margin_quantile, self._rng, task)
        self._late = dead_factors(factors, task) & np.array([margin is None for margin in given])
        self._grow_tree(margins)

    def _take_late_margins(self, tree: PreferenceTree, factors: np.ndarray, task: np.ndarray) -> None:
        """Of factors that were dead before, and whose quantile is above 0 by now; all others keep theirs."""
        varies = self._late & ~dead_factors(factors, task)
        if not varies.any():
            return
        given = [None if taken else level.margin for level, taken in zip(tree.levels, varies.tolist(), strict=True)]
        margins = quantile_margins(factors, given, self._config.comparison.margin_quantile, self._aside_rng, task)
        found = varies & (margins > 0)
        if found.any():
            self._late &= ~found
            self._grow_tree(margins)

    def _find_dead(self, kept: Segments) -> None:
        if self._uses_tree:
            self._dead = dead_factors(kept.factors, kept.task)

    def _classes(self, segments: Segments) -> np.ndarray:
        """Segments of one task that the two most important factors do not tell apart are in one class."""
        if self._tree is None:
            return segments.task
        bins = self._tree.bins(segments.factors)[:, :2]
        return np.unique(np.column_stack([segments.task, bins]), axis=0, return_inverse=True)[1].ravel()

    def _grow_tree(self, margins: np.ndarray) -> None:
        levels = [
            Level(name=name, sign=int(sign), margin=float(margin))
            for name, sign, margin in zip(self._table.names, self._table.signs, margins, strict=True)
        ]
        self._tree = PreferenceTree(levels, self._config.comparison.mode)

    def _held_out(self, segments: Segments) -> np.ndarray:
        return held_out(segments.episode_id, self._model.held_out_share, self._seed)

    def _learn(self, kept: Segments) -> list[float]:
        """Loss of each gradient step; none where there is nothing to learn from yet."""
        per_update = self._model.steps_per_update
        rounds = 1 if self._updates else -(-self._model.first_steps // per_update)
        return [self._step(pairs) for _ in range(rounds) for pairs in self._batches(kept, per_update)]

    def _batches(self, kept: Segments, steps: int) -> Iterator[_Pairs]:
        size = self._model.batch_pairs
        judged = self._judged_to_learn()
        num_judged = self._num_judged(len(judged))
        by_tree = self._labelled(kept, steps * (size - num_judged))
        if by_tree is None and num_judged == 0:
            return
        for step in range(steps):
            pieces = []
            if by_tree is not None and len(by_tree) > step:
                pieces.append(by_tree.take(slice(step, None, steps)))
                self._tree_pairs += len(pieces[-1])
            if num_judged:
                pieces.append(judged.take(self._rng.choice(len(judged), num_judged, replace=False)))
                self._judged_pairs += num_judged
            if pieces:
                yield pieces[0] if len(pieces) == 1 else pieces[0].beside(pieces[1])

    def _num_judged(self, available: int) -> int:
        """How many pairs of each batch others have judged."""
        if self._uses_tree:
            return min(available, round(self._model.judged_share * self._model.batch_pairs))
        return min(available, self._model.batch_pairs) if available >= MIN_JUDGED else 0

    def _labelled(self, kept: Segments, num: int) -> _Pairs | None:
        """Pairs that the tree has judged; None without a tree, or while it decides none: ties teach no difference."""
        if self._tree is None or num == 0:
            return None
        rows = np.flatnonzero(~self._held_out(kept))
        factors, task = kept.factors[rows], kept.task[rows]
        sample = balanced_pairs(self._tree, factors, task, num, self._rng, tie_share=self._tie_share)
        found = sample.comparison
        if not found.outcome.any():
            return None
        margin = np.minimum(self._model.margin_scale * found.strength, self._model.max_loss_margin)
        return _Pairs(
            segments=kept,
            first=rows[sample.first],
            second=rows[sample.second],
            target=(1 + found.outcome) / 2,
            margin=margin,
        )

    def _judged_to_learn(self) -> _Pairs:
        segments = _NO_SEGMENTS if self._judged.segments is None else self._judged.segments
        rows = learnable(segments, self._judged.target, self._config, self._seed)
        return _Pairs(
            segments=segments,
            first=2 * rows,
            second=2 * rows + 1,
            target=self._judged.target[rows],
            margin=np.zeros(len(rows)),
        )

    def _step(self, pairs: _Pairs) -> float:
        """One gradient step; the mean over the members of their losses."""
        assert self._ensemble is not None
        segments, members = pairs.segments, self._model.members
        learns = learned_by(segments.episode_id, members, self._seed)
        weights = learns[:, pairs.first] & learns[:, pairs.second]

        def loss(rewards: Tensor) -> Tensor:
            worth = segment_sums(self._centred(rewards), segments.lengths)
            first, second = worth[:, pairs.first], worth[:, pairs.second]
            return preference_loss(first, second, pairs.target, pairs.margin, weights, self._model.pin)

        return self._ensemble.step(torch.from_numpy(self._scale(segments.inputs)), loss) / members

    def _centred(self, rewards: Tensor) -> Tensor:
        """Rewards [K, M] less what will be taken off them when they are paid.

        Where whole episodes are compared, nothing is: their lengths differ, and what a step more is worth is learned.
        """
        if self._config.segment_steps is None:
            return rewards
        if self._scorer is None:
            return rewards - rewards.mean(1, keepdim=True)
        return rewards - torch.from_numpy(self._scorer.output_mean[:, None].astype(np.float32))

    def _published(self) -> Scorer:
        """The next version, with outputs standardised over the newest steps: what is played now."""
        recent = self._buffer.recent()
        assert self._ensemble is not None and recent is not None
        probed = np.linspace(0, len(recent.inputs) - 1, min(len(recent.inputs), _PROBED_STEPS)).astype(np.int64)
        outputs = self._ensemble.predict(torch.from_numpy(self._scale(recent.inputs[probed])))
        centred = self._config.segment_steps is not None
        mean = outputs.mean(1) if centred else np.zeros(len(outputs))
        std = np.sqrt(((outputs - mean[:, None]) ** 2).mean(1))
        std = np.where(std > 0, std, 1.0)
        self._figures["disagreement"] = float(disagreement((outputs - mean[:, None]) / std[:, None]).mean())
        return Scorer(
            weights=tuple(weights.detach().numpy().copy() for weights in self._ensemble.network.parameters()),
            scale=self._scale,
            output_mean=mean,
            output_std=std,
            aggregate=self._model.aggregate,
            version=1 if self._scorer is None else self._scorer.version + 1,
        )

    def _measure(self, kept: Segments, scorer: Scorer) -> None:
        """Look at held-out segments: what they are paid now, against what the tree and others say."""
        self._find_dead(kept)
        if self._tree is not None:
            held = kept.take(np.flatnonzero(self._held_out(kept)))
            returns = segment_returns(scorer.score(held.inputs), held.lengths)
            rng = self._aside_rng
            self._judgement = judge(self._tree, held.factors, held.task, returns, _HELD_OUT_PAIRS, rng)
            if self._tree.mode == "margin":
                self._figures["cycle_share"] = cycle_rate(self._tree, kept.factors, rng, _TRIPLES, kept.task)
        self._figures.pop("judged_accuracy", None)
        if self._judged.segments is not None:
            self._figures |= self._judged_accuracy(self._judged.segments, scorer)

    def _judged_accuracy(self, segments: Segments, scorer: Scorer) -> dict[str, float]:
        """Over the pairs with a held-out episode that are no ties."""
        target = self._judged.target
        rows = np.flatnonzero(self._held_out(segments).reshape(-1, 2).any(1) & (target != 0.5))
        if not len(rows):
            return {}
        both = segments.take(np.stack([2 * rows, 2 * rows + 1], axis=1).ravel())
        first, second = segment_returns(scorer.score(both.inputs), both.lengths).reshape(-1, 2).T
        return {"judged_accuracy": float(((first > second) == (target[rows] > 0.5)).mean())}

    def metrics(self) -> dict[str, float]:
        """Figures by name; those that cannot be told yet are left out.

        ``accuracy`` and ``accuracy/<level>``, ``decided/<level>`` and ``tie_share`` are of held-out segments, some
        updates old at most; ``pairs`` and ``judged_pairs`` count what was learned from.
        """
        figures = {
            "segments": float(len(self._buffer)),
            "pairs": float(self._tree_pairs + self._judged_pairs),
            "judged_pairs": float(self._judged_pairs),
            "version": float(0 if self._scorer is None else self._scorer.version),
            **({"dead_factors": float(self._dead.sum())} if self._uses_tree else {}),
            **self._figures,
        }
        found = self._judgement
        if found is None:
            return figures
        figures["tie_share"] = 1 - int(found.decided.sum()) / found.pairs
        if found.decided.any():
            figures["accuracy"] = int(found.right.sum()) / int(found.decided.sum())
        if found.rank_correlation is not None:
            figures["rank_correlation"] = found.rank_correlation
        for name, decided, right in zip(self._table.names, found.decided.tolist(), found.right.tolist(), strict=True):
            figures[f"decided/{name}"] = decided / found.pairs
            if decided:
                figures[f"accuracy/{name}"] = right / decided
        return figures

    def report(self) -> HeronReport:
        """What is known of the reward."""
        kept, figures = self._buffer.kept(), self.metrics()
        num_levels = len(self._table.names) if self._uses_tree else 0
        has_no_cycles = self._uses_tree and self._config.comparison.mode == "bins"
        return HeronReport(
            uses_tree=self._uses_tree,
            mode=self._config.comparison.mode,
            version=int(figures["version"]),
            segments=int(figures["segments"]),
            held_out_segments=0 if kept is None else int(self._held_out(kept).sum()),
            levels=tuple(self._level_report(level) for level in range(num_levels)),
            accuracy=figures.get("accuracy"),
            tie_share=figures.get("tie_share"),
            cycle_share=0.0 if has_no_cycles else figures.get("cycle_share"),
            rank_correlation=figures.get("rank_correlation"),
            judged_accuracy=figures.get("judged_accuracy"),
            sources=({"tree": self._tree_pairs} if self._uses_tree else {}) | self._judged.sources(),
        )

    def _level_report(self, level: int) -> LevelReport:
        factor, tree, found = self._table.factors[level], self._tree, self._judgement
        compared, decided, right, independent = (
            (0, 0, 0, 0)
            if found is None
            else (int(x[level]) for x in (found.compared, found.decided, found.right, found.independent))
        )
        accuracy = right / decided if decided else None
        low, high = (None, None) if accuracy is None else interval(accuracy, independent)
        return LevelReport(
            name=factor.name,
            sign=factor.sign,
            margin=factor.margin if tree is None else tree.levels[level].margin,
            description=factor.description,
            compared=compared,
            decided=decided,
            ties=compared - decided,
            right=right,
            accuracy=accuracy,
            accuracy_low=low,
            accuracy_high=high,
            independent_pairs=independent,
            dead=bool(self._dead[level]),
        )

    def state_dict(self) -> State:
        """Segments, judged pairs, networks and optimiser, scales, margins, the newest version, counts, random state."""
        return {
            "buffer": self._buffer.state_dict(),
            "judged": self._judged.state_dict(),
            "ensemble": None if self._ensemble is None else self._ensemble.state_dict(),
            "input_mean": self._scale.mean.copy(),
            "input_std": self._scale.std.copy(),
            "margins": None if self._tree is None else np.array([level.margin for level in self._tree.levels]),
            "scorer": None if self._scorer is None else self._scorer.state(),
            "updates": self._updates,
            "tree_pairs": self._tree_pairs,
            "judged_pairs": self._judged_pairs,
            "dead": self._dead.copy(),
            "late": self._late.copy(),
            "judgement": None if self._judgement is None else self._judgement.state_dict(),
            "figures": dict(self._figures),
            "generator": dict(self._rng.bit_generator.state),
            "aside_generator": dict(self._aside_rng.bit_generator.state),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``.

        Raises:
            ValueError: the state is that of other networks or of another ranking.
        """
        if len(state["dead"]) != len(self._table.names):
            raise ValueError(f"the saved reward model ranks {len(state['dead'])} factors, not {len(self._table.names)}")
        mean, std = np.array(state["input_mean"], np.float32), np.array(state["input_std"], np.float32)
        self._ensemble = None
        if state["ensemble"] is not None:
            self._ensemble = self._initial_ensemble(len(mean))
            self._ensemble.load_state_dict(state["ensemble"])
        self._scale = InputScale(mean=mean, std=std)
        self._buffer.load_state_dict(state["buffer"])
        self._judged.load_state_dict(state["judged"])
        self._tree = None
        if state["margins"] is not None:
            self._grow_tree(np.array(state["margins"], np.float64))
        self._scorer = None if state["scorer"] is None else Scorer.from_state(state["scorer"])
        self._updates = int(state["updates"])
        self._tree_pairs, self._judged_pairs = int(state["tree_pairs"]), int(state["judged_pairs"])
        self._dead = np.array(state["dead"], bool)
        # Earlier checkpoints do not say which are late: there, every factor keeps its margin.
        self._late = np.array(state.get("late", np.zeros_like(self._dead)), bool)
        self._judgement = None if state["judgement"] is None else Judgement.from_state(state["judgement"])
        self._figures = {name: float(figure) for name, figure in state["figures"].items()}
        self._rng.bit_generator.state = state["generator"]
        self._aside_rng.bit_generator.state = state["aside_generator"]


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, stream))))


_NO_SEGMENTS = Segments(
    inputs=np.zeros((0, 0), np.float32),
    lengths=np.zeros(0, np.int64),
    factors=np.zeros((0, 0)),
    episode_id=np.zeros(0, np.int64),
    first_step=np.zeros(0, np.int64),
    ended=np.zeros(0, bool),
    task=np.zeros(0, np.int64),
    caption_id=np.zeros(0, np.int64),
)
