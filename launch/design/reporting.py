"""The end of a search: the best on seeds A is chosen, and measured on seeds B."""

from __future__ import annotations

from launch.design import history
from launch.design.parts import SearchParts
from launch.design.running import run_and_journal
from launch.design.summary import measured
from rewards.auto.program import SHORT_SHA


def choose(parts: SearchParts) -> str | None:
    """The program with the most successes on seeds A; between equals the higher true return, then the earlier.

    One that was quarantined in its trial is none that can be chosen: what the run came to is not its own.
    """
    journal = parts.journal
    if ("chosen", "") in journal:
        return journal["chosen", ""]
    sound = [(one.sha, trial.figures) for one, trial in history.tried(journal) if not trial.quarantined]
    if not sound:  # not written down: trials that broke are tried again when the search goes on
        parts.say("no program was accepted and trained: none is chosen")
        return None
    best, _ = max(sound, key=lambda pair: (pair[1]["success"], pair[1]["env_return"]))  # of equals the first
    return journal.add("chosen", "", best)


def report(parts: SearchParts, sha: str) -> None:
    """Train the chosen program, and no program, on fresh seeds; evaluate on episodes of seeds B. Ray must be up.

    Raises:
        RunError: a run was stopped.
    """
    wanted, plans = parts.config.report, parts.plans
    waiting = [plans.report(sha, seed) for seed in wanted.seeds]
    if wanted.sparse:
        waiting += [plans.report(None, seed) for seed in wanted.seeds]
    waiting = [trial for trial in waiting if ("reported", trial.key) not in parts.journal]
    if waiting:
        parts.say(f"{sha[:SHORT_SHA]} is chosen; {len(waiting)} runs of {wanted.steps:,} steps on fresh seeds")
    run_and_journal(parts, waiting, "reported")
    found = measured(parts.journal, "chosen")
    if found is not None and found["success"] is not None:
        fitness = parts.archive.get(sha).fitness
        kept = {name: found[name] for name in ("success", "low", "high", "n", "each", "seeds", "env_return")}
        parts.archive.update(sha, fitness={**fitness, "report": kept})
