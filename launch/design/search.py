"""The search for a reward program: propose, criticise, train, analyse, and again.

After Auto MC-Reward (Li et al. 2023, arXiv 2312.09238) and Eureka (Ma et al. 2023, arXiv 2310.12931)::

    recorded play --> analyzer --> brief --> designer --> K proposals --> critic --> the accepted
         ^                                                                              | Ray, side by side
         +---- episodes, components, failures <---- a short training run each <---------+

Round after round; then the best on seeds A is chosen, and reported on seeds B: fresh training seeds, and episodes that
had no part in choosing. Each program is judged by its own run, at its end; a run that broke says nothing about its
program. Every step is in the journal (``launch.design.journal``): a search that was killed goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from envs.recording import EpisodeRecord
from launch.config.train_config import TrainConfig
from launch.design.config import DesignConfig
from launch.design.journal import (
    Journal,
    Proposed,
    briefed_recordings,
    proposals,
    recordings,
    trained,
    trial_outcome,
    tried_programs,
)
from launch.design.summary import measured, share_of, summary
from launch.design.trials import (
    Attempt,
    Broken,
    Outcome,
    Plans,
    Screening,
    Trial,
    record_random_play,
    run_trials,
)
from launch.errors import RunError
from launch.runs.metrics import read_metrics
from rewards.auto.archive import Archive, ArchiveEntry
from rewards.auto.audit import AuditLog
from rewards.auto.episodes import values_by_episode, values_of
from rewards.auto.language.admission import admit
from rewards.auto.program import SHORT_SHA, Program
from rewards.auto.sandbox.contained import ContainedProgram, Values
from rewards.auto.sandbox.engine import EngineError
from rewards.auto.search.analyzer import Analysis, analyse
from rewards.auto.search.critic import Critic
from rewards.auto.search.proposal import Brief, Designer, Verdict, verdict_of

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SearchParts:
    """What a search is made of; all paths are absolute."""

    config: DesignConfig
    train: TrainConfig
    """What a trial trains: the preset's configuration, with flags of the user's."""
    training: tuple[str, ...]
    """These flags, as they were typed."""
    goal: str
    """The task in words."""
    folder: Path
    designer: Designer
    critic: Critic
    journal: Journal
    audit: AuditLog
    say: Say
    attempt: Attempt | None = None
    """What runs trials; None = Ray."""

    @property
    def task(self) -> str:
        """Task id."""
        return self.train.env.task_ids[0]

    @property
    def archive(self) -> Archive:
        """Where programs are kept."""
        return Archive(self.config.reward.archive)

    @property
    def plans(self) -> Plans:
        """Of its runs."""
        return Plans(self.config, self.train, self.folder)


_PLAY_EPISODES = 20
"""Of random play, for the first round."""


def run(parts: SearchParts) -> dict[str, Any]:
    """Do what the journal does not hold yet; Ray must be up.

    Returns:
        The summary (``launch.design.summary.summary``).

    Raises:
        RunError: some of its runs were stopped.
        DesignerError: no proposals can be had.
    """
    journal = parts.journal
    ended = False
    try:
        journal.once("play", "", lambda: _recorded_play(parts))
        if ("chosen", "") not in journal:
            rounds = Rounds(parts)
            for number in range(1, parts.config.rounds + 1):
                rounds.run(number)
        chosen = choose(parts)
        if chosen is not None:
            report(parts, chosen)
        ended = True
    finally:  # what was spent since the last step counts, too
        sessions = journal.of_kind("session")
        journal.add("session", str(len(sessions)), "ended" if ended else "cut")
        journal.close()
    return summary(journal, parts.config, task=parts.task, goal=parts.goal, training=parts.training)


def _recorded_play(parts: SearchParts) -> dict[str, Any]:
    parts.say(f"recording {_PLAY_EPISODES} episodes of random play")
    files, steps = record_random_play(parts.train, parts.folder, _PLAY_EPISODES)
    return {"records": [str(file.relative_to(parts.folder)) for file in files], "steps": steps}


# ---- a round

_OF_A_SEARCH = (
    "by", "parents", "prompt", "thoughts", "task", "round", "created_at", "search", "verdict", "fitness", "analysis",
)  # fmt: skip
"""Of an entry of the archive: what another search says otherwise, or does not know yet."""


class Rounds:
    """Does what the journal does not hold yet. Ray must be up."""

    def __init__(self, parts: SearchParts) -> None:
        self.parts, self.config, self.journal = parts, parts.config, parts.journal
        self.archive, self.plans = parts.archive, parts.plans
        reward = self.config.reward
        gamma = getattr(parts.train.reward, reward.stream).gamma
        contained = partial(ContainedProgram, config=reward.containment)
        self._screening = Screening(contained, reward.composition, gamma)

    def run(self, number: int) -> None:
        """One round; from 1 on."""
        self.journal.once("proposed", str(number), partial(self._propose, number))
        ours = [one for one in proposals(self.journal) if one.round == number]
        accepted = list({one.sha: one for one in ours if self._is_accepted(one)})
        self.parts.say(f"round {number}: {len(accepted)} of {len(ours)} proposals are accepted")
        wanted = [sha for sha in accepted if not self._is_screened(sha)]
        self._try([sha for sha in wanted if ("tried", sha) not in self.journal])
        for sha in wanted:
            if ("tried", sha) in self.journal:
                self.journal.once("analysed", sha, partial(self._analyse, sha))

    # ---- proposals

    def _propose(self, number: int) -> list[dict[str, Any]]:
        designer = self.parts.designer
        self.parts.say(f"round {number}: the {designer.name} designer proposes")
        made = designer.propose(self._brief(number), self.config.candidates)
        for proposal in made:
            if not proposal.source:
                self._audit(Proposed(number, proposal), "rejected", why=proposal.problem)
        return [asdict(proposal) for proposal in made]

    def _brief(self, number: int) -> Brief:
        episodes = self._briefed()
        return Brief(
            task=self.parts.task,
            goal=self.parts.goal,
            action_names=episodes[0].action_names,
            round=number,
            tried=tried_programs(self.journal),
            episodes=episodes,
            analysis=analyse(episodes).text,
            seed=self.config.seed * 1000 + number,
        )

    def _briefed(self) -> list[EpisodeRecord]:
        files = briefed_recordings(self.journal, self.parts.folder, self.config.candidates)
        return [EpisodeRecord.load(file) for file in files]

    def _is_accepted(self, one: Proposed) -> bool:
        if not one.sha:
            self.parts.say(f"  no usable program: {one.proposal.problem}")
            return False
        verdict = verdict_of(self.journal.once("judged", one.sha, partial(self._judge, one)))
        if not verdict.accepted:
            self.parts.say(f"  {one.sha[:SHORT_SHA]} is rejected: {verdict.reasons[0]}")
        return verdict.accepted

    def _judge(self, one: Proposed) -> dict[str, Any]:
        _, verdict = self.parts.critic.critique(one.proposal.source, self._briefed())
        self._audit_verdict(one, verdict)
        entry = replace(self._entry(one), verdict=verdict)
        if self.archive.put(entry) != entry:  # known from another search: this is the one that counts now
            self.archive.update(one.sha, **{name: getattr(entry, name) for name in _OF_A_SEARCH})
        return verdict.as_json()

    def _audit_verdict(self, one: Proposed, verdict: Verdict) -> None:
        codes = [finding.code for finding in verdict.findings if finding.code]
        kind = "admitted" if verdict.accepted else "rejected"
        self._audit(one, kind, codes=codes, why="; ".join(verdict.reasons))

    def _audit(self, one: Proposed, kind: str, **fields: Any) -> None:
        prompt = hashlib.sha256(one.proposal.prompt.encode()).hexdigest() if one.proposal.prompt else None
        self.parts.audit.append(
            kind,
            search=self.parts.folder.name,
            round=one.round,
            by=one.proposal.by,
            program=one.sha or None,
            source=one.proposal.source,
            prompt=prompt,
            **fields,
        )

    def _entry(self, one: Proposed) -> ArchiveEntry:
        proposal = one.proposal
        return ArchiveEntry(
            sha=one.sha,
            source=proposal.source,
            by=proposal.by,
            parents=proposal.parents,
            prompt=proposal.prompt,
            thoughts=proposal.thoughts,
            task=self.parts.task,
            round=one.round,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            search=self.parts.folder.name,
        )

    # ---- screening

    def _is_screened(self, sha: str) -> bool:
        """It pays what another accepted program pays, as far as recorded play can tell."""
        return bool(self.journal.once("screened", sha, partial(self._screen, sha)))

    def _screen(self, sha: str) -> str:
        """The SHA that it is the same as; empty where it is to be trained with."""
        others = [other for other, same_as in self.journal.of_kind("screened").items() if not same_as]
        files = recordings(self.journal, self.parts.folder)
        same_as = self._screening.same_as(self._program(sha), [self._program(other) for other in others], files)
        if same_as is not None:
            self.parts.say(f"  {sha[:SHORT_SHA]} pays what {same_as[:SHORT_SHA]} pays, and is not trained with")
        return same_as or ""

    def _program(self, sha: str) -> Program:
        return admit(self.archive.get(sha).source)

    # ---- trials

    def _try(self, shas: Sequence[str]) -> None:
        if shas:
            self.parts.say(f"  {len(shas)} trials of {self.config.trial_steps:,} steps")
        run_and_journal(self.parts, [self.plans.trial(sha) for sha in shas], "tried")

    def _analyse(self, sha: str) -> dict[str, Any]:
        outcome = trial_outcome(self.journal, sha)
        assert outcome is not None, "only what was tried is analysed"
        said, analysis = self._looked_at(sha, outcome)
        text = "\n".join(filter(None, [said, analysis.text]))
        fitness = {
            "selection": share_of(outcome.figures),
            "steps": outcome.steps,
            "seeds": [outcome.seed],
            "composition": self.config.reward.composition.model_dump(mode="json"),
        }
        if outcome.quarantined:  # the result of the run is not its own
            fitness = {"quarantined": outcome.quarantined[0]}
        self.archive.update(sha, fitness=fitness, analysis={**analysis.as_json(), "text": text})
        return {"text": text, "figures": {} if outcome.quarantined else dict(analysis.figures)}

    def _looked_at(self, sha: str, outcome: Outcome) -> tuple[str, Analysis]:
        """The analysis of its training, and what is to be said before it."""
        episodes = [EpisodeRecord.load(self.parts.folder / file) for file in outcome.records]
        curves = read_metrics(self.plans.folder_of(sha))
        program = self._program(sha)
        if outcome.quarantined:
            said = f"quarantined in its trial: {outcome.quarantined[0]}; it pays nothing to keep that"
            return said, analyse(episodes, program, None, curves)
        try:
            values = values_by_episode(self._values(program, episodes), episodes)
        except EngineError as error:
            return f"no answer on the recordings: {error}", analyse(episodes, program, None, curves)
        return "", analyse(episodes, program, values, curves)

    def _values(self, program: Program, episodes: Sequence[EpisodeRecord]) -> Values:
        """What a program says of episodes, in a process of its own.

        Raises:
            EngineError: it has no answer for a batch.
        """
        with closing(ContainedProgram(program, self.config.reward.containment)) as runner:
            return values_of(runner, program, episodes)


# ---- the end: the best on seeds A is chosen, and measured on seeds B


def choose(parts: SearchParts) -> str | None:
    """The program with the most successes on seeds A; between equals the higher true return, then the earlier.

    One that was quarantined in its trial is none that can be chosen: the result of the run is not its own.
    """
    journal = parts.journal
    if ("chosen", "") in journal:
        return journal["chosen", ""]
    sound = [(one.sha, trial.figures) for one, trial in trained(journal) if not trial.quarantined]
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


# ---- runs

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
        causes = "; ".join(f"{_short(one.trial.key)}: {one.cause}" for one in stopped)
        raise RunError(f"{len(stopped)} of the search's runs were interrupted ({causes})")


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
