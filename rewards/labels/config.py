"""Configuration of labelling: who answers, where labels are kept, how much may be asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from envs.data import Config
from rewards.labels.prompts import PromptSpec, check_goal

if TYPE_CHECKING:
    from rewards.labels.clients import LabelClient


class LexiconClientConfig(Config):
    """Hand-written rules for NetHack messages: no model and no server."""

    kind: Literal["lexicon"] = "lexicon"
    file: Path | None = None
    """A lexicon of your own (TOML); none = the packaged one."""

    def build(self) -> LabelClient:
        """The client.

        Raises:
            LexiconError: the file cannot be read as a lexicon.
        """
        from rewards.labels.clients import LexiconClient
        from rewards.labels.lexicon import Lexicon

        return LexiconClient(Lexicon.read(self.file) if self.file else Lexicon.packaged())


class ScriptedClientConfig(Config):
    """One fixed answer for every caption, with scripted delay: for benchmarks, tests and drills."""

    kind: Literal["scripted"] = "scripted"
    reply: str = "neutral"
    """What is answered; anything but a verdict is a parse failure."""
    delay_s: float = Field(0.0, ge=0)
    """Seconds that each call takes."""

    def build(self) -> LabelClient:
        """The client."""
        from rewards.labels.clients import ScriptedClient

        return ScriptedClient(self.reply, delay_s=self.delay_s)


ClientConfig = Annotated[LexiconClientConfig | ScriptedClientConfig, Field(discriminator="kind")]
"""Every kind of annotator; a new one is one more class with ``kind`` and ``build``."""


class LabellerConfig(Config):
    """How the labeller queues, paces and retries."""

    max_queued: PositiveInt = 10_000
    """Captions that may wait; beyond that the oldest is dropped and counted."""
    max_labels: PositiveInt | None = None
    """Captions that may be asked in this run; none = no limit."""
    max_labels_per_s: PositiveFloat | None = None
    """Captions that may be asked a second, on average; none = no limit."""
    request_timeout_s: PositiveFloat = 60.0
    """A call that takes longer has failed."""
    retry_deadline_s: PositiveFloat = 180.0
    """A batch is retried for so long; should cover a restart of the server."""
    backoff_min_s: PositiveFloat = 0.25
    """First wait between retries; doubles each time, with jitter."""
    backoff_max_s: PositiveFloat = 5.0
    """Longest wait between retries."""


class LabelsConfig(Config):
    """Labels of captions: goal, annotator, store."""

    client: ClientConfig = LexiconClientConfig()
    """Who answers."""
    goal: str = "score"
    """What the player wants: score, stairs, gold, combat, or a sentence of your own."""
    prompt_version: str = "single-1"
    """Wording of the question."""
    path: Path | None = None
    """The label store, kept and reused by runs that name the same file, one run at a time; none = in the run's
    folder."""
    mode: Literal["async", "barrier"] = "async"
    """async: labels take effect when they arrive, and training never waits. barrier: each update waits for
    the labels of its rollout, which makes runs repeatable."""
    labeller: LabellerConfig = LabellerConfig()
    """Queue, budget and retries."""

    @field_validator("goal")
    @classmethod
    def _known_goal(cls, goal: str) -> str:
        return check_goal(goal)

    @field_validator("prompt_version")
    @classmethod
    def _known_version(cls, version: str) -> str:
        return PromptSpec(version=version).version

    @property
    def spec(self) -> PromptSpec:
        """The question that every caption is asked with."""
        return PromptSpec(self.prompt_version, self.goal)
