"""Judges programs: tests that are executed first, a language model's opinion last.

Auto MC-Reward's critic (Li et al. 2023, arXiv 2312.09238) is a language model that reads the code; here it is asked
only about programs that no test refuses, since tests are sure and cost no tokens. The first test is a dry run on
recorded transitions: does the program answer, always the same, in time, and say anything?
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from envs.features import COLUMNS
from envs.recording import EpisodeRecord
from rewards.auto.admission import admit
from rewards.auto.batches import BATCH, Runner, run_in_batches
from rewards.auto.config import CompositionConfig, ContainmentConfig
from rewards.auto.contained import ContainedProgram, Values
from rewards.auto.engine import HASH_SEED, EngineError
from rewards.auto.episodes import EpisodePay, builtin_transitions, pay_of, transitions_of, values_of
from rewards.auto.program import Program, ProgramRejectedError
from rewards.auto.search.auc import auc_of
from rewards.auto.search.farming import NUM_STEPS, can_tell, most_farmed
from rewards.auto.search.proposal import Finding, Opinion, Verdict

MIN_TRANSITIONS = 256
MAX_TRANSITIONS = 4096

_ORDER_SEED = 1
_OTHER_HASH_SEED = HASH_SEED + 1
_TEST_OF: Mapping[str, str] = {"nondeterministic": "deterministic", "timeout": "time"}
"""Which test an engine's error is about, by its code."""
_SUCCEEDED, _DIED = "info.succeeded", "info.died"


@dataclass(frozen=True, kw_only=True, eq=False)
class DryRun:
    """Three runs of one program on the same N transitions."""

    columns: Mapping[str, np.ndarray]
    """What it was run on, ``info.succeeded`` and ``info.died`` among it."""
    first: Values
    shuffled: Values
    """By the same worker, in another order, put back into the first."""
    fresh: Values
    """By another worker, with another hash seed: sets may have another order there."""
    seconds: float
    """Of the fastest run."""

    @property
    def num(self) -> int:
        """N."""
        return len(self.first.valid)


def sample_of(episodes: Sequence[EpisodeRecord], program: Program) -> tuple[dict[str, np.ndarray], int]:
    """At most about ``MAX_TRANSITIONS`` steps of episodes: the last of each, and others at equal distances.

    Returns:
        ``{column: [N]}``: what the program reads, ``info.succeeded`` and ``info.died``; and N.
    """
    names = tuple(dict.fromkeys((*program.needed_columns, _SUCCEEDED, _DIED)))
    columns, num = transitions_of(episodes, names)
    ends = np.cumsum([episode.num_steps for episode in episodes], dtype=np.int64) - 1
    spread = np.linspace(0, max(num - 1, 0), min(num, MAX_TRANSITIONS)).astype(np.int64)
    rows = np.union1d(spread, ends[-MAX_TRANSITIONS:])
    return {name: column[rows] for name, column in columns.items()}, len(rows)


def dry_run(make: Callable[[int], Runner], columns: Mapping[str, np.ndarray], num: int) -> DryRun:
    """Run a program three times, in two workers of its own.

    Args:
        make: a program in a worker of its own that was just started, with this hash seed.
        columns: as of ``sample_of``.
        num: N.

    Raises:
        EngineError: it has no answer for the whole.
    """
    order = np.random.default_rng(_ORDER_SEED).permutation(num)
    back = np.argsort(order)
    runner = make(HASH_SEED)
    try:
        first, first_s = _timed(runner, columns, num)
        moved = {name: column[order] for name, column in columns.items()}
        shuffled, shuffled_s = _timed(runner, moved, num)
    finally:
        runner.close()
    other = make(_OTHER_HASH_SEED)
    try:
        fresh, fresh_s = _timed(other, columns, num)
    finally:
        other.close()
    seconds = min(first_s, shuffled_s, fresh_s)  # the rest is the machine's doing
    return DryRun(columns=columns, first=first, shuffled=_taken(shuffled, back), fresh=fresh, seconds=seconds)


def _timed(runner: Runner, columns: Mapping[str, np.ndarray], num: int) -> tuple[Values, float]:
    start = time.perf_counter()
    return run_in_batches(runner, columns, num), time.perf_counter() - start


def _taken(values: Values, rows: np.ndarray) -> Values:
    why = {i: values.why[row] for i, row in enumerate(rows.tolist()) if row in values.why}
    components = {name: value[rows] for name, value in values.components.items()}
    lacking = {name: lacks[rows] for name, lacks in values.lacking.items()}
    return Values(components=components, valid=values.valid[rows], why=why, lacking=lacking)


# ---- what follows from it


def findings_of(run: DryRun, program: Program, config: ContainmentConfig) -> list[Finding]:
    """What the runs show, test by test."""
    return [
        _answers(run, config),
        _same("deterministic", run.first, run.fresh, "a second worker"),
        _same("pure", run.first, run.shuffled, "another order of the transitions"),
        _in_time(run, config),
        _says_something(run, program),
    ]


