"""Which game is played: ``reset(seed=)`` does not seed NetHack, so Yendor owns the seeds.

Training and evaluation seeds come from disjoint halves of the 31-bit range, so that an evaluation
never plays a game that some run was trained on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from envs.data import EpisodeSeeds
from envs.protocols import State

_HALF = 1 << 30


def _triple(*key: int) -> EpisodeSeeds:
    core, disp, lgen = (int(x) % _HALF for x in np.random.SeedSequence(key).generate_state(3))
    return EpisodeSeeds(core, disp, lgen)


class TrainingSeeds:
    """Endless episodes for B games, a function of (run seed, stream, game, episode) alone.

    Args:
        seed: the run's seed.
        stream: which rollout worker asks (and which incarnation of it), so that none share games.
        num_games: B.
    """

    def __init__(self, seed: int, stream: int, num_games: int) -> None:
        self._seed, self._stream = seed, stream
        self._episodes = np.zeros(num_games, np.int64)

    def next(self, game: int) -> EpisodeSeeds:
        """Seeds of this game's next episode."""
        episode = int(self._episodes[game])
        self._episodes[game] += 1
        return _triple(self._seed, self._stream, game, episode)

    def state_dict(self) -> State:
        """Episodes begun in each game."""
        return {"episodes": self._episodes.copy()}

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        self._episodes = np.array(state["episodes"], np.int64)


class ListedSeeds:
    """Each listed episode once, given to whichever game is free; then None."""

    def __init__(self, seeds: Iterable[EpisodeSeeds]) -> None:
        self._left = deque(seeds)

    def next(self, game: int) -> EpisodeSeeds | None:
        """The next listed episode."""
        return self._left.popleft() if self._left else None

    def state_dict(self) -> State:
        """The episodes still to be handed out."""
        return {"left": [list(seeds) for seeds in self._left]}

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        self._left = deque(EpisodeSeeds(*seeds) for seeds in state["left"])


def evaluation_seeds(num_episodes: int, seed: int = 0) -> list[EpisodeSeeds]:
    """A fixed list of episodes that no training run ever plays (core, disp, lgen >= 2**30)."""
    return [EpisodeSeeds(*(x + _HALF for x in _triple(seed, episode))) for episode in range(num_episodes)]


def read_seeds(path: Path) -> list[EpisodeSeeds]:
    """Episodes from a file of ``core,disp,lgen`` lines; blank lines and ``#`` comments are skipped.

    Raises:
        ValueError: a line is not three integers in [0, 2**31); names the file and the line.
    """
    found = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        fields = [f.strip() for f in text.split(",")]
        if len(fields) != 3 or not all(f.isdigit() and int(f) < 2 * _HALF for f in fields):
            raise ValueError(
                f"{path}, line {number}: expected 'core,disp,lgen' (three integers from 0 to 2147483647), "
                f"found '{text}'"
            )
        found.append(EpisodeSeeds(*map(int, fields)))
    if not found:
        raise ValueError(f"{path} lists no seeds: expected lines of 'core,disp,lgen'")
    return found
