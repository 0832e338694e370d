"""Playing listed episodes with any policy, one result for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from envs.data import EpisodeResult, EpisodeSeeds
from envs.protocols import Games, Policy, PolicyStep, SeedSource, State, WatchingGames
from envs.seeding import ListedSeeds


class EpisodeNoise:
    """``envs.protocols.Noise`` of evaluation: one generator for each game, restarted with each episode.

    An episode then plays out the same whichever games run beside it and however often the
    evaluation was interrupted.
    """

    def __init__(self, num_games: int, seed: int = 0) -> None:
        self._seed = seed
        self._generators = [np.random.default_rng((seed, game)) for game in range(num_games)]

    def begin(self, game: int, seeds: EpisodeSeeds) -> None:
        """Restart this game's generator for the episode of these seeds."""
        self._generators[game] = np.random.default_rng((self._seed, *seeds))

    def uniform(self, num: int, games: np.ndarray | None = None) -> np.ndarray:
        """float32 [B, num] in [0, 1), or [N, num] for N games; the generators of others stay where they are."""
        asked = self._generators if games is None else [self._generators[game] for game in games]
        if not asked:
            return np.empty((0, num), np.float32)
        return np.stack([generator.random(num, dtype=np.float32) for generator in asked])


class _SeedsWithNoise:
    """Listed seeds; restarts a game's noise with each of its episodes."""

    def __init__(self, seeds: Sequence[EpisodeSeeds], noise: EpisodeNoise) -> None:
        self._listed, self._noise = ListedSeeds(seeds), noise

    def next(self, game: int) -> EpisodeSeeds | None:
        seeds = self._listed.next(game)
        if seeds is not None:
            self._noise.begin(game, seeds)
        return seeds

    def state_dict(self) -> State:
        return self._listed.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._listed.load_state_dict(state)


def evaluate(
    policy: Policy,
    make_games: Callable[[int, SeedSource], Games],
    seeds: Sequence[EpisodeSeeds],
    *,
    num_games: int = 16,
    noise_seed: int = 0,
    deterministic: bool = False,
) -> Iterator[EpisodeResult]:
    """Play each listed episode once; yields results as episodes end.

    An episode's noise depends on its seeds and ``noise_seed`` alone, so that an evaluation may be cut,
    split over processes and resumed without changing what is sampled.

    Args:
        policy: acts.
        make_games: builds that many games over a seed source; they are closed at the end.
        seeds: the episodes.
        num_games: games side by side.
        noise_seed: another one samples other actions in the same games.
        deterministic: take the likeliest action instead of sampling.
    """
    num_games = min(num_games, len(seeds))
    if num_games == 0:
        return
    noise = EpisodeNoise(num_games, noise_seed)
    games = make_games(num_games, _SeedsWithNoise(seeds, noise))
    try:
        obs, memory = games.reset(), policy.initial_state(num_games)
        while games.active.any():
            acted = _acted(policy, games, obs, memory, noise, deterministic)
            if isinstance(games, WatchingGames):
                games.watch(acted)
            played = games.step(acted.actions)
            for result in played.finished.values():  # noqa: UP028 - Ray drives generators by send()
                yield result
            obs, memory = played.obs, acted.recurrent_state
            if memory is not None:
                memory = np.where((played.terminated | played.truncated)[:, None], np.float32(0), memory)
    finally:
        games.close()


class _NoiseOf:
    """The noise of some of the games."""

    def __init__(self, noise: EpisodeNoise, games: np.ndarray) -> None:
        self._noise, self._games = noise, games

    def uniform(self, num: int, games: np.ndarray | None = None) -> np.ndarray:
        return self._noise.uniform(num, self._games if games is None else self._games[games])


def _acted(
    policy: Policy,
    games: Games,
    obs: Mapping[str, np.ndarray],
    memory: np.ndarray | None,
    noise: EpisodeNoise,
    deterministic: bool,
) -> PolicyStep:
    """What the policy answers, which is not asked about games that have no more episodes: plans are dear."""
    if games.active.all():
        return policy.act(obs, memory, games.action_mask, noise, deterministic=deterministic)
    rows = np.flatnonzero(games.active)
    mask = None if games.action_mask is None else games.action_mask[rows]
    acted = policy.act(
        {key: x[rows] for key, x in obs.items()},
        None if memory is None else memory[rows],
        mask,
        _NoiseOf(noise, rows),
        deterministic=deterministic,
    )

    def spread(own: np.ndarray) -> np.ndarray:
        whole = np.zeros((games.num_games, *own.shape[1:]), own.dtype)
        whole[rows] = own
        return whole

    fields = ("actions", "recurrent_state", "values", "log_prob")
    found: dict[str, Any] = {name: x for name in fields if (x := getattr(acted, name)) is not None}
    record = {name: spread(x) for name, x in (acted.head_record or {}).items()}
    return PolicyStep(**{name: spread(x) for name, x in found.items()}, head_record=record)
