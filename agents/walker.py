"""A walker: goes shortest ways to squares that it draws, for logs of play that no reward has shaped."""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from envs.glyphs import CLASS_OF_GLYPH, COLS, GLYPH_CLASSES, ROWS, STONE
from envs.protocols import GamesSpec, Noise, PolicyStep
from envs.spec import MOVES

_BLOCKED, _OPEN, _STRAIGHT, _STAIRS = range(4)
"""What a square is to a walker: in or out of a door that is open one moves straight only."""
_IMPASSABLE = ("unseen", "wall", "statue", "closed_door", "trap", "lava", "water", "boulder", "monster")
_OPEN_DOORS = (STONE + 13, STONE + 14)


def _kinds() -> np.ndarray:
    names = np.array(GLYPH_CLASSES)[CLASS_OF_GLYPH]
    kinds = np.where(np.isin(names, _IMPASSABLE), _BLOCKED, _OPEN).astype(np.uint8)
    kinds[names == "stairs_down"] = _STAIRS
    kinds[list(_OPEN_DOORS)] = _STRAIGHT
    return kinds


_KIND_OF_GLYPH = _kinds()
_FARTHEST = ROWS * COLS
"""More moves than any way has."""
_MAPS_KEPT = 512
"""Maps whose ways are remembered."""


class Maze:
    """Where one can walk on a map, and how far it is.

    Args:
        kinds: uint8 [squares], what each is.
        moves: (action, columns, rows) of each move.
        stairs: whether one may step on stairs down.
    """

    def __init__(self, kinds: np.ndarray, moves: Sequence[tuple[int, int, int]], *, stairs: bool) -> None:
        kind = kinds.tolist()
        self.stairs = [square for square, k in enumerate(kind) if k == _STAIRS]
        """The squares with stairs down."""
        self.ways: dict[int, list[tuple[int, int]]] = {}
        """``{square: (action, square it leads to) of each move}``."""
        self.onto_stairs: dict[int, frozenset[int]] = {}
        """``{square: actions that lead onto stairs down}``, where there are any."""
        self._fields: dict[int, array[int]] = {}
        for square, here in enumerate(kind):
            if here == _BLOCKED:
                continue
            found = [(action, there, kind[there]) for action, there in _around(square, moves, kind)]
            onto = frozenset(action for action, _, k in found if k == _STAIRS)
            if onto:
                self.onto_stairs[square] = onto
            self.ways[square] = [(action, there) for action, there, k in found if stairs or k != _STAIRS]

    def field(self, target: int) -> array[int]:
        """Fewest moves from every square to a target, -1 where there is no way."""
        found = self._fields.get(target)
        if found is None:
            found = self._fields[target] = self._measure(target)
        return found

    def _measure(self, target: int) -> array[int]:
        # Outwards from the target: what forbids a move forbids its opposite.
        field = array("h", [-1]) * (ROWS * COLS)
        field[target] = steps = 0
        front = [target]
        while front:
            steps += 1
            found = []
            for square in front:
                for _, there in self.ways[square]:
                    if field[there] < 0:
                        field[there] = steps
                        found.append(there)
            front = found
        return field

    def within(self, square: int, steps: int | None) -> list[int]:
        """The squares from which a square can be reached in so many moves (None: any number), itself left out."""
        farthest = _FARTHEST if steps is None else steps
        return [there for there, distance in enumerate(self.field(square)) if 0 < distance <= farthest]

    def first_moves(self, square: int, target: int) -> list[int]:
        """Actions that begin a shortest way; none where there is no way, or it is behind one."""
        field = self.field(target)
        nearer = field[square] - 1
        return [action for action, there in self.ways[square] if field[there] == nearer] if nearer >= 0 else []


def _around(square: int, moves: Sequence[tuple[int, int, int]], kind: Sequence[int]) -> list[tuple[int, int]]:
    """(action, square) of the moves that lead somewhere."""
    row, column = divmod(square, COLS)
    found = []
    for action, dx, dy in moves:
        x, y = column + dx, row + dy
        if not (0 <= x < COLS and 0 <= y < ROWS):
            continue
        there = y * COLS + x
        ends = (kind[square], kind[there])
        if kind[there] != _BLOCKED and not (dx and dy and _STRAIGHT in ends):
            found.append((action, there))
    return found


