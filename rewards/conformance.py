"""What every ``RewardModel`` is held to; run your own through it, as ``gymnasium.utils.env_checker`` does for games.

    from rewards.conformance import check_reward_model, sample_rollout

    check_reward_model(lambda: MyReward(), sample_rollout())

A model whose reward of a step depends on the following steps of its episode is checked with ``lookahead`` of as many:
it may leave that many steps before the end of a rollout invalid, and nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from envs.captions import caption_id
from envs.data import EndStatus, FinalObs, RewardOutput, RewardPart, Rollout
from envs.protocols import RewardModel
from envs.schema import COLUMNS, check_names

_PER_STEP = (
    "actions",
    "env_reward",
    "terminated",
    "truncated",
    "end_status",
    "policy_version",
    "episode_id",
    "step_in_episode",
    "caption_id",
    "caption_count",
)
_MESSAGES = ("You see here a key.", "The door opens.", "Ouch!")


def check_reward_model(make: Callable[[], RewardModel], rollout: Rollout, lookahead: int = 0) -> None:
    """Hold a reward model to the promises of ``envs.protocols.RewardModel``.

    Args:
        make: builds the model anew, always the same.
        rollout: of a few games, [T, B] with T of at least 4, in which an episode ends before the last step.
        lookahead: following steps that a reward depends on.

    Raises:
        AssertionError: a promise is broken; says which.
        ValueError: the rollout shows too little.
    """
    T, B = rollout.env_reward.shape
    everyone = list(range(B))
    if T < 4 or not (rollout.final_obs.at[:, 0] < T - 1).any():
        raise ValueError("the rollout must have 4 steps, and an episode that ends before its last step")
    rollout = cut_rollout(rollout, (0, T), everyone)
    whole = _check_parts(make(), rollout)
    _check_cuts(make, rollout, whole, lookahead)
    _check_batch_order(make, rollout, whole)
    _check_checkpoint(make, rollout, whole)
    _check_resets(make, rollout, whole)
    _check_evidence(make(), rollout)


def _check_parts(model: RewardModel, rollout: Rollout) -> Mapping[str, RewardPart]:
    """Parts have the names that were promised, and the rollout's shape."""
    shape = rollout.env_reward.shape
    whole, _ = model.score(rollout, model.initial_state(shape[1]))
    assert set(whole) == set(model.part_names), f"part_names promises {model.part_names}, score gives {list(whole)}"
    for name, part in whole.items():
        assert part.value.shape == part.valid.shape == shape, f"{name}: is {part.value.shape}, the rollout {shape}"
        assert part.value.dtype == np.float32, f"{name}: is {part.value.dtype}, not float32"
    return whole


