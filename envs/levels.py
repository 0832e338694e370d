"""Levels that MiniHack describes in des-files: compiled once for each source, shared by a process's games."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any, Protocol

from envs.data import EpisodeSeeds
from envs.gameless import minihack_base, without_game
from envs.spec import TaskSpec


class Level(Protocol):
    """Puts the data file that holds a game's levels into the game's folder."""

    def install(self, folder: Path, seeds: EpisodeSeeds) -> None:
        """Called before every episode."""
        ...


class Dungeon:
    """NetHack's own dungeon; nothing to install."""

    def install(self, folder: Path, seeds: EpisodeSeeds) -> None:
        """Nothing to do."""


class CompiledLevel:
    """One des-file, the same for every episode (what is random in it is drawn by the game).

    Args:
        des: source text.
        workshop: folder for compiled levels, shared by the games of this process.
    """

    def __init__(self, des: str, workshop: Path) -> None:
        self._archive = workshop / f"{hashlib.sha1(des.encode()).hexdigest()}.nhdat"
        if not self._archive.exists():
            compile_level(des, workshop / "lib").replace(self._archive)
        self._installed: set[Path] = set()

    def install(self, folder: Path, seeds: EpisodeSeeds) -> None:
        """Link the compiled level once."""
        if folder not in self._installed:
            target = folder / "nhdat"
            target.unlink(missing_ok=True)
            target.symlink_to(self._archive)
            self._installed.add(folder)


class MinigridLevel:
    """A level drawn from minigrid and compiled again for each episode; a function of ``lgen``.

    Args:
        env: a ``MiniGridHack`` without a game of its own.
        workshop: folder for compiling.
    """

    def __init__(self, env: Any, workshop: Path) -> None:
        self._env, self._workshop = env, workshop

    def install(self, folder: Path, seeds: EpisodeSeeds) -> None:
        """Draw, compile and install."""
        self._env.minigrid_env.reset(seed=seeds.lgen)
        archive = compile_level(self._env.get_env_desc(), self._workshop / "lib")
        target = folder / "nhdat"
        target.unlink(missing_ok=True)
        shutil.move(archive, target)


def level_of(spec: TaskSpec, workshop: Path) -> Level:
    """Where a task's level comes from.

    Args:
        spec: the task.
        workshop: folder for compiled levels.
    """
    if spec.level_drawn_each_episode:
        workshop.mkdir(exist_ok=True)
        return MinigridLevel(without_game(spec.id), workshop)
    if spec.des is None:
        return Dungeon()
    workshop.mkdir(exist_ok=True)
    return CompiledLevel(spec.des, workshop)


def compile_level(des: str, lib: Path) -> Path:
    """Compile a des-file into a NetHack data archive.

    Args:
        des: source text.
        lib: folder to work in; filled with MiniHack's base files on first use.

    Returns:
        The archive, for the caller to move away.

    Raises:
        RuntimeError: the level compiler refused the source; with its first complaint.
    """
    if not lib.exists():
        shutil.copytree(minihack_base.LIB_DIR, lib)
    level, source = lib / "mylevel.lev", lib / "mylevel.des"
    level.unlink(missing_ok=True)
    source.write_text(des)
    done = subprocess.run(
        [f"{minihack_base.HACKDIR}/lev_comp", source.name], cwd=lib, capture_output=True, text=True, check=False
    )
    source.unlink()
    if done.returncode or not level.exists():
        complaint = (done.stderr or done.stdout).strip().splitlines() or ["no level was written"]
        raise RuntimeError(f"the level does not compile: {complaint[0]}")
    files = sorted(f.name for f in lib.iterdir() if f.name != "nhdat")
    subprocess.run([f"{minihack_base.HACKDIR}/dlb", "cf", "nhdat", *files], cwd=lib, capture_output=True, check=True)
    return lib / "nhdat"
