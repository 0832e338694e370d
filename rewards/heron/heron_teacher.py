"""HERON on the driver's side: segments of all workers to the trainer, versions of the reward to the scorers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from envs.protocols import State
from envs.spec import union_of_names
from envs.tasks import specs_of
from rewards.heron.config import TreeConfig
from rewards.heron.factors import FactorTable
from rewards.heron.heron_reward import Scorer
from rewards.heron.human import pairs_in_file
from rewards.heron.pair_labelling import PairLabelling
from rewards.heron.preference_trainer import PreferenceTrainer
from rewards.heron.report import REPORT_FILE
from rewards.heron.segments import Segments
from rewards.inquiry import Inquiry
from rewards.teacher import Event, Teacher, TeachingContext


class HeronTeacher(Teacher):
    """Learns what is preferred, update after update, from the tree, from an annotator and from people.

    Args:
        config: the tree, the networks, the schedule, and who judges.
        context: of the run.
    """

    def __init__(self, config: TreeConfig, context: TeachingContext) -> None:
        self._config, self._context = config, context
        table = FactorTable.from_ranking(config.ranking)
        self.trainer = PreferenceTrainer(config, table, context.seed)
        self._labelling = self._pair_labelling(table) if "labeller" in config.judges.sources else None
        self._dead_factors: set[str] = set()
        """Factors of which the log says that they are constant."""
        self._events: list[Event] = []

    def _pair_labelling(self, table: FactorTable) -> PairLabelling:
        context = self._context
        return PairLabelling(
            self.trainer,
            table,
            Inquiry.opened(context, "play", context.labels.play_spec()),
            pairs_per_update=self._config.judges.pairs_per_update,
            seed=context.seed,
        )

    def begin(self) -> None:
        """Take in what people prefer; from then on it is part of what is saved."""
        pairs = pairs_in_file(self._config, union_of_names(specs_of(self._context.games)))
        if pairs is not None:
            self.trainer.take(pairs)
            self._events.append(Event(kind="human_preferences", fields={"pairs": len(pairs)}))

    def update(self, captions: Mapping[int, str]) -> Scorer | None:
        """A new version of the reward, where one is due, from the play up to the last update."""
        if self._labelling is not None:
            with self._context.phases.measure("labels"):
                self._labelling.update(self._context.captions)
        with self._context.phases.measure("reward_model"):
            scorer = self.trainer.update()
        if scorer is not None and scorer.version == 1:
            self._events.append(Event(kind="heron_begins", fields={"margins": self.trainer.margins}))
        return scorer

    def observe(self, evidence: Sequence[Segments]) -> None:
        """Keep these segments, to compare them."""
        for segments in evidence:
            self.trainer.add(segments)

    def metrics(self) -> dict[str, float]:
        """Figures of the trainer, and of what the annotator is asked."""
        figures = {f"heron/{name}": value for name, value in self.trainer.metrics().items()}
        return figures | ({} if self._labelling is None else self._labelling.metrics())

    def events(self) -> Sequence[Event]:
        """The first version; outages; factors that never differ, and those that have begun to."""
        dead = set(self.trainer.dead_factors)
        for name in sorted(dead - self._dead_factors):
            note = f"factor '{name}' has been the same in all segments so far: its level decides nothing"
            self._events.append(Event(kind="factor_dead", fields={"factor": name}, note=note))
        for name in sorted(self._dead_factors - dead):
            self._events.append(Event(kind="factor_alive", fields={"factor": name}))
        self._dead_factors = dead
        events, self._events = self._events, []
        return [*events, *(() if self._labelling is None else self._labelling.events())]

    def documents(self) -> Mapping[str, str]:
        """What is known of the reward."""
        return {REPORT_FILE: json.dumps(self.trainer.report().as_json(), indent=1)}

    def state_dict(self) -> State:
        """The trainer, and pairs that wait for an answer."""
        return {
            "trainer": self.trainer.state_dict(),
            "labelling": None if self._labelling is None else self._labelling.state_dict(),
            "dead_factors": sorted(self._dead_factors),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.trainer.load_state_dict(state["trainer"])
        if self._labelling is not None:
            self._labelling.load_state_dict(state["labelling"])
        self._dead_factors = set(state["dead_factors"])

    def close(self) -> None:
        """End the labeller."""
        if self._labelling is not None:
            self._labelling.close()
