"""What a kind of reward declares, and how a run finds the kinds that there are.

A kind is one object in one place. ``rewards.config.RewardConfig`` has one field for each, which is its registry line;
kinds from outside are named by ``reward.custom``. What runs, evaluates or reports loops over them.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from envs.data import RewardOutput, Rollout
from envs.protocols import GamesSpec, RewardModel, State
from rewards.labels.config import LabelsConfig
from rewards.labels.questions import PromptSpec
from rewards.llm.config import LLMConfig
from rewards.parts import PartConfig

if TYPE_CHECKING:
    from envs.spec import GamesConfig
    from rewards.reporting import Section
    from rewards.teacher import Teacher, TeachingContext

C = TypeVar("C", bound=PartConfig)

ENTRY_POINTS = "yendor.rewards"
"""Group in which installed distributions offer kinds by their names."""

Encode = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Observations ``{key: [N, ...]}`` to float32 [N, W], by the policy's encoder."""


class RewardError(ValueError):
    """A reward cannot be computed over what was played; one sentence that names it. A run cannot go on from there."""


@dataclass(frozen=True, kw_only=True)
class ScoringContext:
    """What a reward model may use of the process that scores with it."""

    spec: GamesSpec
    """Of the games whose rollouts are scored; game b plays task ``b % len(spec.tasks)`` of the run's."""
    num_tasks: int = 1
    gamma: float = 0.99
    """Discount of the stream that the reward feeds."""
    scorer: str = "learner"
    """The process: ``learner``, ``worker 3``."""
    encode: Encode | None = None
    """The policy's encoder; None where no policy is at hand."""
    seed: int = 0
    """The run's: models that draw initial weights are the same in every process."""
    given: Any = None
    """What ``RewardKind.load`` found in the run's folder."""


def _keep_nothing(run: Path) -> None:
    """Most kinds need nothing in the run's folder."""


@dataclass(frozen=True, kw_only=True)
class Prepared(Generic[C]):
    """A kind's configuration, settled before a run begins."""

    config: C
    keep: Callable[[Path], None] = _keep_nothing
    """Puts into a new run's folder what ``RewardKind.load`` will look for there."""


class RewardKind(Generic[C]):
    """One way to say what a step is worth, with all that a run, its report and its glossary need of it.

    Only ``name``, ``config`` and ``model`` must be given. A kind's module is imported where flags are read: it imports
    torch inside its methods only.

    Every error in a configuration is a ``ValueError`` whose sentence begins with the field's path within the kind's
    configuration (``ranking: ...``).
    """

    name: ClassVar[str]
    """Of the field in ``reward``, and of the first part that its model gives; others are called ``name/...``."""
    config: ClassVar[Any]
    """The configuration, a subclass of ``PartConfig`` that is data only and whose every field has a default. With
    ``weight`` 0 as its default the reward pays where it is asked for alone."""
    usual_weight: ClassVar[float] = 1.0
    """What the part weighs where it is asked for by name alone."""
    pays_captions: ClassVar[bool] = False
    """The part pays a step for its caption: a run's list of captions says how much each was paid."""
    metrics: ClassVar[Mapping[str, str]] = {}
    """Glossary of what its teacher's ``metrics`` gives; ``*`` stands for a name."""

    # -- before a run

    def columns(self, config: C) -> Sequence[str]:
        """Columns of the published schema that games must record for this reward."""
        return ()

    def questions(self, config: C, labels: LabelsConfig, llm: LLMConfig) -> Mapping[str, PromptSpec]:
        """What an annotator is asked: ``{what about (captions, play): wording}``; empty = nobody is asked.

        Raises:
            ValueError: the annotator or the wording does not suit.
        """
        return {}

    def check(self, config: C) -> None:
        """Refuse what the configuration's class cannot check by itself: unknown factors, columns, files.

        Raises:
            ValueError: one sentence.
        """

    def prepare(self, config: C, games: GamesConfig, seed: int) -> Prepared[C]:
        """Settle what a new run keeps for good, such as which files a name stands for.

        Raises:
            ValueError: as of ``check``.
        """
        return Prepared(config=config)

    # -- in a run

    def load(self, config: C, run: Path, events: Sequence[Mapping[str, Any]]) -> Any:
        """What models and the teacher are given: found in the run's folder by the driver.

        It is sent to processes that have not imported a kind's file yet: plain values, arrays, or classes of an
        installed package.

        Args:
            config: the run's.
            run: its folder.
            events: what its log says so far; none of a run that begins.

        Raises:
            ValueError: it is not there any more, or was edited.
        """
        return None

    def model(self, config: C, context: ScoringContext) -> RewardModel:
        """The model that scores rollouts."""
        raise NotImplementedError

    def teacher(self, config: C, context: TeachingContext) -> Teacher | None:
        """The driver's side; None where nothing is learned, asked or told."""
        return None

    # -- afterwards

    def report(self, run: Path, config: C, events: Sequence[Mapping[str, Any]]) -> Section | None:
        """The reward's part of a run's report; None where the run has nothing to show.

        Args:
            run: the run's folder.
            config: the run's.
            events: what its log says.

        Raises:
            ValueError: a file is damaged; the sentence names it.
        """
        return None


