"""What a search is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launch.config.train import TrainConfig
from launch.design.config import DesignConfig
from launch.design.journal import Journal
from launch.design.plans import Plans
from launch.design.trials import Attempt
from rewards.auto.archive import Archive
from rewards.auto.audit import AuditLog
from rewards.auto.search.critic import Critic
from rewards.auto.search.proposal import Designer

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
    def archive(self) -> Archive:
        """Where programs are kept."""
        return Archive(self.config.reward.archive)

    @property
    def plans(self) -> Plans:
        """Of its runs."""
        return Plans(self.config, self.train, self.folder)
