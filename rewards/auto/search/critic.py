"""Judges programs: tests that are executed first, a language model's opinion last.

Auto MC-Reward's critic (Li et al. 2023, arXiv 2312.09238) is a language model that reads the code; here it is asked
only about programs that no test refuses, since tests are sure and cost no tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np

from envs.features import COLUMNS
from envs.recording import EpisodeRecord
from rewards.auto.admission import admit
from rewards.auto.config import CompositionConfig, ContainmentConfig
from rewards.auto.episode_pay import Pay, pay_of
from rewards.auto.program import Program, ProgramRejectedError
from rewards.auto.sandbox.contained import ContainedProgram, Runner
from rewards.auto.sandbox.engine import HASH_SEED, EngineError
from rewards.auto.search.auc import auc_of
from rewards.auto.search.dry_run import MIN_TRANSITIONS, crashed, dry_run, findings_of, sample_of
from rewards.auto.search.farming import NUM_STEPS, can_tell, most_farmed
from rewards.auto.search.opinion import Opinion
from rewards.auto.search.verdict import Finding, Verdict
from rewards.auto.transitions import builtin_transitions

MIN_EPISODES = 5
"""Successes, and failures, below which nothing is said about how a program tells them apart."""
MAX_EPISODES = 100
"""Successes, and failures, that are compared at most: the newest."""

_FAILED = ("death", "out of time", "failure")
"""Endings of failed episodes; unfinished ones are neither."""


class Critic:
    """Judges programs on recorded play.

    Args:
        containment: where programs run.
        composition: how their components are composed.
        opinion: asked about programs that no test refuses; None = nobody.
        gamma: discount of the returns that are compared.
        make: a program in a worker of its own that is just started, with this hash seed; None = in containment.
        check: admits source code or raises ``ProgramRejectedError``.
    """

    def __init__(
        self,
        containment: ContainmentConfig,
        composition: CompositionConfig,
        opinion: Opinion | None = None,
        *,
        gamma: float = 0.99,
        make: Callable[[Program, int], Runner] | None = None,
        check: Callable[[str], Program] = admit,
    ) -> None:
        self._containment, self._composition = containment, composition
        self._opinion, self._gamma, self._check = opinion, gamma, check
        self._make = make or self._contained

    def critique(self, source: str, episodes: Sequence[EpisodeRecord]) -> tuple[Program | None, Verdict]:
        """Admit and judge source code.

        Args:
            source: nothing about it is certain.
            episodes: recorded play of the task; those that lack what the program reads are passed over. Where they
                have fewer than ``MIN_TRANSITIONS`` steps, shipped play of other tasks is added for the dry run.

        Returns:
            The program, None where it was not admitted; and what was found.
        """
        try:
            program = self._check(source)
        except ProgramRejectedError as error:
            return None, Verdict(findings=[_rejected(error)])
        findings = [Finding(test="admission", outcome="pass", reason="written in the language of reward programs")]
        try:
            for found in self._executed(program, episodes):
                findings.append(found)
        except EngineError as error:
            findings.append(crashed(error))
        verdict = Verdict(findings=findings)
        if self._opinion is not None and verdict.accepted:
            verdict = Verdict(findings=[*findings, self._opinion.of(program, findings)])
        return program, verdict

    def _executed(self, program: Program, episodes: Sequence[EpisodeRecord]) -> Iterator[Finding]:
        """Every executed test.

        Raises:
            EngineError: the program has no answer for a whole batch.
        """
        own = [episode for episode in episodes if _holds(episode, program)]
        played = own
        if sum(episode.num_steps for episode in own) < MIN_TRANSITIONS:
            played = [*own, *(episode for episode in builtin_transitions() if _holds(episode, program))]
        columns, num = sample_of(played, program)
        if num < MIN_TRANSITIONS:
            reason = f"only {num} recorded transitions hold what it reads; {MIN_TRANSITIONS} are needed"
            yield Finding(test="dry_run", outcome="undetermined", reason=reason)
            return
        yield from findings_of(dry_run(partial(self._make, program), columns, num), program, self._containment)
        runner = self._make(program, HASH_SEED)
        try:
            yield self._cycle(runner, program, played)
            yield self._auc(runner, program, own)
        finally:
            runner.close()

    def _contained(self, program: Program, hash_seed: int) -> Runner:
        from rewards.auto.sandbox.monty import build_engine  # here, so that checks need no engine installed

        # Every row is sent: rows that are alike are also to be answered alike.
        engine = build_engine(self._containment)
        return ContainedProgram(program, self._containment, engine, distinct=False)

    def _cycle(self, runner: Runner, program: Program, episodes: Sequence[EpisodeRecord]) -> Finding:
        telling = [episode for episode in episodes if can_tell(episode, program)][-MAX_EPISODES:]
        farmed = most_farmed(runner, program, telling, self._composition)
        if farmed is None:
            reason = "recorded play shows no two steps that lead there and back, and none that changes nothing"
            return Finding(test="cycle", outcome="undetermined", reason=reason)
        figures = {"most": farmed.total, "allowed": farmed.allowed, "walks": float(farmed.walks)}
        paid = f"{NUM_STEPS} steps back and forth are paid {farmed.total:.2f} at most"
        if farmed.is_too_much:
            reason = (
                f"{paid}, mainly by component '{farmed.component}', where {farmed.allowed:g} may be: it can be farmed"
            )
            return Finding(test="cycle", outcome="fail", reason=reason, figures=figures)
        reason = f"{paid}, of {farmed.allowed:g} that may be ({farmed.walks} walks)"
        return Finding(test="cycle", outcome="pass", reason=reason, figures=figures)

    def _auc(self, runner: Runner, program: Program, episodes: Sequence[EpisodeRecord]) -> Finding:
        successes = _newest(episodes, ("success",))
        failures = _newest(episodes, _FAILED)
        if min(len(successes), len(failures)) < MIN_EPISODES:
            reason = (
                f"recorded play has {len(successes)} successes and {len(failures)} failures; of each at least "
                f"{MIN_EPISODES} are needed to compare them"
            )
            return Finding(test="auc", outcome="undetermined", reason=reason, figures=_counts(successes, failures))
        pay = pay_of(runner, program, [*successes, *failures], self._composition, self._gamma)
        return _compared(pay[: len(successes)], pay[len(successes) :], self._gamma)


def _rejected(error: ProgramRejectedError) -> Finding:
    rejection = error.rejection
    return Finding(test="admission", outcome="fail", reason=str(error), code=rejection.code, line=rejection.line)


def _holds(episode: EpisodeRecord, program: Program) -> bool:
    return all(name in episode.columns or COLUMNS[name].from_rollout for name in program.needed_columns)


def _newest(episodes: Sequence[EpisodeRecord], endings: Sequence[str]) -> list[EpisodeRecord]:
    return list(islice((episode for episode in reversed(episodes) if episode.ending in endings), MAX_EPISODES))


def _counts(successes: Sequence[object], failures: Sequence[object]) -> dict[str, float]:
    return {"successes": float(len(successes)), "failures": float(len(failures))}


def _compared(successes: Sequence[Pay], failures: Sequence[Pay], gamma: float) -> Finding:
    """A failure where either measure surely orders them the wrong way; a pass where both surely do the right way."""
    successes, failures = [[pay for pay in some if pay.valid.any()] for some in (successes, failures)]
    if min(len(successes), len(failures)) < MIN_EPISODES:
        reason = f"it answers in only {len(successes)} successes and {len(failures)} failures"
        return Finding(test="auc", outcome="undetermined", reason=reason, figures=_counts(successes, failures))
    measures: dict[str, Callable[[Pay], float]] = {
        "discounted return": lambda pay: pay.discounted(gamma),
        "reward per step": lambda pay: pay.per_step,
    }
    found = {
        name: auc_of(np.array([measure(pay) for pay in successes]), np.array([measure(pay) for pay in failures]))
        for name, measure in measures.items()
    }
    outcomes = {auc.outcome for auc in found.values()}
    figures = _counts(successes, failures)
    for name, auc in found.items():
        key = name.replace(" ", "_")
        figures |= {key: auc.value, f"{key}_low": auc.low, f"{key}_high": auc.high}
    said = " and ".join(f"{auc} by {name}" for name, auc in found.items())
    reason = (
        f"a success is worth more than a failure in a share of {said}, {len(successes)} and {len(failures)} episodes"
    )
    outcome = "fail" if "fail" in outcomes else "pass" if outcomes == {"pass"} else "undetermined"
    return Finding(test="auc", outcome=outcome, reason=reason, figures=figures)
