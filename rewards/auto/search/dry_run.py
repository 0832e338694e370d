"""A program's first run, on recorded transitions: does it answer, always the same, in time, and say anything?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from envs.recording import EpisodeRecord
from rewards.auto.config import ContainmentConfig
from rewards.auto.program import Program
from rewards.auto.sandbox.contained import BATCH, Runner, Values, run_in_batches
from rewards.auto.sandbox.engine import HASH_SEED, EngineError
from rewards.auto.search.verdict import Finding
from rewards.auto.transitions import transitions_of

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
