"""Searches whose designer, critic and runs follow a script."""

from typing import Any, cast

import pytest

from launch.config.presets import preset
from launch.design.config import DesignConfig
from launch.design.journal import Journal
from launch.design.search import SearchParts
from rewards.auto.audit import AuditLog
from rewards.auto.config import AutoConfig
from rewards.auto.episodes import builtin_transitions
from tests.launch.design.scripted import Critic


@pytest.fixture
def recorded(tmp_path):
    """Three recorded episodes below the search's folder."""
    names = []
    for i, record in enumerate(builtin_transitions()[:3]):
        record.save(tmp_path / f"{i}.npz")
        names.append(f"{i}.npz")
    return names


@pytest.fixture
def parts(tmp_path, recorded):
    """Makes a search's parts; a second call is a second session."""
    made = []

    def make(designer, runs, critic=None, **changes):
        for one in made:
            one.journal.close()
        reward = AutoConfig(archive=tmp_path / "archive", **changes.pop("reward", {}))
        config = DesignConfig(preset="room", reward=reward, rounds=len(designer.rounds), **changes)
        journal, audit = Journal(tmp_path), AuditLog(tmp_path / "audit.jsonl")
        if ("play", "") not in journal:
            journal.add("play", "", {"records": recorded, "steps": 40})
        said = []
        found = SearchParts(
            config=config, train=preset("room"), training=(), goal="find the stairs", folder=tmp_path,
            designer=designer, critic=cast(Any, critic or Critic()), journal=journal, audit=audit,
            say=said.append, attempt=runs,
        )  # fmt: skip
        made.append(found)
        return found

    yield make
    for one in made:
        one.journal.close()
