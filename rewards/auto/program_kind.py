"""Reward programs as a kind of reward: code that a language model, or a grammar, wrote (Li et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from envs.tasks import GamesConfig
from rewards.auto.config import ContainmentConfig, ProgramConfig
from rewards.kinds import Prepared, RewardKind, ScoringContext

if TYPE_CHECKING:
    from rewards.auto.archive import Archive, ArchiveEntry
    from rewards.auto.program import Program
    from rewards.auto.program_reward import ProgramReward
    from rewards.auto.program_teacher import ProgramTeacher, RunPrograms
    from rewards.reporting import Section
    from rewards.teacher import TeachingContext

PROGRAMS_FOLDER = "programs"
"""Of a run: an archive of the programs that it uses."""


_METRICS: Mapping[str, str] = MappingProxyType(
    {
        "rewards/program/*/mean": "What this component of the reward program pays, composed; mean over valid steps.",
        "rewards/program/*/valid": "Share of the steps of the last update for which the reward program had an answer.",
        "rewards/program/*/episode_sum": "Mean sum of what this component pays over the last 100 episodes.",
        "rewards/program/*/raw/mean": "What the reward program itself gave for this component; mean over valid steps.",
        "rewards/program/*/raw/valid": "As rewards/program/*/valid.",
        "rewards/program/*/raw/episode_sum": "Mean sum of the component's own values over the last 100 episodes.",
    }
)
"""``{metric name: what it is}``; ``*`` stands for one name, that of a component."""


class ProgramKind(RewardKind[ProgramConfig]):
    """What a reward program gives, contained; programs that fail are quarantined and others take their place."""

    name = "program"
    config = ProgramConfig
    metrics: ClassVar[Mapping[str, str]] = _METRICS
    usual_weight = 0.3

    def columns(self, config: ProgramConfig) -> Sequence[str]:
        """Those that the programs read."""
        return config.columns

    def prepare(self, config: ProgramConfig, games: GamesConfig, seed: int) -> Prepared[ProgramConfig]:
        """Programs by their whole SHAs and the columns that they read; the run's folder keeps these programs.

        Raises:
            ValueError: a program is not to be found, is not admitted, or would be less isolated than asked for.
        """
        entries = _chosen(config)
        check_isolation(config.containment)
        columns = [name for entry in entries for name in _admitted(entry).needed_columns]
        settled = config.replace(
            code=entries[0].sha,
            fallback=tuple(entry.sha for entry in entries[1:]),
            columns=tuple(dict.fromkeys(columns)),
        )

        def keep(run: Path) -> None:
            from rewards.auto.archive import Archive

            archive = Archive(run / PROGRAMS_FOLDER)
            for entry in entries:
                archive.put(entry)

        return Prepared(config=settled, keep=keep)

    def load(self, config: ProgramConfig, run: Path, events: Sequence[Mapping[str, Any]]) -> RunPrograms:
        """The run's programs, the chosen one first, and what the log says happened to them.

        Raises:
            ValueError: one is missing, was edited, or is no longer admitted.
        """
        from rewards.auto.archive import Archive
        from rewards.auto.program_teacher import RunPrograms, logged_quarantines

        assert config.code is not None and config.fallback is not None, "programs are settled before a run starts"
        archive = Archive(run / PROGRAMS_FOLDER)
        chain = tuple(_admitted(_entry(archive, sha, "code")) for sha in (config.code, *config.fallback))
        return RunPrograms(chain=chain, logged=tuple(logged_quarantines(events)))

    def model(self, config: ProgramConfig, context: ScoringContext) -> ProgramReward:
        """See ``RewardKind.model``."""
        from rewards.auto.program_reward import ProgramReward

        programs: RunPrograms = context.given
        reward = ProgramReward(programs.chain, config, gamma=context.gamma, scorer=context.scorer)
        reward.replay([one for one in programs.logged if one.scorer == context.scorer])
        return reward

    def teacher(self, config: ProgramConfig, context: TeachingContext) -> ProgramTeacher:
        """What repeats quarantines to every scorer and logs them."""
        from rewards.auto.program_teacher import ProgramTeacher

        return ProgramTeacher(context.given, isolation_line(config.containment), context.folder / PROGRAMS_FOLDER)

    def report(self, run: Path, config: ProgramConfig, events: Sequence[Mapping[str, Any]]) -> Section | None:
        """Source and origin of the run's programs, and their quarantines."""
        if not config.pays:
            return None
        from rewards.auto.archive import Archive
        from rewards.auto.program_section import program_section
        from rewards.auto.program_teacher import QUARANTINED

        began = [event for event in events if event["kind"] == "programs"]
        quarantines = [event for event in events if event["kind"] == QUARANTINED]
        shas = (str(config.code), *(config.fallback or ()))
        return program_section(Archive(run / PROGRAMS_FOLDER), shas, began[-1] if began else {}, quarantines)


def isolation_line(containment: ContainmentConfig) -> str:
    """One line that says what stands between programs and the machine.

    Raises:
        ValueError: it is less than ``min_isolation``.
    """
    from rewards.auto.engines import IsolationError
    from rewards.auto.engines import isolation_line as line

    try:
        return line(containment)
    except (IsolationError, ImportError) as error:
        raise ValueError(f"containment: {error}") from None


def check_isolation(containment: ContainmentConfig) -> None:
    """Refuse to begin with less isolation than asked for; see ``isolation_line``."""
    isolation_line(containment)


def _chosen(config: ProgramConfig) -> tuple[ArchiveEntry, ...]:
    """The program and those that may take its place, each once."""
    from rewards.auto.archive import Archive

    assert config.code is not None, "a part that pays has a program"
    archive = Archive(config.archive)
    first = _entry(archive, config.code, "code")
    if config.fallback is None:
        others = _ancestors(archive, first)
    else:
        others = [_entry(archive, text, "fallback") for text in config.fallback]
    return tuple({entry.sha: entry for entry in (first, *others)}.values())


def _ancestors(archive: Archive, chosen: ArchiveEntry) -> list[ArchiveEntry]:
    """Accepted ancestors that can be used; nobody asked for these, so one that cannot is no reason to refuse a run."""
    if chosen.sha not in archive.shas():  # a file's need not be there
        return []
    try:
        found = archive.accepted_ancestors(chosen.sha)
    except ValueError:
        return []
    return [entry for entry in found if entry.task == chosen.task and _is_admitted(entry)]


def _is_admitted(entry: ArchiveEntry) -> bool:
    from rewards.auto.admission import admit
    from rewards.auto.program import ProgramRejectedError

    try:
        admit(entry.source)
    except ProgramRejectedError:
        return False
    return True


def _entry(archive: Archive, text: str, field: str) -> ArchiveEntry:
    from rewards.auto.archive import ArchiveEntry, is_file_name, source_of
    from rewards.auto.program import sha_of

    try:
        if not is_file_name(text):
            return archive.get(text)
        source = source_of(Path(text))
        return ArchiveEntry(sha=sha_of(source), source=source, by=f"file {Path(text).name}")
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def _admitted(entry: ArchiveEntry) -> Program:
    from rewards.auto.admission import admit
    from rewards.auto.program import ProgramRejectedError

    try:
        return admit(entry.source)
    except ProgramRejectedError as error:
        raise ValueError(f"code: reward program {entry.sha[:12]} is not admitted: {error}") from None
