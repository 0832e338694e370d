"""One round of a search: propose, criticise, screen, train, analyse."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from envs.recording import EpisodeRecord
from launch.design import history
from launch.design.history import Proposed
from launch.design.parts import SearchParts
from launch.design.running import run_and_journal
from launch.design.screening import Screening
from launch.design.summary import share_of
from launch.design.trials import Outcome
from launch.runs.metrics import read_metrics
from rewards.auto.admission import admit
from rewards.auto.archive import ArchiveEntry
from rewards.auto.episodes import values_by_episode, values_of
from rewards.auto.program import SHORT_SHA, Program
from rewards.auto.sandbox.contained import ContainedProgram, Values
from rewards.auto.sandbox.engine import EngineError
from rewards.auto.search.analyzer import Analysis, analyse
from rewards.auto.search.proposal import Brief, Verdict, verdict_of

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
        ours = [one for one in history.proposed(self.journal) if one.round == number]
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
        proposals = designer.propose(self._brief(number), self.config.candidates)
        for proposal in proposals:
            if not proposal.source:
                self._audit(Proposed(number, proposal), "rejected", why=proposal.problem)
        return [asdict(proposal) for proposal in proposals]

    def _brief(self, number: int) -> Brief:
        episodes = self._briefed()
        return Brief(
            task=self.parts.train.env.task_ids[0],
            goal=self.parts.goal,
            action_names=episodes[0].action_names,
            round=number,
            tried=history.told(self.journal),
            episodes=episodes,
            analysis=analyse(episodes).text,
            seed=self.config.seed * 1000 + number,
        )

    def _briefed(self) -> list[EpisodeRecord]:
        files = history.briefed(self.journal, self.parts.folder, self.config.candidates)
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
            task=self.parts.train.env.task_ids[0],
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
        files = history.recordings(self.journal, self.parts.folder)
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
        outcome = history.outcome(self.journal, sha)
        assert outcome is not None, "only what was tried is analysed"
        said, analysis = self._looked_at(sha, outcome)
        text = "\n".join(filter(None, [said, analysis.text]))
        fitness = {
            "selection": share_of(outcome.figures),
            "steps": outcome.steps,
            "seeds": [outcome.seed],
            "composition": self.config.reward.composition.model_dump(mode="json"),
        }
        if outcome.quarantined:  # what the run came to is not its own
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