def _check_cuts(
    make: Callable[[], RewardModel], rollout: Rollout, whole: Mapping[str, RewardPart], lookahead: int
) -> None:
    """An unbroken episode scores the same as one cut into rollouts."""
    T, B = rollout.env_reward.shape
    for cut in (1, T // 2, T - 1):
        model = make()
        state, pieces = model.initial_state(B), []
        for steps in ((0, cut), (cut, T)):
            parts, state = model.score(cut_rollout(rollout, steps, range(B)), state)
            pieces.append(parts)
        joined = {
            name: replace(
                whole[name],
                value=np.concatenate([piece[name].value for piece in pieces]),
                valid=np.concatenate([piece[name].valid for piece in pieces]),
            )
            for name in whole
        }
        if lookahead:
            _check_same_up_to_lookahead(joined, whole, cut, lookahead)
        else:
            _check_same(joined, whole, f"cut before step {cut}")


def _check_batch_order(make: Callable[[], RewardModel], rollout: Rollout, whole: Mapping[str, RewardPart]) -> None:
    """The order of the games does not matter, nor which play beside them."""
    T, B = rollout.env_reward.shape
    for games in (list(range(B))[::-1], [0]):
        model = make()
        parts, _ = model.score(cut_rollout(rollout, (0, T), games), model.initial_state(len(games)))
        _check_same(parts, {name: _games(part, games) for name, part in whole.items()}, f"games {games} alone")


def _check_checkpoint(make: Callable[[], RewardModel], rollout: Rollout, whole: Mapping[str, RewardPart]) -> None:
    """What was learned survives a checkpoint."""
    model, copy = make(), make()
    copy.load_state_dict(model.state_dict())
    copy.load_own_state(model.own_state())
    assert copy.version == model.version, f"version {model.version} became {copy.version} in a checkpoint"
    parts, _ = copy.score(rollout, copy.initial_state(rollout.num_games))
    _check_same(parts, whole, "after a checkpoint")


def _check_resets(make: Callable[[], RewardModel], rollout: Rollout, whole: Mapping[str, RewardPart]) -> None:
    """Memory resets where episodes end: a later episode scores as if it were the first."""
    T = len(rollout.env_reward)
    for t, b in [(int(t), int(b)) for t, b in rollout.final_obs.at if t < T - 1]:
        model = make()
        parts, _ = model.score(cut_rollout(rollout, (t + 1, T), [b]), model.initial_state(1))
        later = {
            name: replace(part, value=part.value[t + 1 :, [b]], valid=part.valid[t + 1 :, [b]])
            for name, part in whole.items()
        }
        _check_same(parts, later, f"game {b} from step {t + 1}, after an end")


def _check_evidence(model: RewardModel, rollout: Rollout) -> None:
    """Evidence can be asked for after each score, crosses processes, and the memory that it returns goes on."""
    state = model.initial_state(rollout.num_games)
    for _ in range(2):
        parts, state = model.score(rollout, state)
        streams = np.zeros((*rollout.env_reward.shape, 1), np.float32)
        found, state = model.evidence(rollout, RewardOutput(streams=streams, parts=parts), state)
        try:
            pickle.dumps(found)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise AssertionError(f"evidence cannot be sent to another process: {error}") from error
    model.close()


def cut_rollout(rollout: Rollout, steps: tuple[int, int], games: Sequence[int]) -> Rollout:
    """Some steps and games of a rollout, as a rollout.

    Args:
        rollout: [T, B].
        steps: the first, and the one after the last.
        games: in their new order.
    """
    games = list(games)
    t0, t1 = steps
    at = rollout.final_obs.at
    kept = [i for i, (t, b) in enumerate(at) if t0 <= t < t1 and b in games]
    order = {b: i for i, b in enumerate(games)}
    moved = sorted((int(at[i, 0]) - t0, order[int(at[i, 1])], i) for i in kept)
    finals = FinalObs(
        at=np.array([(t, b) for t, b, _ in moved], np.int64).reshape(-1, 2),
        obs={key: x[[i for _, _, i in moved]] for key, x in rollout.final_obs.obs.items()},
    )
    columns: dict[str, Any] = {}
    for name in _PER_STEP:
        x = getattr(rollout, name)
        columns[name] = None if x is None else x[t0:t1][:, games]
    return replace(
        rollout,
        obs={key: x[t0 : t1 + 1][:, games] for key, x in rollout.obs.items()},
        features={key: x[t0:t1][:, games] for key, x in rollout.features.items()},
        final_obs=finals,
        values=None,
        log_prob=None,
        head_record={},
        recurrent_state=None,
        action_mask=None,
        **columns,
    )


def _games(part: RewardPart, games: Sequence[int]) -> RewardPart:
    return replace(part, value=part.value[:, list(games)], valid=part.valid[:, list(games)])


def _check_same(parts: Mapping[str, RewardPart], expected: Mapping[str, RewardPart], where: str) -> None:
    assert parts.keys() == expected.keys(), f"{where}: parts are {list(parts)}, not {list(expected)}"
    for name, part in parts.items():
        np.testing.assert_array_equal(part.valid, expected[name].valid, f"{name}, {where}: other steps are valid")
        np.testing.assert_allclose(
            part.value, expected[name].value, rtol=1e-6, atol=1e-7, err_msg=f"{name}, {where}: pays something else"
        )


def _check_same_up_to_lookahead(
    parts: Mapping[str, RewardPart], whole: Mapping[str, RewardPart], cut: int, lookahead: int
) -> None:
    for name, part in parts.items():
        lost = whole[name].valid & ~part.valid
        lost[max(0, cut - lookahead) : cut] = False
        assert not lost.any(), f"{name}: steps further than {lookahead} from the cut became invalid"
        assert not (part.valid & ~whole[name].valid).any(), f"{name}: steps became valid by a cut"
        both = part.valid & whole[name].valid
        np.testing.assert_allclose(part.value[both], whole[name].value[both], rtol=1e-6, atol=1e-7)


def sample_rollout(num_steps: int = 12, num_games: int = 3, seed: int = 1, columns: Sequence[str] = ()) -> Rollout:
    """A rollout to check with: random observations and rewards, captions that come again, episodes that end.

    Args:
        num_steps: T, at least 4.
        num_games: B.
        seed: of everything.
        columns: of the schema, filled with small whole numbers, truth values, or messages.

    Returns:
        Observations ``vector`` float32 [T+1, B, 4], 3 actions, captions; game 0 ends after its second step, the last
        one in the middle, by a time limit.

    Raises:
        ValueError: a column is not in the schema.
    """
    check_names(columns)
    rng = np.random.Generator(np.random.PCG64(seed))
    T, B = num_steps, num_games
    terminated, truncated = np.zeros((T, B), bool), np.zeros((T, B), bool)
    terminated[1, 0], truncated[T // 2, B - 1] = True, True
    done = terminated | truncated
    started = np.zeros((T, B), np.int64)
    started[1:] = done[:-1].cumsum(0)
    step = np.arange(T)[:, None] - np.maximum.accumulate(
        np.where(started != np.roll(started, 1, 0), np.arange(T)[:, None], 0), 0
    )
    ids = np.array([0, *map(caption_id, _MESSAGES)])
    captions = ids[rng.integers(len(ids), size=(T, B))]
    at = np.argwhere(done).astype(np.int64)
    return Rollout(
        obs={"vector": rng.normal(size=(T + 1, B, 4)).astype(np.float32)},
        actions=rng.integers(3, size=(T, B)),
        env_reward=rng.normal(size=(T, B)).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        end_status=np.where(terminated, EndStatus.DEATH, np.where(truncated, EndStatus.ABORTED, 0)).astype(np.int8),
        final_obs=FinalObs(at=at, obs={"vector": rng.normal(size=(len(at), 4)).astype(np.float32)}),
        policy_version=np.zeros((T, B), np.int64),
        episode_id=started * B + np.arange(B),
        step_in_episode=step.astype(np.int32),
        caption_id=captions,
        caption_count=_counts(captions, done),
        features={name: _column(name, rng.integers(0, 20, size=(T, B))) for name in columns},
    )


def _column(name: str, numbers: np.ndarray) -> np.ndarray:
    """Of the field's type, made from numbers [T, B]."""
    match COLUMNS[name].dtype:
        case "int":
            return numbers
        case "bool":
            return numbers % 2 == 0
        case "str":
            return np.array(["", *_MESSAGES])[numbers % (1 + len(_MESSAGES))]


def _counts(captions: np.ndarray, done: np.ndarray) -> np.ndarray:
    """int32 [T, B]: how often each caption came in its episode so far; 0 for silence."""
    counts = np.zeros(captions.shape, np.int32)
    for b in range(captions.shape[1]):
        seen: dict[int, int] = {}
        for t, caption in enumerate(captions[:, b].tolist()):
            if caption:
                seen[caption] = counts[t, b] = seen.get(caption, 0) + 1
            if done[t, b]:
                seen = {}
    return counts
