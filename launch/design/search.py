"""The search for a reward program: propose, criticise, train, analyse, and again.

After Auto MC-Reward (Li et al. 2023, arXiv 2312.09238) and Eureka (Ma et al. 2023, arXiv 2310.12931)::

    recorded play --> analyzer --> brief --> designer --> K proposals --> critic --> the accepted
         ^                                                                              | Ray, side by side
         +---- episodes, components, failures <---- a short training run each <---------+

Round after round; then the best on seeds A is chosen, and reported on seeds B: fresh training seeds, and episodes that
had no part in choosing. What each program came to is that of its own run, at its end; a run that broke says nothing
about its program. Every step is in the journal (``launch.design.journal``): a search that was killed goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from envs.recording import EpisodeRecord
from launch.config import TrainConfig
from launch.design.config import DesignConfig
from launch.design.journal import Journal
from launch.design.summary import pooled, share_of, summary
from launch.design.trials import (
    REPORT,
    SELECTION,
    Outcome,
    Trial,
    outcome_of,
    record_random_play,
    run_trials,
)
from launch.metrics import read_metrics
from launch.programs import settled
from rewards.auto.admission import admit
from rewards.auto.analyzer import analyse
from rewards.auto.archive import Archive, ArchiveEntry
from rewards.auto.critic import Critic
from rewards.auto.opinion import Opinion
from rewards.auto.program import SHORT_SHA, sha_of
from rewards.auto.proposal import Brief, Designer, Proposal, Tried
from rewards.auto.scoring import score_episodes
from rewards.auto.verdict import verdict_of

Say = Callable[[str], None]

_OF_A_SEARCH = ("by", "parents", "prompt", "thoughts", "task", "round", "created_at", "search", "verdict")
"""Of an entry of the archive: what another search may say otherwise."""
_SHA_LENGTH = 64
_SAVED_EVERY_S = 60.0
"""Trials are short: what a kill costs must be, too."""
_PLAY_EPISODES = 20
"""Of random play, for the first round."""
_BRIEFED_EPISODES = 60
"""The newest recorded ones that a round is told of."""


@dataclass(frozen=True, kw_only=True)
class SearchParts:
    """What a search is made of."""

    config: DesignConfig
    train: TrainConfig
    """What a trial trains: the preset's configuration, with flags of the user's."""
    goal: str
    """The task in words."""
    folder: Path
    designer: Designer
    critic: Critic
    opinion: Opinion | None
    """The critic's, whose costs count."""
    say: Say


