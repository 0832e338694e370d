"""Cuts rollouts into the segments that preferences are about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from envs.data import Rollout
from envs.protocols import State
from rewards.heron.factors import FactorTable
from rewards.heron.inputs import StepInputs
from rewards.heron.segments import Segments


@dataclass(frozen=True, eq=False)
class _Steps:
    """Consecutive steps of one episode: all of it so far that segments may still need."""

    inputs: np.ndarray
    """float32 [n, D]."""
    factors: np.ndarray
    """float64 [n, F], step by step."""
    captions: np.ndarray
    """int64 [n]."""
    first_step: int
    """Step of the episode at which they begin."""
    episode_id: int
    uncut: int
    """How many of the last ones are in no segment yet."""

    def __len__(self) -> int:
        return len(self.inputs)

    def part(self, start: int, stop: int, uncut: int = 0) -> _Steps:
        return _Steps(
            self.inputs[start:stop],
            self.factors[start:stop],
            self.captions[start:stop],
            self.first_step + start,
            self.episode_id,
            uncut,
        )

    def is_followed_by(self, more: _Steps) -> bool:
        """Not so where a game was reset in between, or rollouts were lost."""
        return self.episode_id == more.episode_id and self.first_step + len(self) == more.first_step

    def followed_by(self, more: _Steps) -> _Steps:
        return _Steps(
            np.concatenate([self.inputs, more.inputs]),
            np.concatenate([self.factors, more.factors]),
            np.concatenate([self.captions, more.captions]),
            self.first_step,
            self.episode_id,
            self.uncut + len(more),
        )


@dataclass(frozen=True, eq=False)
class _Cut:
    steps: _Steps
    task: int
    ended: bool


class Segmenter:
    """Segments of equal length, one after the other, from the beginning of each episode.

    What is left at an episode's end becomes a segment with the steps before it, so that it is as long as the others;
    only episodes shorter than a segment give shorter ones. The end, where most that matters happens, is thus never in
    a segment too short to compare.

    Args:
        inputs: what the reward model reads.
        table: the factors.
        segment_steps: length; None = whole episodes.
        num_tasks: game b plays task ``b % num_tasks``.
    """

    def __init__(self, inputs: StepInputs, table: FactorTable, segment_steps: int | None, num_tasks: int = 1) -> None:
        self._inputs, self._table = inputs, table
        self._length, self._num_tasks = segment_steps, num_tasks

    def initial_state(self, num_games: int) -> State:
        """Nothing has been played in any game."""
        return {"games": [None] * num_games}

    def cut(self, rollout: Rollout, state: State) -> tuple[Segments | None, State]:
        """Segments that a rollout completes; None if it completes none.

        Args:
            rollout: continues where the one before it ended.
            state: of the call before.
        """
        games = [None if game is None else _Steps(**game) for game in state["games"]]
        T, B = rollout.env_reward.shape
        inputs, factors = self._inputs(rollout), self._table.per_step(rollout)
        captions = np.zeros((T, B), np.int64) if rollout.caption_id is None else rollout.caption_id
        cuts: list[_Cut] = []
        for b in range(B):
            for start, stop, ended in _stretches(rollout.done[:, b]):
                steps = _Steps(
                    inputs[start:stop, b],
                    factors[start:stop, b],
                    captions[start:stop, b],
                    int(rollout.step_in_episode[start, b]),
                    int(rollout.episode_id[start, b]),
                    stop - start,
                )
                before = games[b]
                if before is not None and before.is_followed_by(steps):
                    steps = before.followed_by(steps)
                games[b], complete = self._divided(steps, ended=ended)
                cuts.extend(_Cut(s, b % self._num_tasks, is_last) for s, is_last in complete)
        return self._segments(cuts), {"games": [None if game is None else dict(vars(game)) for game in games]}

    def _divided(self, steps: _Steps, *, ended: bool) -> tuple[_Steps | None, list[tuple[_Steps, bool]]]:
        """What is kept of an episode's steps, and the segments that are complete, each with whether it is the last."""
        length, n = self._length, len(steps)
        if length is None:
            return (None, [(steps, True)]) if ended else (steps, [])
        found = []
        at = n - steps.uncut
        while at + length <= n:
            found.append(steps.part(at, at + length))
            at += length
        if not ended:
            start = max(0, at - length)  # the steps before, should the episode end within the next segment
            return _copied(steps.part(start, n, uncut=n - at)), [(segment, False) for segment in found]
        if at < n:
            found.append(steps.part(max(0, n - length), n))
        return None, [(segment, i == len(found) - 1) for i, segment in enumerate(found)]

    def _segments(self, cuts: list[_Cut]) -> Segments | None:
        if not cuts:
            return None
        lengths = np.array([len(cut.steps) for cut in cuts], np.int64)
        return Segments(
            inputs=np.concatenate([cut.steps.inputs for cut in cuts]),
            lengths=lengths,
            factors=self._table.over_segments(np.concatenate([cut.steps.factors for cut in cuts]), lengths),
            episode_id=np.array([cut.steps.episode_id for cut in cuts], np.int64),
            first_step=np.array([cut.steps.first_step for cut in cuts], np.int64),
            ended=np.array([cut.ended for cut in cuts]),
            task=np.array([cut.task for cut in cuts], np.int64),
            caption_id=np.concatenate([cut.steps.captions for cut in cuts]),
        )


def _copied(steps: _Steps) -> _Steps:
    """Independent of the rollout's arrays, which would otherwise stay in memory as long as a few of their steps."""
    arrays = (steps.inputs.copy(), steps.factors.copy(), steps.captions.copy())
    return _Steps(*arrays, steps.first_step, steps.episode_id, steps.uncut)


def _stretches(done: np.ndarray) -> Iterator[tuple[int, int, bool]]:
    """(start, stop, whether its episode ended) of each episode's part of a game's T steps, done bool [T]."""
    start = 0
    for end in np.flatnonzero(done).tolist():
        yield start, end + 1, True
        start = end + 1
    if start < len(done):
        yield start, len(done), False
