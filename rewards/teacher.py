"""The driver's side of a reward: learns from what scorers report, and says what they must know next.

scorers (learners, peers)                             driver
  RewardModel.evidence(rollout, ...)  -- evidence -->  Teacher.observe
  RewardModel.take(news)              <--  news  ----  Teacher.update     (asks an annotator, takes gradient steps)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from envs.protocols import State
from envs.spec import GamesConfig
from envs.timing import PhaseTimer
from rewards.labels.config import LabelsConfig
from rewards.labels.questions import Answer, PromptSpec, Question


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that the run's log keeps."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """JSON values."""
    note: str | None = None
    """The same in a sentence, for the people who watch; None = the log alone keeps it."""


class LabelFeed(Protocol):
    """Questions in, answers out.

    Every method but ``close`` raises ``LabellerError`` once labelling has stopped because of an error. An
    annotator that cannot be reached is no such error: ``problem`` says so.
    """

    def submit(self, questions: Iterable[Question]) -> None:
        """Ask; returns at once."""
        ...

    def poll(self) -> Sequence[Answer]:
        """Answers that arrived since the last call, in the order they came; returns at once."""
        ...

    def drain(self, questions: Iterable[Question]) -> Sequence[Answer]:
        """Wait until each of these questions has its answer; sorted by ids."""
        ...

    def flush(self) -> Sequence[Answer]:
        """As ``poll``, but waits for the labeller to answer (not for the annotator)."""
        ...

    def problem(self) -> str | None:
        """One sentence: why no labels come; None while they do. Possibly a moment old."""
        ...

    def metrics(self) -> Mapping[str, float]:
        """The labeller's counters, possibly a moment old."""
        ...

    def state_dict(self) -> State:
        """The budget that was spent."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        ...

    def close(self) -> None:
        """End the labeller and close its store; a second time changes nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class TeachingContext:
    """What a teacher may use of the run that it teaches."""

    seed: int
    games: GamesConfig
    labels: LabelsConfig
    open_feed: Callable[[str, PromptSpec], LabelFeed]
    """Starts a labeller for what is asked (``captions``, ``play``: see ``RewardKind.questions``) in this wording; the
    teacher closes it."""
    captions: Mapping[int, str]
    """Every caption of the run by its id; grows as new ones are observed."""
    phases: PhaseTimer
    """Where a teacher's time is counted: ``labels`` while it asks, ``reward_model`` while it learns."""
    folder: Path
    """The run's."""
    given: Any = None
    """What ``RewardKind.load`` found in that folder."""


class Teacher:
    """What one reward does on the driver's side; by default nothing. It never blocks training.

    In each update the driver calls ``update``, has the batch scored and learned from, and hands ``observe`` what the
    scorers found. Nothing but ``labels.mode=barrier`` may make ``update`` wait for an annotator.
    """

    def begin(self) -> None:
        """A run begins; a resumed one calls ``load_state_dict`` instead."""

    def update(self, captions: Mapping[int, str]) -> Any | None:
        """What scorers must know before they score the next batch.

        Args:
            captions: ``{caption_id: text}`` of that batch, those that were not observed before.

        Returns:
            News that ``RewardModel.take`` understands, small and picklable; None = there is none.
        """
        return None

    def observe(self, evidence: Sequence[Any]) -> None:
        """Take in what the scorers of one update found, in the order of the learners and of their rollouts."""

    def metrics(self) -> Mapping[str, float]:
        """Figures for a line of metrics, under names that the kind's glossary defines; called once a line."""
        return {}

    def events(self) -> Sequence[Event]:
        """What has happened since the last call."""
        return ()

    def caption_value(self, caption_id: int) -> float | None:
        """What a caption is worth to this reward now; None where it cannot say."""
        return None

    def documents(self) -> Mapping[str, str]:
        """Files ``{name: text}`` of the run's folder that a checkpoint writes anew, for reports."""
        return {}

    def state_dict(self) -> State:
        """Everything, for a checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""

    def close(self) -> None:
        """End what was started."""
