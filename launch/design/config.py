"""Configuration of a search for a reward program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from envs.data import Config
from rewards.auto.config import AutoConfig
from rewards.auto.search.llm import DesigningConfig
from rewards.llm.config import LLMConfig


class ReportConfig(Config):
    """What is measured once, of the program that was chosen, on seeds that had no part in choosing it."""

    seeds: tuple[int, ...] = (101, 102, 103)
    """Training seeds; none = no report."""
    steps: PositiveInt = 500_000
    """Environment steps of each of its runs."""
    episodes: PositiveInt = 200
    """Episodes that each of its policies plays at the end."""
    sparse: bool = True
    """Train without a program, too: the same seeds, steps and episodes."""


class DesignConfig(Config):
    """A search for a reward program."""

    preset: str
    """Name of the preset whose task, network and learner are used."""
    goal: str | None = None
    """The task in words, for a language model; none = the first sentence of the preset's description. Needed where
    env.task is changed."""
    name: str | None = None
    """Name of the search's folder; none = design-PRESET and the next free number."""
    runs: Path = Path("runs")
    """Folder that holds the search's."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes proposals, and the runs that programs are tried in."""
    designer: Literal["auto", "grammar", "random", "llm"] = "auto"
    """llm: a language model writes programs. grammar: they are composed and mutated from terms over the schema, guided
    by what was recorded. random: the same grammar without guidance. auto = llm where one is named, else grammar."""
    rounds: PositiveInt = 3
    """Rounds of proposals; each knows the results of those before."""
    candidates: PositiveInt = 4
    """Programs proposed in a round."""
    trial_steps: PositiveInt = 300_000
    """Environment steps that an accepted program is tried for."""
    trial_episodes: PositiveInt = 100
    """Episodes that the policy of a trial plays at its end: the share of successes is the program's fitness."""
    recorded_episodes: PositiveInt = 20
    """Of those, so many are recorded, for the analyzer and the next round."""
    parallel: PositiveInt = 2
    """Trials side by side; each is a Ray task with one CPU."""
    opinion: bool = False
    """Ask the language model what it thinks of a program that has passed the tests."""
    replies: Path | None = None
    """Recorded replies of a language model (JSON lines), to repeat a search without a server."""
    llm: LLMConfig = LLMConfig()
    designing: DesigningConfig = DesigningConfig()
    """How the language model is asked."""
    reward: AutoConfig = AutoConfig()
    """How programs are composed, contained and weighed, and which archive keeps them."""
    report: ReportConfig = ReportConfig()
    ray_address: str | None = None
    """Ray cluster to join; none = start one on this machine for the search. Its machines must see the same folders."""

    @property
    def uses_language_model(self) -> bool:
        """A language model writes the programs."""
        named = self.llm.is_named or self.replies is not None
        return self.designer == "llm" or (self.designer == "auto" and named)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.llm.serve is not None:
            raise ValueError("a search asks a server that runs already: yendor serve-llm MODEL, then llm.base_url")
        if (self.designer == "llm" or self.opinion) and not (self.llm.is_named or self.replies is not None):
            raise ValueError("designer=llm and opinion need a language model: give llm.base_url, or replies")
        if self.replies is not None and self.llm.is_named:
            raise ValueError("replies take the place of a server: give replies or llm.base_url, not both")
        if self.reward.weight == 0:
            raise ValueError("reward.weight 0 would pay nothing for any program: set it above 0")
        if len(set(self.report.seeds)) < len(self.report.seeds):
            raise ValueError("report.seeds names a seed twice")
        if self.seed in self.report.seeds:
            raise ValueError(f"report.seeds holds {self.seed}, the seed that programs are chosen with; take fresh ones")
        return self