class PlainReward:
    """What a reward model has that remembers nothing of episodes, learns nothing and reports nothing; to inherit from.

    Subclasses have ``part_names`` and ``score``; see ``envs.protocols.RewardModel``.
    """

    version = 0

    def initial_state(self, num_games: int) -> State:
        """No memory."""
        return {}

    def take(self, news: Any) -> None:
        """Nobody has news for it."""

    def evidence(self, rollout: Rollout, output: RewardOutput, state: State) -> tuple[Any, State]:
        """Nothing to report."""
        return None, state

    def state_dict(self) -> State:
        """Nothing is learned."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to continue from."""

    def own_state(self) -> State:
        """Nothing belongs to this process alone."""
        return {}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Nothing to continue from."""

    def close(self) -> None:
        """Nothing was started."""


# -- where kinds are found ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """The registry line of a kind, as an annotation of its field in ``RewardConfig``."""

    path: str
    """``module:CLASS``; imported when the kind is first needed."""

    def load(self) -> RewardKind[Any]:
        """The kind."""
        module, _, name = self.path.partition(":")
        return _instance(self.path, importlib.import_module(module), name)


_IMPORT_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""Mistakes in somebody's module that show when it is imported."""


def custom_kind(source: str) -> RewardKind[Any]:
    """A kind from outside: ``PATH.py:NAME``, ``module:NAME``, or the name of an entry point of ``yendor.rewards``.

    Raises:
        ValueError: there is no such file, module, entry point or name, it cannot be imported, or it is no whole kind of
            reward; one sentence.
    """
    place, colon, name = source.rpartition(":")
    if not colon:
        place, name = _entry_point(source)
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except _NoFileError as error:
        raise ValueError(f"custom: {error}") from None
    except _IMPORT_ERRORS as error:
        at = "" if isinstance(error, SyntaxError) else f" (line {traceback.extract_tb(error.__traceback__)[-1].lineno})"
        raise ValueError(f"custom: '{source}' cannot be imported: {type(error).__name__}: {error}{at}") from error
    kind = _instance(source, module, name)
    _check_whole(source, kind)
    return kind


def _entry_point(name: str) -> tuple[str, str]:
    """Its module, and the name in that module."""
    offered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        known = ", ".join(sorted(offered)) or "none is installed"
        raise ValueError(
            f"custom: '{name}' is neither PATH.py:KIND nor module:KIND nor an entry point of {ENTRY_POINTS} ({known})"
        )
    return offered[name].module, offered[name].attr


class _NoFileError(Exception):
    """There is no such file."""


def _import_file(path: Path) -> ModuleType:
    """Import a file under a name that is the same in every process, since what it defines is sent between them."""
    path = path.absolute()
    if not path.is_file():
        raise _NoFileError(f"there is no file {path}")
    module = f"yendor_custom_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, path)
        assert spec is not None and spec.loader is not None, "a .py file has a loader"
        sys.modules[module] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[module])
        except BaseException:
            del sys.modules[module]
            raise
    return sys.modules[module]


def _instance(source: str, module: ModuleType, name: str) -> RewardKind[Any]:
    found = getattr(module, name, None)
    kind = found() if isinstance(found, type) and issubclass(found, RewardKind) else found
    if not isinstance(kind, RewardKind):
        raise ValueError(
            f"custom: '{source}' names no kind of reward; a kind is a subclass of rewards.kinds.RewardKind"
        )
    return kind


def _check_whole(source: str, kind: RewardKind[Any]) -> None:
    """Refuse a kind whose name or configuration nothing could be made of."""
    name, config = getattr(kind, "name", None), getattr(kind, "config", None)
    if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", name)):
        raise ValueError(f"custom: '{source}' must have a name of small letters, digits and _, not {name!r}")
    if not (isinstance(config, type) and issubclass(config, PartConfig)):
        raise ValueError(f"custom: '{source}' must have a config, a subclass of rewards.parts.PartConfig")
    required = [field for field, info in config.model_fields.items() if info.is_required()]
    if required:
        raise ValueError(f"custom: every field of '{source}' needs a default, and '{required[0]}' has none")
