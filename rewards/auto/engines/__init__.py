"""Engines: what runs reward programs, each in a process that is locked in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rewards.auto.config import ContainmentConfig, EngineName
from rewards.auto.sandbox.engine import HASH_SEED, Engine, Limits
from rewards.auto.sandbox.jail import IsolationError, check_level, describe

if TYPE_CHECKING:
    from rewards.auto.engines.cpython import CPythonEngine
    from rewards.auto.sandbox.monty import MontyEngine

__all__ = ["IsolationError", "build_engine", "isolation_line"]


def build_engine(config: ContainmentConfig, *, hash_seed: int = HASH_SEED) -> Engine:
    """The engine that a configuration asks for; its process starts when it is first needed.

    Args:
        config: engine and limits.
        hash_seed: decides the order of sets of texts, where the engine knows such seeds (Monty does not).

    Raises:
        IsolationError: there would be less isolation than ``config.min_isolation``, or the engine cannot be started.
    """
    engine = _ENGINES[config.engine](Limits(batch_s=config.batch_s, memory_mb=config.memory_mb), hash_seed)
    check_level(engine.isolation, config.min_isolation)
    return engine


def isolation_line(config: ContainmentConfig) -> str:
    """``reward programs: monty 1.4.0, isolation full (user 65534, seccomp on, ...)``, to be shown at a start.

    Raises:
        IsolationError: as ``build_engine``.
    """
    engine = build_engine(config)
    engine.close()
    return f"reward programs: {engine.name}, {describe(engine.isolation)}"


def _monty(limits: Limits, _: int) -> MontyEngine:
    from rewards.auto.sandbox.monty import MontyEngine  # here, so that one engine does not need the other's packages

    return MontyEngine(limits)


def _cpython(limits: Limits, hash_seed: int) -> CPythonEngine:
    from rewards.auto.engines.cpython import CPythonEngine

    return CPythonEngine(limits, hash_seed=hash_seed)


_ENGINES: Mapping[EngineName, Callable[[Limits, int], Engine]] = {"monty": _monty, "cpython": _cpython}
