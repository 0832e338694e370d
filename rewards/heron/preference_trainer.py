"""HERON's reward model in training: from segments of play to one version of the reward after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.protocols import State
from rewards.ensemble import Ensemble, disagreement
from rewards.heron.config import TreeConfig
from rewards.heron.factors import FactorTable
from rewards.heron.heron_reward import Scorer
from rewards.heron.inputs import InputScale
from rewards.heron.judgement import Judgement, judge, segment_returns
from rewards.heron.margins import GrowingTree, dead_factors
from rewards.heron.network import RewardNetwork, preference_loss, segment_sums
from rewards.heron.pairs import balanced_pairs, cycle_rate, held_out, learned_by, random_tuples
from rewards.heron.preferences import MIN_JUDGED, PairBatch, PairStore, learnable
from rewards.heron.report import HeronReport, LevelReport
from rewards.heron.segments import LabelledPairs, SegmentBuffer, Segments
from rewards.heron.tree import PreferenceTree

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


class PreferenceTrainer:
    """Fits an ensemble to what a preference tree, and others, prefer.

    The tree labels pairs of the segments that are kept, anew in each update, so that only margins are ever fixed: at
    the first update with segments enough, or once a stage. Where others judge besides the tree, its ties are left to
    them.

    Episodes are dealt by hash: some are held out, and each member leaves out some of the others.

    Rewards are centred before they are paid, so what will be taken off them is taken off before they are summed, too:
    what is compared is what is paid, and that a segment is longer says nothing by itself.

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
        self._growing = GrowingTree(config.comparison, table, self._rng, self._aside_rng)
        self._scorer: Scorer | None = None
        self._updates = 0
        """Updates that took gradient steps."""
        self._tree_pairs = self._judged_pairs = 0
        """Learned from so far."""
        self._measure_versions = max(1, _MEASURE_UPDATES // config.model.publish_updates)
        self._dead = np.zeros(len(table.names), bool)
        self._judgement: Judgement | None = None
        self._figures: dict[str, float] = {}

    @property
    def _tree(self) -> PreferenceTree | None:
        return self._growing.tree

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
            self._growing.begin_stage(factors, task)
            self._find_dead(kept)
        else:
            self._growing.take_late_margins(factors, task)

    def _find_dead(self, kept: Segments) -> None:
        if self._uses_tree:
            self._dead = dead_factors(kept.factors, kept.task)

    def _classes(self, segments: Segments) -> np.ndarray:
        """Segments of one task that the two most important factors do not tell apart are in one class."""
        if self._tree is None:
            return segments.task
        bins = self._tree.bins(segments.factors)[:, :2]
        return np.unique(np.column_stack([segments.task, bins]), axis=0, return_inverse=True)[1].ravel()

    def _held_out(self, segments: Segments) -> np.ndarray:
        return held_out(segments.episode_id, self._model.held_out_share, self._seed)

    def _learn(self, kept: Segments) -> list[float]:
        """Loss of each gradient step; none where there is nothing to learn from yet."""
        per_update = self._model.steps_per_update
        rounds = 1 if self._updates else -(-self._model.first_steps // per_update)
        return [self._step(pairs) for _ in range(rounds) for pairs in self._batches(kept, per_update)]

    def _batches(self, kept: Segments, steps: int) -> Iterator[LabelledPairs]:
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

    def _labelled(self, kept: Segments, num: int) -> LabelledPairs | None:
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
        return LabelledPairs(
            segments=kept,
            first=rows[sample.first],
            second=rows[sample.second],
            target=(1 + found.outcome) / 2,
            margin=margin,
        )

    def _judged_to_learn(self) -> LabelledPairs:
        segments = _NO_SEGMENTS if self._judged.segments is None else self._judged.segments
        rows = learnable(segments, self._judged.target, self._config, self._seed)
        return LabelledPairs(
            segments=segments,
            first=2 * rows,
            second=2 * rows + 1,
            target=self._judged.target[rows],
            margin=np.zeros(len(rows)),
        )

    def _step(self, pairs: LabelledPairs) -> float:
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

        It is the published mean in value, and this batch's in gradient: a constant is always taken off again, so
        nothing must be gained by adding one. Where play ends early, longer segments would want one more with every
        version, without end.
        """
        if self._config.segment_steps is None:
            return rewards
        mean = rewards.mean(1, keepdim=True)
        if self._scorer is None:
            return rewards - mean
        published = torch.from_numpy(self._scorer.output_mean[:, None].astype(np.float32))
        return rewards - published - (mean - mean.detach())

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
        """Figures by name; those not known yet are left out.

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
        return figures if self._judgement is None else figures | self._judgement.figures(self._table.names)

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
        factor, tree = self._table.factors[level], self._tree
        margin = factor.margin if tree is None else tree.levels[level].margin
        return LevelReport.of(factor, margin, self._judgement, level, dead=bool(self._dead[level]))

    def state_dict(self) -> State:
        """Segments, judged pairs, networks and optimiser, scales, margins, the newest version, counts, random state."""
        return {
            "buffer": self._buffer.state_dict(),
            "judged": self._judged.state_dict(),
            "ensemble": None if self._ensemble is None else self._ensemble.state_dict(),
            "input_mean": self._scale.mean.copy(),
            "input_std": self._scale.std.copy(),
            "tree": self._growing.state_dict(),
            "scorer": None if self._scorer is None else self._scorer.state(),
            "updates": self._updates,
            "tree_pairs": self._tree_pairs,
            "judged_pairs": self._judged_pairs,
            "dead": self._dead.copy(),
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
        self._growing.load_state_dict(state["tree"])
        self._scorer = None if state["scorer"] is None else Scorer.from_state(state["scorer"])
        self._updates = int(state["updates"])
        self._tree_pairs, self._judged_pairs = int(state["tree_pairs"]), int(state["judged_pairs"])
        self._dead = np.array(state["dead"], bool)
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
