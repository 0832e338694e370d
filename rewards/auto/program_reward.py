"""The reward of a program, and what happens when the program fails in the middle of training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from envs.data import RewardOutput, RewardPart, Rollout
from envs.protocols import State
from envs.schema import COLUMNS, rollout_columns
from rewards.auto.composition import Composed, Composer, Steps
from rewards.auto.config import ProgramConfig
from rewards.auto.program import NUMBER_COMPONENT, Program
from rewards.auto.sandbox.contained import ContainedProgram, FailureWatch, Values, printable, run_in_batches
from rewards.auto.sandbox.engine import EngineError
from rewards.kinds import PlainReward

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A program was taken out of use by one scorer."""

    scorer: str
    """The process: ``learner``, ``worker 3``."""
    sha: str
    code: str
    """``EngineError.code``, ``failures`` for too many rows without an answer, ``elsewhere`` where others found it."""
    why: str
    """One sentence."""
    fallback: str | None
    """SHA of the program that is used from now on; None where none is left."""
    batch: int
    """Rollouts that had been scored before the one that this program was not used for."""


class ProgramReward(PlainReward):
    """Part ``program``: the composed components of a program; other parts show them one by one and pay nothing.

    A program that fails is quarantined: the rollout is scored anew, as a whole, with the next of the chain, and so is
    all that follows. It fails when its engine does, answers equal inputs differently, or leaves too many transitions
    without an answer. Rollouts are run in batches (``rewards.auto.sandbox.contained``), one of which may die or take
    too long and is sent again before the program is blamed. When none of the chain is left, no step has a value:
    invalid, not 0.

    Parts: ``program``; of every component that a program of the chain declares, and of ``reward`` where one declares
    none, ``program/NAME`` (what it pays) and ``program/NAME/raw`` (what the program gave); of all others together
    ``program/other`` and ``program/other/raw``.

    The memory of running episodes remembers whose it is; see ``Composer.after_switch`` for what becomes of it when
    another program takes over.

    Args:
        chain: the chosen program, then its fallbacks in order.
        config: composition and containment.
        make: starts a program's containment; it is called when the program is first needed.
        gamma: discount of the stream that is fed, for composition.dense="potential".
        scorer: the process that scores, named in reports of quarantines.

    Raises:
        ValueError: the chain is empty.
    """

    def __init__(
        self,
        chain: Sequence[Program],
        config: ProgramConfig,
        make: Callable[[Program], ContainedProgram] | None = None,
        *,
        gamma: float = 1.0,
        scorer: str = "learner",
    ) -> None:
        if not chain:
            raise ValueError("a reward from programs needs a program")
        self.chain = tuple(chain)
        self._config, self._scorer = config, scorer
        self._make = make or (lambda program: ContainedProgram(program, config.containment))
        names = [name for program in chain for name in program.components or (NUMBER_COMPONENT,)]
        self._composer = Composer(config.composition, names, gamma=gamma)
        self.part_names = ("program", *(name for label in self._composer.labels for name in _names(label)))
        self._bad: list[str] = []
        self._num_scored = 0
        self._watch = FailureWatch(config.containment)
        self._running: ContainedProgram | None = None
        self.quarantines: list[Quarantined] = []
        """Everything that was put aside here, what ``replay`` announced among it."""
        self._replayed: list[Quarantined] = []

    # ---- the chain

    @property
    def columns(self) -> tuple[str, ...]:
        """Qualified columns that the games must record for all programs of the chain, in the schema's order."""
        needed = {name for program in self.chain for name in program.needed_columns}
        return tuple(name for name in COLUMNS if name in needed)

    @property
    def program(self) -> Program | None:
        """The program that is used now; None where none is left."""
        return next((program for program in self.chain if program.sha not in self._bad), None)

    @property
    def version(self) -> int:
        """How many programs have been quarantined."""
        return len(self._bad)

    def take(self, news: Sequence[str]) -> None:
        """Use these programs, by their SHAs, no more, from the next rollout on, because others found them bad.

        Programs that are not in the chain, or in quarantine already, change nothing.
        """
        for sha in news:
            if sha in self._not_bad():
                self._note(sha, "elsewhere", "it was quarantined elsewhere")

    def evidence(
        self, rollout: Rollout, output: RewardOutput, state: State
    ) -> tuple[Sequence[Quarantined] | None, State]:
        """Every quarantine so far, each time: an update that breaks must lose none."""
        return tuple(self.quarantines) or None, state

    def replay(self, quarantines: Sequence[Quarantined]) -> None:
        """Announce what the log says will happen after a resume.

        Failures such as timeouts do not repeat themselves: at these batches the switch is made, and the program is
        not run. What lies before the batch that comes next is taken as known.
        """
        self._replayed = list(quarantines)

    def _not_bad(self) -> list[str]:
        return [program.sha for program in self.chain if program.sha not in self._bad]

    def _note(self, sha: str, code: str, why: str) -> None:
        self._drop(sha)
        fallback = None if self.program is None else self.program.sha
        self.quarantines.append(
            Quarantined(scorer=self._scorer, sha=sha, code=code, why=why, fallback=fallback, batch=self._num_scored)
        )

    def _drop(self, sha: str) -> None:
        in_use = self.program is not None and self.program.sha == sha
        self._bad.append(sha)
        if in_use:
            self._watch = FailureWatch(self._config.containment)
            self.close()

    def _make_replayed_switches(self) -> None:
        for event in self._replayed:
            if event.batch == self._num_scored and event.sha in self._not_bad():
                self._drop(event.sha)
                self.quarantines.append(event)

    # ---- scoring

    def initial_state(self, num_games: int) -> State:
        """The composer's memory, and each game's program: its place in the chain, int64 [B]."""
        return {"place": np.full(num_games, self._place()), **self._composer.initial_state(num_games)}

    def _place(self) -> int:
        """Of the program that is used now; the length of the chain where none is."""
        return len(self.chain) if self.program is None else self.chain.index(self.program)

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """What the program that is used now gives each step.

        Raises:
            ValueError: the rollout lacks a column of ``columns``.
        """
        self._make_replayed_switches()
        shape = rollout.env_reward.shape
        values = self._values(rollout)
        self._num_scored += 1
        program, valid = self.program, values.valid.reshape(shape)
        place = np.full(shape[1], self._place())
        memory = self._composer.after_switch(state, state["place"] != place)
        composed, memory = self._composer.compose(
            {name: value.reshape(shape) for name, value in values.components.items()},
            {} if program is None else program.components,
            Steps(valid=valid, terminated=rollout.terminated, truncated=rollout.truncated),
            memory,
        )
        return _parts(composed, valid), {"place": place, **memory}

    def _values(self, rollout: Rollout) -> Values:
        """Of the first program that has an answer; all invalid where none has."""
        num = rollout.env_reward.size
        while (program := self.program) is not None:
            columns = {
                name: column.reshape(num) for name, column in rollout_columns(rollout, program.needed_columns).items()
            }
            try:
                values = self._ask(program, columns, num)
            except EngineError as error:
                self._note(program.sha, error.code, printable(str(error)))
                continue
            failed = len(values.why)
            self._watch.add(num, failed)
            if not self._watch.exceeded:
                return values
            self._note(program.sha, "failures", self._failures(values))
        return Values(components={}, valid=np.zeros(num, bool))

    def _ask(self, program: Program, columns: Mapping[str, np.ndarray], num: int) -> Values:
        if self._running is None:
            self._running = self._make(program)
        return run_in_batches(self._running, columns, num)

    def _failures(self, values: Values) -> str:
        share = f"{self._watch.num_failed} of the last {self._watch.num_rows} transitions have no answer"
        commonest = Counter(values.why.values()).most_common(1)
        return share + "".join(f"; most often, {times} times in this batch: {why}" for why, times in commonest)

    def close(self) -> None:
        """End the program's engine; scoring again starts another."""
        if self._running is not None:
            self._running.close()
            self._running = None

    # ---- checkpoints

    def state_dict(self) -> State:
        """What is quarantined: all that scorers have in common."""
        return {"bad": list(self._bad)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Quarantine what ``state_dict`` says, beside what is in quarantine here."""
        for sha in map(str, state["bad"]):
            if sha not in self._bad:
                self._drop(sha)

    def own_state(self) -> State:
        """What belongs to this one alone: rollouts scored, recent failures, and quarantines."""
        return {
            "bad": list(self._bad),
            "quarantines": [asdict(event) for event in self.quarantines],
            "scored": self._num_scored,
            "watch": self._watch.state_dict(),
        }

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``own_state``."""
        self.load_state_dict(state)
        self.quarantines = [Quarantined(**event) for event in state["quarantines"]]
        self._num_scored = int(state["scored"])
        self._watch.load_state_dict(state["watch"])


def _names(label: str) -> tuple[str, str]:
    """Names of a component's parts: what it pays, and what the program gave."""
    return f"program/{label}", f"program/{label}/raw"


def _parts(composed: Composed, valid: np.ndarray) -> dict[str, RewardPart]:
    parts = {"program": RewardPart(value=_as_float32(composed.total), valid=valid)}
    for label, value in composed.components.items():
        for name, shown in zip(_names(label), (value, composed.raw[label]), strict=True):
            parts[name] = RewardPart(value=_as_float32(shown), valid=valid, pays=False)
    return parts


def _as_float32(value: np.ndarray) -> np.ndarray:
    return value.clip(-_LARGEST, _LARGEST).astype(np.float32)