def crashed(error: EngineError) -> Finding:
    """The finding about a program that has no answer for a whole batch."""
    test = _TEST_OF.get(error.code, "dry_run")
    return Finding(test=test, outcome="fail", reason=f"it cannot be run: {error}", code=error.code)


def _answers(run: DryRun, config: ContainmentConfig) -> Finding:
    missing = int((~run.first.valid).sum())
    values = np.array(list(run.first.components.values()) or [[0.0]])
    figures = {
        "transitions": float(run.num),
        "without_answer": float(missing),
        "lowest": float(values.min()),
        "highest": float(values.max()),
    }
    if missing > config.max_failure_share * run.num:
        (why, often), *_ = Counter(run.first.why.values()).most_common(1)
        reason = f"{missing} of {run.num} transitions have no answer; {often} of them because: {why}"
        return Finding(test="dry_run", outcome="fail", reason=reason, figures=figures)
    reason = f"answers {run.num - missing} of {run.num} transitions, with values from {figures['lowest']:g} to "
    return Finding(test="dry_run", outcome="pass", reason=reason + f"{figures['highest']:g}", figures=figures)


def _same(test: str, first: Values, second: Values, than: str) -> Finding:
    rows = _differing(first, second)
    if not len(rows):
        return Finding(test=test, outcome="pass", reason=f"the same answers, bit for bit, with {than}")
    reason = f"{len(rows)} of {len(first.valid)} transitions have other answers with {than}"
    return Finding(test=test, outcome="fail", reason=reason, figures={"differing": float(len(rows))})


def _differing(first: Values, second: Values) -> np.ndarray:
    """Rows whose answers are not the same bits; all of them where the components are not the same."""
    if set(first.components) != set(second.components):
        return np.arange(len(first.valid))
    differ = first.valid != second.valid
    for name, value in first.components.items():
        differ = differ | (value.view(np.int64) != second.components[name].view(np.int64))
    return np.flatnonzero(differ)


def _in_time(run: DryRun, config: ContainmentConfig) -> Finding:
    each = run.seconds / run.num
    figures = {"microseconds_per_transition": 1e6 * each}
    needed = f"{1e6 * each:.1f} us a transition, {BATCH * each:.3f} s for {BATCH}"
    if each * BATCH > config.batch_s:
        reason = f"too slow: {needed}, and a batch may take {config.batch_s:g} s"
        return Finding(test="time", outcome="fail", reason=reason, figures=figures)
    return Finding(test="time", outcome="pass", reason=f"{needed} of {config.batch_s:g} s", figures=figures)


def _says_something(run: DryRun, program: Program) -> Finding:
    valid = run.first.valid
    constant = {name: bool(np.ptp(v[valid]) == 0) for name, v in run.first.components.items() if valid.any()}
    rows = np.stack([v[valid] for v in run.first.components.values()], axis=1) if constant else np.zeros((0, 0))
    share = max(Counter(map(tuple, rows.tolist())).values(), default=0) / max(len(rows), 1)
    figures = {"constant_share": share, "components": float(len(constant))}
    dead = [name for name, is_constant in constant.items() if is_constant]
    if constant and len(dead) < len(constant):
        reason = f"{share:.0%} of the transitions have the most common answer"
        reason += f"; always the same: {', '.join(dead)}" if dead else ""
        return Finding(test="constant", outcome="pass", reason=reason, figures=figures)
    has_sparse = "sparse" in map(program.kind_of, constant)
    if has_sparse and not rows.any() and not run.columns[_SUCCEEDED].any():
        reason = f"it pays nothing on {run.num} transitions, but there is no success among them that it could pay for"
        return Finding(test="constant", outcome="undetermined", reason=reason, figures=figures)
    reason = f"it says the same of every one of {run.num} transitions, so nothing can be learned from it"
    return Finding(test="constant", outcome="fail", reason=reason, figures=figures)


# ---- critic


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
        opinion: asked about programs that no test refuses; None = none is asked for.
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
        from rewards.auto.engines import build_engine  # here, so that checks need no engine installed

        # Every row is sent: rows that are alike are also to be answered alike.
        engine = build_engine(self._containment, hash_seed=hash_seed)
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
        compared = [*successes, *failures]
        values = values_of(runner, program, compared)
        pay = pay_of(values, program, compared, self._composition, self._gamma)
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


def _compared(successes: Sequence[EpisodePay], failures: Sequence[EpisodePay], gamma: float) -> Finding:
    """A failure where either measure surely orders them the wrong way; a pass where both surely do the right way."""
    successes, failures = [[pay for pay in some if pay.valid.any()] for some in (successes, failures)]
    if min(len(successes), len(failures)) < MIN_EPISODES:
        reason = f"it answers in only {len(successes)} successes and {len(failures)} failures"
        return Finding(test="auc", outcome="undetermined", reason=reason, figures=_counts(successes, failures))
    measures: dict[str, Callable[[EpisodePay], float]] = {
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
