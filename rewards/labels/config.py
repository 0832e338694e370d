"""Configuration of labelling: who answers, where labels are kept, how much may be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from envs.data import Config
from rewards.labels.questions import PromptSpec, check_goal, check_version, newest_version
from rewards.llm.config import LLMConfig


class AnnotatorConfig(Config):
    """What every kind of annotator's configuration has in common."""

    def chosen(self, llm: LLMConfig) -> AnnotatorConfig:
        """The configuration of the annotator that answers in the end."""
        return self

    def asks_language_model(self, llm: LLMConfig) -> bool:
        """Whether the language model, named or not, is asked for labels."""
        return isinstance(self.chosen(llm), LLMClientConfig)

    def judges_play(self, llm: LLMConfig) -> bool:
        """Whether it can tell which of two stretches of play is better, too; the lexicon's rules are about messages."""
        return not isinstance(self.chosen(llm), LexiconClientConfig)


class LexiconClientConfig(AnnotatorConfig):
    """Hand-written rules for NetHack messages: no model and no server."""

    kind: Literal["lexicon"] = "lexicon"
    file: Path | None = None
    """A lexicon of your own (TOML); none = the packaged one."""


class ScriptedClientConfig(AnnotatorConfig):
    """Answers without sense, with scripted delay: for benchmarks, tests and drills."""

    kind: Literal["scripted"] = "scripted"
    reply: str = "any"
    """What is answered to every question; what is no verdict is a parse failure. any = some verdict, always the
    same for the same question."""
    delay_s: float = Field(0.0, ge=0)
    """Seconds that each call takes."""


class LLMClientConfig(AnnotatorConfig):
    """The language model that ``llm`` names."""

    kind: Literal["llm"] = "llm"


class AutoClientConfig(AnnotatorConfig):
    """The language model where one is named, else the lexicon."""

    kind: Literal["auto"] = "auto"

    def chosen(self, llm: LLMConfig) -> AnnotatorConfig:
        """See ``AnnotatorConfig.chosen``."""
        return LLMClientConfig() if llm.is_named else LexiconClientConfig()


ClientConfig = Annotated[
    AutoClientConfig | LexiconClientConfig | ScriptedClientConfig | LLMClientConfig, Field(discriminator="kind")
]
"""Every kind of annotator; ``rewards.labels.annotators`` makes them."""


class LabellerConfig(Config):
    """How the labeller queues, paces and retries."""

    max_queued: PositiveInt = 10_000
    """Questions that may wait; beyond that the oldest is dropped and counted."""
    max_labels: PositiveInt | None = None
    """Questions that may be asked in this run; none = no limit."""
    max_labels_per_s: PositiveFloat | None = None
    """Questions that may be asked a second, on average; none = no limit."""
    request_timeout_s: PositiveFloat = 60.0
    """A call that takes longer has failed."""
    retry_deadline_s: PositiveFloat = 180.0
    """A batch is retried for so long; should cover a restart of the server."""
    backoff_min_s: PositiveFloat = 0.25
    """First wait between retries; doubles each time, with jitter."""
    backoff_max_s: PositiveFloat = 5.0
    """Longest wait between retries."""
    breaker_failures: PositiveInt = 5
    """Calls that must fail in a row before the annotator is left alone for a while; then one call at a time tries
    whether it is back."""
    breaker_cool_down_s: PositiveFloat = 1.0
    """How long it is left alone at first; doubles with each try that fails, with jitter."""
    breaker_max_cool_down_s: PositiveFloat = 30.0
    """Longest time it is left alone; should be well below retry_deadline_s, which goes on meanwhile."""
    lease_s: PositiveFloat = 30.0
    """How long other runs that share the label store do not ask what this run has claimed; renewed while it asks, so
    that it only matters after a crash."""
    lease_poll_s: PositiveFloat = 0.5
    """How often the store is looked at for the answers to what other runs are asking."""


class LabelsConfig(Config):
    """Labels of captions: goal, annotator, store."""

    client: ClientConfig = AutoClientConfig()
    """Who answers."""
    goal: str = "score"
    """What the player wants: score, stairs, gold, combat, a sentence of your own, or @FILE that holds one."""
    prompt_version: str | None = None
    """Wording of the question; none = the newest for what the reward asks (single captions, or pairs)."""
    path: Path | None = None
    """The label store, kept and reused by runs that name the same file, also at the same time, on one machine;
    none = in the run's folder."""
    mode: Literal["async", "barrier"] = "async"
    """async: labels take effect when they arrive, and training never waits. barrier: each update waits for
    the labels of its rollout, which makes runs repeatable; without them the run ends, after
    labels.labeller.retry_deadline_s."""
    labeller: LabellerConfig = LabellerConfig()
    """Queue, budget and retries."""

    @field_validator("goal")
    @classmethod
    def _known_goal(cls, goal: str) -> str:
        if goal.startswith("@"):  # the text itself is kept, so that a run does not depend on the file
            try:
                goal = " ".join(Path(goal[1:]).read_text().split())
            except OSError as error:
                raise ValueError(f"the goal's file cannot be read: {error}") from error
        return check_goal(goal)

    @field_validator("prompt_version")
    @classmethod
    def _known_version(cls, version: str | None) -> str | None:
        return None if version is None else check_version(version)

    def spec(self, *, asks_pairs: bool) -> PromptSpec:
        """The question that every caption, or every pair, is asked with.

        Raises:
            ValueError: the wording is of the other kind.
        """
        spec = PromptSpec(self.prompt_version or newest_version(is_pair=asks_pairs), self.goal)
        wanted = "pairs" if asks_pairs else "single captions"
        if spec.subject != "message":
            raise ValueError(f"labels.prompt_version {spec.version} asks about play, the reward needs {wanted}")
        if spec.is_pair != asks_pairs:
            raise ValueError(
                f"labels.prompt_version {spec.version} asks about {'pairs' if spec.is_pair else 'single captions'}, "
                f"the reward needs {wanted}"
            )
        return spec

    def play_spec(self) -> PromptSpec:
        """The question that every pair of stretches of play is asked with: the newest wording, with this goal."""
        return PromptSpec(newest_version(is_pair=True, subject="stretch"), self.goal)
