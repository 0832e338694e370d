"""Builds the three compiled modules, where that is possible; everything else is in pyproject.toml."""

import platform
import sys
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("envs/engine/cpp")


def engine() -> list[Extension]:
    """The extension, where its method exists: it loads x86-64 Linux libraries."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return []
    return [
        Extension(
            "envs.engine._native",
            sources=sorted(str(path) for path in SOURCES.glob("*.cpp")),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
            extra_compile_args=["-std=c++17", "-O2", "-g0", "-Wall", "-Wextra", "-fvisibility=hidden"],
            language="c++",
            optional=True,  # without a compiler, games are played through NLE's own module
        )
    ]


def patches() -> Extension:
    """Distinct patches of crops; without a compiler, convolutions are torch's."""
    return Extension(
        "agents._patches",
        sources=["agents/_patches.cpp"],
        extra_compile_args=["-std=c++17", "-O3", "-Wall", "-Wextra"],  # -O2 leaves the loops scalar
        language="c++",
        optional=True,
    )


def maps() -> Extension:
    """Passes over glyph maps; without a compiler, envs/maps.py makes them in numpy."""
    return Extension(
        "envs._maps",
        sources=["envs/_maps.cpp"],
        extra_compile_args=["-std=c++17", "-O3", "-g0", "-Wall", "-Wextra"],  # -O2 leaves the loops scalar
        language="c++",
        optional=True,
    )


setup(ext_modules=[*engine(), patches(), maps()])