class Search:
    """One search; ``run`` does what the journal does not hold yet. Ray must be up."""

    def __init__(self, parts: SearchParts) -> None:
        self.parts, self.config = parts, parts.config
        self.journal = Journal(parts.folder)
        self.archive = Archive(self.config.reward.archive)
        self._began_s = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Rounds, choice, report; returns the summary (``launch.design.summary``)."""
        try:
            self._record_play()
            for number in range(1, self.config.rounds + 1):
                self._round(number)
            chosen = self.journal.once("chosen", "", self._choose)
            if chosen is not None:
                self._report(chosen)
                self._keep_report(chosen)
        finally:
            costs = self._costs() | {"seconds": time.monotonic() - self._began_s}
            self.journal.add("costs", str(len(self.journal.of_kind("costs"))), costs)
            self.journal.close()
        return summary(self.config, self.parts.train, self.journal)

    def _costs(self) -> dict[str, float]:
        """Of the language model in this sitting, as designer and as critic."""
        sides = [side.costs.as_json() for side in (self.parts.designer, self.parts.opinion) if side is not None]
        return {name: sum(side[name] for side in sides) for name in sides[0]}

    def _record_play(self) -> None:
        def play() -> list[str]:
            self.parts.say(f"recording {_PLAY_EPISODES} episodes of random play")
            return [str(path) for path in record_random_play(self.parts.train, self.parts.folder, _PLAY_EPISODES)]

        self.journal.once("play", "", play)

    # ---- rounds

    def _round(self, number: int) -> None:
        stored = self.journal.once("proposed", str(number), self._propose(number))
        proposals = [Proposal(**{**one, "parents": tuple(one["parents"])}) for one in stored]
        accepted = [proposal for proposal in proposals if self._judge(number, proposal)]
        self.parts.say(f"round {number}: {len(accepted)} of {len(proposals)} proposals are accepted")
        shas = [sha_of(proposal.source) for proposal in accepted]
        self._try([self._trial(sha) for sha in shas if not self._is_tried(sha)])
        for sha in shas:
            self._analyse(sha)

    def _propose(self, number: int) -> Callable[[], list[dict[str, Any]]]:
        def propose() -> list[dict[str, Any]]:
            self.parts.say(f"round {number}: the {self.parts.designer.name} designer proposes")
            proposals = self.parts.designer.propose(self._brief(number), self.config.candidates)
            return [asdict(proposal) for proposal in proposals]

        return propose

    def _brief(self, number: int) -> Brief:
        episodes = self._episodes()
        return Brief(
            task=self.parts.train.env.task_ids[0],
            goal=self.parts.goal,
            action_names=episodes[0].action_names,
            round=number,
            tried=self._tried(),
            episodes=episodes,
            analysis=analyse(episodes).text,
            seed=self.config.seed * 1000 + number,
        )

    def _episodes(self) -> list[EpisodeRecord]:
        """Recorded play, the oldest first."""
        files = list(self.journal["play", ""])
        for outcome in self.journal.of_kind("tried").values():
            files += outcome["records"]
        return [EpisodeRecord.load(Path(file)) for file in files[-_BRIEFED_EPISODES:]]

    def _tried(self) -> list[Tried]:
        found = []
        analyses, verdicts = self.journal.of_kind("analysed"), self.journal.of_kind("judged")
        for number, proposals in self.journal.of_kind("proposed").items():
            for proposal in proposals:
                sha = sha_of(proposal["source"])
                if not proposal["source"] or sha not in verdicts:
                    continue
                tried = Tried(
                    sha=sha,
                    source=proposal["source"],
                    round=int(number),
                    by=proposal["by"],
                    verdict=verdict_of(verdicts[sha]),
                    fitness=self._fitness(sha),
                    analysis=analyses.get(sha, {}).get("text", ""),
                    figures=analyses.get(sha, {}).get("figures", {}),
                )
                found.append(tried)
        return found

    def _fitness(self, sha: str) -> float | None:
        if ("tried", sha) not in self.journal or self.journal["tried", sha]["quarantined"]:
            return None
        return self.journal["tried", sha]["figures"]["success"]

    def _judge(self, number: int, proposal: Proposal) -> bool:
        if not proposal.source:
            self.parts.say(f"  no usable program: {proposal.problem}")
            return False
        sha = sha_of(proposal.source)

        def judge() -> dict[str, Any]:
            _, verdict = self.parts.critic.critique(proposal.source, self._episodes())
            entry = replace(self._entry(number, proposal), verdict=verdict)
            if self.archive.put(entry) != entry:  # known from another search: this is the one that counts now
                self.archive.update(sha, **{name: getattr(entry, name) for name in _OF_A_SEARCH})
            return verdict.as_json()

        verdict = verdict_of(self.journal.once("judged", sha, judge))
        if not verdict.accepted:
            self.parts.say(f"  {sha[:SHORT_SHA]} is rejected: {verdict.reasons[0]}")
        return verdict.accepted

    def _entry(self, number: int, proposal: Proposal) -> ArchiveEntry:
        return ArchiveEntry(
            sha=sha_of(proposal.source),
            source=proposal.source,
            by=proposal.by,
            parents=proposal.parents,
            prompt=proposal.prompt,
            thoughts=proposal.thoughts,
            task=self.parts.train.env.task_ids[0],
            round=number,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            search=self.parts.folder.name,
        )

    # ---- trials

    def _is_tried(self, sha: str) -> bool:
        return ("tried", sha) in self.journal or ("failed", sha) in self.journal

    def _trial(self, sha: str, *, seed: int | None = None, name: str | None = None) -> Trial:
        """A run with this program: to choose by, or with a fresh seed to report."""
        reports = seed is not None
        reward = self.parts.train.reward.model_copy(update={"program": sha, "auto": self.config.reward})
        train = self._settings(reward, name or sha[:SHORT_SHA], seed)
        train, entries = settled(train)
        return Trial(
            name=name or sha,
            config_json=train.model_dump_json(),
            programs=tuple(entry.sha for entry in entries),
            archive=str(self.config.reward.archive),
            episodes=self.config.report.episodes if reports else self.config.trial_episodes,
            episode_list=REPORT if reports else SELECTION,
            recorded=0 if reports else self.config.recorded_episodes,
        )

    def _settings(self, reward: Any, name: str, seed: int | None) -> TrainConfig:
        train = self.parts.train
        rollout = train.rollout.model_copy(update={"num_workers": 0, "games_per_worker": 16, "max_policy_lag": 0})
        saving = train.checkpoint.model_copy(update={"interval_s": _SAVED_EVERY_S, "interval_updates": None})
        logging = train.logging.model_copy(update={"tensorboard": False, "interval_s": 5.0})
        return train.model_copy(
            update={
                "reward": reward,
                "rollout": rollout,
                "logging": logging,
                "checkpoint": saving,
                "seed": self.config.seed if seed is None else seed,
                "total_steps": self.config.trial_steps if seed is None else self.config.report.steps,
                "runs": self.parts.folder / "runs",
                "name": name,
                "threads": 1,
            }
        )

    def _try(self, trials: Sequence[Trial]) -> None:
        if trials:
            self.parts.say(f"  {len(trials)} trials of {self.config.trial_steps:,} steps")
        for outcome in run_trials(trials, self.config.parallel):
            if isinstance(outcome, Outcome):
                self.journal.add("tried", outcome.name, outcome.as_json())
                self._say_outcome(outcome)
            else:
                name, cause = outcome
                self.journal.add("failed", name, cause)
                self.parts.say(f"  the trial of {_short(name)} broke, which says nothing about the program: {cause}")

    def _say_outcome(self, outcome: Outcome) -> None:
        row = outcome.figures
        self.parts.say(
            f"  {_short(outcome.name)}: success {row['success']:.3f} ({row['success_low']:.3f} to "
            f"{row['success_high']:.3f}, {row['episodes']} episodes), true return {row['env_return']:.3f}, "
            f"{outcome.train_s:.0f} s" + "".join(f"; quarantined {why}" for why in outcome.quarantined)
        )

    def _analyse(self, sha: str) -> None:
        if ("tried", sha) not in self.journal:
            return
        outcome = outcome_of(self.journal["tried", sha])

        def look() -> dict[str, Any]:
            entry = self.archive.get(sha)
            episodes = [EpisodeRecord.load(Path(file)) for file in outcome.records]
            program = admit(entry.source)
            values = score_episodes(program, episodes, self.config.reward.containment)
            curves = read_metrics(self.parts.folder / "runs" / sha[:SHORT_SHA])
            analysis = analyse(episodes, program, values, curves)
            fitness = {
                "selection": share_of(outcome.figures),
                "steps": outcome.steps,
                "seeds": [self.config.seed],
            }
            self.archive.update(sha, fitness=fitness, analysis=analysis.as_json())
            return {"text": analysis.text, "figures": dict(analysis.figures)}

        self.journal.once("analysed", sha, look)

    # ---- the end

    def _choose(self) -> str | None:
        """The program with the most successes on seeds A; between equals the higher true return, then the earlier.

        One that was quarantined in its trial is none that can be chosen: what the run came to is not its own.
        """
        tried = [item for item in self.journal.of_kind("tried").items() if not item[1]["quarantined"]]
        if not tried:
            self.parts.say("no program was accepted and trained: none is chosen")
            return None
        best, _ = max(tried, key=lambda item: (item[1]["figures"]["success"], item[1]["figures"]["env_return"]))
        return best

    def _report(self, sha: str) -> None:
        """Train the chosen program, and no program, on fresh seeds; evaluate on episodes of seeds B."""
        report = self.config.report
        waiting = [self._trial(sha, seed=seed, name=f"chosen-seed{seed}") for seed in report.seeds]
        if report.sparse:
            waiting += [self._sparse(seed) for seed in report.seeds]
        waiting = [trial for trial in waiting if ("reported", trial.name) not in self.journal]
        if waiting:
            self.parts.say(f"{sha[:SHORT_SHA]} is chosen; {len(waiting)} runs of {report.steps:,} steps on fresh seeds")
        for outcome in run_trials(waiting, self.config.parallel):
            if isinstance(outcome, Outcome):
                self.journal.add("reported", outcome.name, outcome.as_json())
                self._say_outcome(outcome)
            else:
                self.parts.say(f"  {outcome[0]} broke and is missing from the report: {outcome[1]}")

    def _keep_report(self, sha: str) -> None:
        rows = [outcome["figures"] for name, outcome in self.journal.of_kind("reported").items() if "chosen" in name]
        if rows:
            fitness = self.archive.get(sha).fitness
            self.archive.update(sha, fitness={**fitness, "report": pooled(rows)})

    def _sparse(self, seed: int) -> Trial:
        reward = self.parts.train.reward.model_copy(update={"program": None})
        train = self._settings(reward, f"sparse-seed{seed}", seed)
        return Trial(
            name=f"sparse-seed{seed}",
            config_json=train.model_dump_json(),
            programs=(),
            archive=str(self.config.reward.archive),
            episodes=self.config.report.episodes,
            episode_list=REPORT,
            recorded=0,
        )


def _short(name: str) -> str:
    """A trial's name for people: SHAs are cut."""
    return name[:SHORT_SHA] if len(name) == _SHA_LENGTH else name
