"""Runs what is planned, and writes down what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from launch.design.parts import SearchParts
from launch.design.trials import Broken, Outcome, Trial, run_trials
from launch.errors import RunError
from rewards.auto.program import SHORT_SHA

_SHA_LENGTH = 64


def run_and_journal(parts: SearchParts, trials: Sequence[Trial], kind: str) -> None:
    """Run trials side by side; outcomes go into the journal under this kind, those that broke as ``failed``.

    Raises:
        RunError: some were only stopped: the search is to go on with them later.
    """
    stopped: list[Broken] = []
    for ended in run_trials(trials, parts.config.parallel, parts.attempt):
        if isinstance(ended, Outcome):
            parts.journal.add(kind, ended.key, _within(ended, parts.folder).as_json())
            _say_outcome(parts, ended)
        elif ended.interrupted:
            stopped.append(ended)
        else:
            _keep_cause(parts, ended)
    if stopped:
        told = "; ".join(f"{_short(one.trial.key)}: {one.cause}" for one in stopped)
        raise RunError(f"{len(stopped)} of the search's runs were interrupted ({told})")


def _within(outcome: Outcome, folder: Path) -> Outcome:
    """Files as seen from the search's folder, which may be moved."""
    return replace(outcome, records=tuple(str(Path(file).relative_to(folder)) for file in outcome.records))


def _keep_cause(parts: SearchParts, broken: Broken) -> None:
    trial = broken.trial
    parts.journal.add("failed", trial.key, {"cause": broken.cause, "role": trial.role, "seed": trial.seed})
    about = "which says nothing about the program" if trial.role == "trial" else "and is missing from the report"
    parts.say(f"  the run of {_short(trial.key)} broke, {about}: {broken.cause}")


def _say_outcome(parts: SearchParts, outcome: Outcome) -> None:
    row = outcome.figures
    parts.say(
        f"  {_short(outcome.key)}: success {row['success']:.3f} ({row['success_low']:.3f} to "
        f"{row['success_high']:.3f}, {row['episodes']} episodes), true return {row['env_return']:.3f}, "
        f"{outcome.train_s:.0f} s" + "".join(f"; quarantined {why}" for why in outcome.quarantined)
    )


def _short(key: str) -> str:
    """A run's name for people: SHAs are cut."""
    return key[:SHORT_SHA] if len(key) == _SHA_LENGTH else key
