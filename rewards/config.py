"""Configuration of rewards: which kinds there are, what each part weighs, which stream it feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, SupportsIndex

from pydantic import ModelWrapValidatorHandler, create_model, field_validator, model_validator

from envs.data import Config
from rewards.auto.config import ProgramConfig
from rewards.heron.config import HeronConfig, TreeConfig
from rewards.kinds import Kind, RewardKind, custom_kind
from rewards.oni.config import OniConfig, RetrievalConfig
from rewards.parts import PartConfig, StreamConfig


class RewardConfig(Config):
    """What a step is worth: one field for each kind of reward, annotated with where the kind is."""

    env: Annotated[PartConfig, Kind("rewards.mix:EnvKind")] = PartConfig()
    """The environment's own reward."""
    oni: Annotated[OniConfig, Kind("rewards.oni.oni_kind:OniKind")] = RetrievalConfig()
    """What captions are worth by an annotator's labels."""
    heron: Annotated[HeronConfig, Kind("rewards.heron.heron_kind:HeronKind")] = TreeConfig()
    """What play is worth by a ranking of factors."""
    program: Annotated[ProgramConfig, Kind("rewards.auto.program_kind:ProgramKind")] = ProgramConfig()
    """What a reward program gives: a program that a language model, or a grammar, wrote."""
    custom: tuple[str, ...] = ()
    """Kinds of your own: PATH.py:KIND, module:KIND, or an entry point of yendor.rewards; the configuration of each
    is reward.NAME."""
    extrinsic: StreamConfig = StreamConfig()
    """Stream of what the task pays."""
    intrinsic: StreamConfig = StreamConfig()
    """Stream of what is paid beside."""

    _sources: ClassVar[tuple[str, ...]] = ()
    """Custom kinds that this class has fields for."""

    @field_validator("custom")
    @classmethod
    def _absolute(cls, custom: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_absolute(source) for source in custom)

    @model_validator(mode="wrap")
    @classmethod
    def _with_custom_fields(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Validate by a class that has the custom kinds' fields, too."""
        named = data.get("custom", ()) if isinstance(data, Mapping) else None
        if not isinstance(named, list | tuple) or not all(isinstance(source, str) for source in named):
            return handler(data)
        sources = tuple(map(_absolute, named))
        if sources == cls._sources:
            return handler(data)
        # Pydantic takes an instance of a subclass for what it is.
        return _extended(sources).model_validate(data)  # pyright: ignore[reportReturnType]

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """By values: a class that has custom kinds' fields, and their files, are found by validation only."""
        if not self._sources:
            return super().__reduce_ex__(protocol)
        return RewardConfig.model_validate, (self.model_dump(),)

    @property
    def kinds(self) -> Mapping[str, RewardKind[Any]]:
        """Every kind by its name, in the order in which parts are computed."""
        found = {}
        for name, field in type(self).model_fields.items():
            for mark in field.metadata:
                if isinstance(mark, Kind):
                    found[name] = mark.load()
        return found | {kind.name: kind for kind in map(custom_kind, self.custom)}

    @property
    def paid(self) -> Mapping[str, tuple[RewardKind[Any], PartConfig]]:
        """Kinds that are learned from, each with its configuration."""
        return {name: (kind, part) for name, kind in self.kinds.items() if (part := getattr(self, name)).pays}

    @property
    def streams(self) -> dict[str, StreamConfig]:
        """The streams that a paid part feeds, in the order of the value heads."""
        fed = {part.stream for _, part in self.paid.values()}
        streams = {"extrinsic": self.extrinsic, "intrinsic": self.intrinsic}
        return {name: config for name, config in streams.items() if name in fed}

    def paying(self, names: Sequence[str]) -> Self:
        """The same, with these kinds paid beside the environment's own reward and no others.

        Kinds that weigh nothing so far get their usual weight.

        Raises:
            ValueError: there is no such kind; names those there are.
        """
        kinds = {name: kind for name, kind in self.kinds.items() if name != "env"}
        unknown = [name for name in names if name not in kinds]
        if unknown:
            raise ValueError(f"there is no reward '{unknown[0]}', allowed are {', '.join(kinds)}")
        weights = {
            name: (getattr(self, name).weight or kind.usual_weight) if name in names else 0.0
            for name, kind in kinds.items()
        }
        return self.replace(**{name: getattr(self, name).replace(weight=weight) for name, weight in weights.items()})


def _absolute(source: str) -> str:
    """A file is named the same wherever a process of the run is started."""
    path, colon, name = source.rpartition(":")
    return f"{Path(path).absolute()}:{name}" if colon and path.endswith(".py") else source


@lru_cache
def _extended(sources: tuple[str, ...]) -> type[RewardConfig]:
    """``RewardConfig`` with a field for each of these kinds.

    Raises:
        ValueError: one is no kind, or has a name that is taken.
    """
    fields: dict[str, Any] = {}
    for source in sources:
        kind = custom_kind(source)
        if kind.name in fields:
            raise ValueError(f"custom: the kind of '{source}' is called '{kind.name}', and so is another")
        if kind.name in RewardConfig.model_fields or hasattr(RewardConfig, kind.name):
            raise ValueError(f"custom: the kind of '{source}' is called '{kind.name}', which means something else here")
        fields[kind.name] = (kind.config, kind.config())
    extended = create_model("RewardConfig", __base__=RewardConfig, __doc__=RewardConfig.__doc__, **fields)
    extended._sources = sources
    return extended