def _seen(obs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What each square is, uint8 [B, squares], and where the heroes stand, int64 [B]."""
    num_games = len(obs["blstats"])
    kinds = _KIND_OF_GLYPH[obs["glyphs"].reshape(num_games, -1)]
    here = (obs["blstats"][:, 1] * COLS + obs["blstats"][:, 0]).astype(np.int64)
    kinds[np.arange(num_games), here] = _OPEN
    return kinds, here


class Walker:
    """Goes shortest ways, each move among the shortest ones equally likely, to squares that it draws on its way.

    For levels whose map is known from the beginning (``premapped``); it walks around monsters, traps, boulders and
    closed doors. Its memory float32 [B, 2] holds the square that it goes to, plus 1 (0: none yet), and the moves made
    on the way there. ``log_prob`` is exact, given that memory.

    Args:
        spec: of the games; they must show ``glyphs`` and ``blstats``.
        epsilon: share of actions that are drawn among all of them, equally likely.
        trip_steps: squares are drawn among those that can be reached in so many moves, and another one after so many
            actions; None = among all, and kept until it is there.
        to_stairs: go to the stairs down. Else it never steps on them.

    Raises:
        ValueError: the games do not show what it looks at or lack a move, or an option is out of range.
    """

    version = 0

    def __init__(
        self, spec: GamesSpec, *, epsilon: float = 0.2, trip_steps: int | None = None, to_stairs: bool = False
    ) -> None:
        if not 0 <= epsilon <= 1:
            raise ValueError(f"the walker's epsilon is a share from 0 to 1, not {epsilon}")
        if trip_steps is not None and trip_steps < 1:
            raise ValueError(f"the walker's trips need at least 1 step, not {trip_steps}")
        for key in ("glyphs", "blstats"):
            if key not in spec.obs:
                raise ValueError(f"the walker looks at '{key}', which these games do not show")
        if missing := [name for name in MOVES if name not in spec.action_names]:
            raise ValueError(f"the walker makes all eight moves, and these games have no action '{missing[0]}'")
        self._epsilon, self._trip_steps, self._to_stairs = epsilon, trip_steps, to_stairs
        self._actions = range(spec.num_actions)
        self._moves = [(spec.action_names.index(name), dx, dy) for name, (dx, dy) in MOVES.items()]
        self._mazes: OrderedDict[bytes, Maze] = OrderedDict()

    def initial_state(self, num_games: int) -> np.ndarray:
        """Zeros float32 [B, 2]: nowhere to go yet."""
        return np.zeros((num_games, 2), np.float32)

    def act(
        self,
        obs: Mapping[str, np.ndarray],
        recurrent_state: np.ndarray | None,
        action_mask: np.ndarray | None,
        noise: Noise,
        *,
        deterministic: bool = False,
    ) -> PolicyStep:
        """One move in every game; ``deterministic`` goes the first of the shortest ways, without noise."""
        num_games = len(obs["blstats"])
        kinds, here = _seen(obs)
        memory = self.initial_state(num_games) if recurrent_state is None else recurrent_state.copy()
        drawn = noise.uniform(3).tolist()
        actions, log_prob = np.zeros(num_games, np.int64), np.zeros(num_games, np.float32)
        for b, square in enumerate(here.tolist()):
            maze = self._maze(kinds[b])
            explore, which, where = drawn[b]
            target = self._target(maze, square, memory[b], where)
            first = [] if target is None else maze.first_moves(square, target)
            allowed = self._allowed(maze, square, None if action_mask is None else action_mask[b])
            first = [action for action in first if action in allowed]
            actions[b], probability = self._choose(first, allowed, explore, which, deterministic=deterministic)
            log_prob[b] = math.log(probability)
        return PolicyStep(actions=actions, recurrent_state=memory, log_prob=log_prob)

    def steps_to_stairs(self, obs: Mapping[str, np.ndarray]) -> list[int]:
        """Fewest moves from the hero to the nearest stairs down of each game; -1 where none can be reached."""
        kinds, here = _seen(obs)
        found = []
        for kind, square in zip(kinds, here.tolist(), strict=True):
            maze = self._maze(kind)
            ways = [steps for stairs in maze.stairs if (steps := maze.field(stairs)[square]) >= 0]
            found.append(min(ways, default=-1))
        return found

    def _maze(self, kinds: np.ndarray) -> Maze:
        key = kinds.tobytes()
        maze = self._mazes.get(key)
        if maze is None:
            maze = self._mazes[key] = Maze(kinds, self._moves, stairs=self._to_stairs)
            if len(self._mazes) > _MAPS_KEPT:
                self._mazes.popitem(last=False)
        return maze

    def _target(self, maze: Maze, square: int, memory: np.ndarray, level: float) -> int | None:
        """Where to go from a square; writes it to the game's memory."""
        if self._to_stairs and maze.stairs:
            return min(maze.stairs, key=lambda stairs: maze.field(stairs)[square] % _FARTHEST)  # -1 is farthest
        target, steps = int(memory[0]) - 1, int(memory[1])
        is_over = steps == self._trip_steps or target in (-1, square) or target not in maze.ways
        if is_over or maze.field(target)[square] < 0:
            reachable, steps = maze.within(square, self._trip_steps), 0
            if not reachable:
                memory[:] = 0
                return None
            target = reachable[int(level * len(reachable))]
        memory[:] = target + 1, steps + 1
        return target

    def _allowed(self, maze: Maze, square: int, mask: np.ndarray | None) -> Sequence[int]:
        """Actions that noise may take: those that there are, but for moves onto stairs that it should not take."""
        onto = frozenset() if self._to_stairs else maze.onto_stairs.get(square, frozenset())
        if not onto and mask is None:
            return self._actions
        return [action for action in self._actions if action not in onto and (mask is None or mask[action])]

    def _choose(
        self, first: Sequence[int], allowed: Sequence[int], explore: float, which: float, *, deterministic: bool
    ) -> tuple[int, float]:
        """An action, and how likely it was."""
        epsilon = self._epsilon if first else 1.0
        if deterministic and first:
            action = first[0]
        else:
            among = allowed if explore < epsilon else first
            action = among[int(which * len(among))]
        probability = epsilon * (action in allowed) / len(allowed)
        return action, probability + ((1 - epsilon) / len(first) if action in first else 0)
