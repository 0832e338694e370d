"""Configuration of labelling: who answers, where labels are kept, how much may be asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from envs.data import Config
from rewards.labels.prompts import PromptSpec, check_goal, check_version, newest_version
from rewards.llm.config import LLMConfig

if TYPE_CHECKING:
    from rewards.labels.clients import LabelClient
    from rewards.labels.lexicon import Lexicon


class AnnotatorConfig(Config):
    """What every kind of annotator's configuration has in common."""

    def asks_language_model(self, llm: LLMConfig) -> bool:
        """Whether the language model, named or not, is asked for labels."""
        return False

    def judges_play(self, llm: LLMConfig) -> bool:
        """Whether it can tell which of two stretches of play is better, too."""
        return True

    def check(self, llm: LLMConfig, goal: str) -> None:
        """Say before anything starts what would end labelling at the first question.

        Raises:
            ValueError: the annotator cannot be built, or cannot judge by this goal.
        """


class LexiconClientConfig(AnnotatorConfig):
    """Hand-written rules for NetHack messages: no model and no server."""

    kind: Literal["lexicon"] = "lexicon"
    file: Path | None = None
    """A lexicon of your own (TOML); none = the packaged one."""

    def build(self, llm: LLMConfig) -> LabelClient:
        """The client.

        Raises:
            LexiconError: the file cannot be read as a lexicon.
        """
        from rewards.labels.clients import LexiconClient

        return LexiconClient(self._lexicon())

    def judges_play(self, llm: LLMConfig) -> bool:
        """Its rules are about messages."""
        return False

    def _lexicon(self) -> Lexicon:
        from rewards.labels.lexicon import Lexicon

        return Lexicon.read(self.file) if self.file else Lexicon.packaged()

    def check(self, llm: LLMConfig, goal: str) -> None:
        """See ``AnnotatorConfig.check``."""
        self._lexicon().judge("", goal)


class ScriptedClientConfig(AnnotatorConfig):
    """Answers without sense, with scripted delay: for benchmarks, tests and drills."""

    kind: Literal["scripted"] = "scripted"
    reply: str = "any"
    """What is answered to every question; what is no verdict is a parse failure. any = some verdict, always the
    same for the same question."""
    delay_s: float = Field(0.0, ge=0)
    """Seconds that each call takes."""

    def build(self, llm: LLMConfig) -> LabelClient:
        """The client."""
        from rewards.labels.clients import ScriptedClient, any_verdict

        return ScriptedClient(any_verdict if self.reply == "any" else self.reply, delay_s=self.delay_s)


class LLMClientConfig(AnnotatorConfig):
    """The language model that ``llm`` names."""

    kind: Literal["llm"] = "llm"

    def asks_language_model(self, llm: LLMConfig) -> bool:
        """It does."""
        return True

    def check(self, llm: LLMConfig, goal: str) -> None:
        """See ``AnnotatorConfig.check``."""
        from rewards.llm.config import read_key

        read_key(llm.api_key_env)

    def build(self, llm: LLMConfig) -> LabelClient:
        """The client; nothing is sent before the first label.

        Raises:
            ValueError: no language model is named.
        """
        if llm.base_url is None:
            raise ValueError("labels.client.kind=llm needs a language model: give llm.base_url or llm.serve")
        from rewards.labels.llm_client import LLMLabelClient

        return LLMLabelClient(llm)


class AutoClientConfig(AnnotatorConfig):
    """The language model where one is named, else the lexicon."""

    kind: Literal["auto"] = "auto"

    def asks_language_model(self, llm: LLMConfig) -> bool:
        """Where there is one."""
        return llm.is_named

    def judges_play(self, llm: LLMConfig) -> bool:
        """Where there is a language model."""
        return self._chosen(llm).judges_play(llm)

    def build(self, llm: LLMConfig) -> LabelClient:
        """The client."""
        return self._chosen(llm).build(llm)

    def check(self, llm: LLMConfig, goal: str) -> None:
        """See ``AnnotatorConfig.check``."""
        self._chosen(llm).check(llm, goal)

    def _chosen(self, llm: LLMConfig) -> LLMClientConfig | LexiconClientConfig:
        return LLMClientConfig() if llm.is_named else LexiconClientConfig()


ClientConfig = Annotated[
    AutoClientConfig | LexiconClientConfig | ScriptedClientConfig | LLMClientConfig, Field(discriminator="kind")
]
"""Every kind of annotator; a new one is one more class with ``kind`` and ``build``."""


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
    """What this run is asking, other runs that share the label store leave to it for so long; renewed while it asks,
    so that it only matters after a crash."""
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
