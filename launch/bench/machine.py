"""What the figures were measured on, and everything that was measured, for the JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from launch.bench.contender import num_cores
from launch.runs.folder import installed_versions


def machine() -> dict[str, Any]:
    """The machine, without its name, and the versions of what was measured."""
    versions = installed_versions()
    versions["stable-baselines3"] = metadata.version("stable-baselines3")
    return {
        "cpu": _cpu(),
        "cores": num_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "compiled": compiled(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions,
    }


def compiled() -> dict[str, bool]:
    """Which of our compiled modules are at work here; without them, the same is done in Python, or by NLE."""
    from agents.fast import patches
    from envs import maps
    from envs.engine import native

    return {"engine": native.why_not() is None, "patches": patches.is_compiled(), "maps": maps.IS_COMPILED}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    name = found.get("model name", platform.processor() or "unknown")
    return f"{name} (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else name


def as_json(command: Sequence[str], flags: Any, before: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Everything that a reader needs to judge and repeat the figures."""
    return json.dumps({"command": list(command), "flags": flags, "machine": before, **results}, indent=1)
