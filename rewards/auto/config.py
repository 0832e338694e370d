"""Configuration of rewards that are written as code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from envs.data import Config
from rewards.parts import PartConfig

IsolationLevel = Literal["process", "kernel", "full"]


class CompositionConfig(Config):
    """How the values of components become one reward (``rewards.auto.composition``)."""

    values: Literal["signs", "clipped"] = "signs"
    """signs: of each component's value only the sign counts, as in the paper. clipped: the value, held to -1..1."""
    sparse_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Of each sparse component."""
    dense_weight: Annotated[float, Field(ge=0.0)] = 0.01
    """Of each dense component. The paper's is 0.1, without a bound on what an episode pays; within a budget of 0.9 that
    is used up after nine steps, and further exploration would pay nothing."""
    dense: Literal["fading", "budget", "potential"] = "fading"
    """fading and budget: what dense components have paid in an episode stays within dense_budget, up and down; with
    budget a step pays in full until that is reached and nothing beyond it, with fading ever less. potential: their
    weighted sum is a potential, and each step pays by how much it rose (Ng et al. 1999)."""
    dense_budget: PositiveFloat = 0.9
    """Most that dense components may sum to in an episode, either way; below sparse_weight, so that no farming
    outweighs success. Where sparse_weight is 0, it is what it is."""

    @model_validator(mode="after")
    def _success_outweighs_farming(self) -> Self:
        if 0 < self.sparse_weight <= self.dense_budget:
            raise ValueError(
                f"dense_budget {self.dense_budget:g} is not below sparse_weight {self.sparse_weight:g}: "
                "farming would be worth as much as success"
            )
        return self


class ContainmentConfig(Config):
    """Where programs run, and what they may use."""

    min_isolation: IsolationLevel = "process"
    """Refuse to run programs with less between them and the machine: a process of their own, that process under the
    kernel's filters (seccomp, Landlock, limits), or all that and another user or bubblewrap."""
    batch_s: PositiveFloat = 1.0
    """Seconds that a batch may take."""
    memory_mb: Annotated[int, Field(ge=8)] = 64
    """Memory of a program's values."""
    max_value: PositiveFloat = 1e6
    """Values beyond this, either way, are no answer."""
    max_failure_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.001
    """Transitions without an answer, of the last failure_window, above which a program is quarantined."""
    failure_window: PositiveInt = 10_000
    """Transitions over which failures are counted."""


class ProgramConfig(PartConfig):
    """A reward program's part of the reward."""

    code: str | None = None
    """The program: its SHA in the archive (the first digits will do), or a file; `yendor rewards list` shows those
    there are. none = no reward from programs."""
    weight: Annotated[float, Field(ge=0.0)] = 0.3
    """Factor of the part, where a program is chosen."""
    stream: Literal["extrinsic", "intrinsic"] = "intrinsic"
    """The stream, and so the value head, that it feeds."""
    normalise: Literal["none", "std", "return"] = "return"
    """Divide by a running standard deviation: of values (std), or of their discounted sums (return). With return, dense
    components count while nothing else pays, and the goal outweighs them once it does."""
    composition: CompositionConfig = CompositionConfig()
    containment: ContainmentConfig = ContainmentConfig()
    fallback: tuple[str, ...] | None = None
    """SHAs or files of the programs that take the chosen one's place, one after the other, where it is quarantined;
    none = those of its ancestors in the archive that were accepted, the nearest first. After the last there is no
    reward from programs."""
    archive: Path = Path("runs/programs")
    """Folder of the programs that a SHA is looked up in."""
    columns: tuple[str, ...] = ()
    """Columns of the schema that the programs read; found when a run begins."""

    @property
    def pays(self) -> bool:
        """A program is chosen, and weighs something."""
        return self.code is not None and self.weight > 0
