"""Whether a program pays what another one pays already: such a one need not be trained with.

Only what was recorded can be compared. A component that never fired there may fire in training, so that a program is
only called the same as another where every component of both has fired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from envs.recording import EpisodeRecord
from rewards.auto.config import CompositionConfig
from rewards.auto.episodes import pay_of, values_of
from rewards.auto.program import NUMBER_COMPONENT, Program
from rewards.auto.sandbox.contained import Runner
from rewards.auto.sandbox.engine import EngineError


class Screening:
    """Compares what programs pay on recorded episodes; each pair of these is worked out once.

    Args:
        make: runs a program in containment.
        composition: how components are composed.
        gamma: the stream's discount.
    """

    def __init__(self, make: Callable[[Program], Runner], composition: CompositionConfig, gamma: float) -> None:
        self._make, self._composition, self._gamma = make, composition, gamma
        self._paid: dict[str, dict[Path, bytes]] = {}
        self._fired: dict[str, set[str]] = {}
        self._unanswered: set[str] = set()

    def same_as(self, program: Program, others: Sequence[Program], files: Sequence[Path]) -> str | None:
        """The first of the others that is paid the same at every step, bit for bit; None where there is none.

        Args:
            program: it is compared.
            others: with these.
            files: of recorded episodes.

        Raises:
            OSError, ValueError: an episode cannot be read.
        """
        for other in others:
            if self._is_known(program, files) and self._is_known(other, files):
                paid, its = self._paid[program.sha], self._paid[other.sha]
                if all(paid[file] == its[file] for file in files):
                    return other.sha
        return None

    def _is_known(self, program: Program, files: Sequence[Path]) -> bool:
        """What it pays is known, as far as recorded play can tell."""
        paid = self._paid.setdefault(program.sha, {})
        new = [file for file in files if file not in paid]
        if new and program.sha not in self._unanswered:
            self._work_out(program, new)
        names = program.components or (NUMBER_COMPONENT,)
        return program.sha not in self._unanswered and self._fired[program.sha].issuperset(names)

    def _work_out(self, program: Program, files: Sequence[Path]) -> None:
        episodes = [EpisodeRecord.load(file) for file in files]
        runner = self._make(program)
        try:
            values = values_of(runner, program, episodes)
        except EngineError:  # whatever it pays, nothing can be said of it
            self._unanswered.add(program.sha)
            return
        finally:
            runner.close()
        pays = pay_of(values, program, episodes, self._composition, self._gamma)
        fired = {name for name, value in values.components.items() if value.any()}
        digests = [hashlib.sha256(pay.reward.tobytes() + pay.valid.tobytes()).digest() for pay in pays]
        self._paid[program.sha] |= dict(zip(files, digests, strict=True))
        self._fired.setdefault(program.sha, set()).update(fired)
