"""What every ``RewardModel`` is held to; a user's own can be run through it too.

``check(make, rollout)`` wants a function that builds the model anew and one rollout of a few games in which
episodes end. ``check(make, rollout, lookahead=1)`` is for a model whose reward of a step depends on that many following
steps of its episode: it may leave as many steps before the end of a rollout invalid, and nothing else.
"""

from dataclasses import replace

import numpy as np

from envs.data import FinalObs

_PER_STEP = [
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
]


def _part(rollout, steps, games):
    """Some steps and games of a rollout, as a rollout."""
    t0, t1 = steps
    at = rollout.final_obs.at
    kept = [i for i, (t, b) in enumerate(at) if t0 <= t < t1 and b in games]
    order = {b: i for i, b in enumerate(games)}
    moved = sorted((int(at[i, 0]) - t0, order[int(at[i, 1])], i) for i in kept)
    finals = FinalObs(
        at=np.array([(t, b) for t, b, _ in moved], np.int64).reshape(-1, 2),
        obs={key: x[[i for _, _, i in moved]] for key, x in rollout.final_obs.obs.items()},
    )
    columns = {}
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


def _same(parts, others, where=lambda x: x):
    assert parts.keys() == others.keys()
    for name, part in parts.items():
        np.testing.assert_array_equal(part.valid, where(others[name].valid))
        np.testing.assert_allclose(part.value, where(others[name].value), rtol=1e-6, atol=1e-7)


def _same_up_to_lookahead(parts, whole, cut, lookahead):
    assert parts.keys() == whole.keys()
    for name, part in parts.items():
        lost = whole[name].valid & ~part.valid
        lost[max(0, cut - lookahead) : cut] = False
        assert not lost.any(), f"{name}: steps further than {lookahead} from the cut became invalid"
        assert not (part.valid & ~whole[name].valid).any(), f"{name}: steps became valid by a cut"
        both = part.valid & whole[name].valid
        np.testing.assert_allclose(part.value[both], whole[name].value[both], rtol=1e-6, atol=1e-7)


def check(make, rollout, lookahead=0):
    """Raises AssertionError where a promise of ``envs.protocols.RewardModel`` is broken."""
    T, B = rollout.env_reward.shape
    everyone = list(range(B))
    rollout = _part(rollout, (0, T), everyone)
    model = make()
    whole, _ = model.score(rollout, model.initial_state(B))
    assert set(whole) == set(model.part_names)
    for part in whole.values():
        assert part.value.shape == part.valid.shape == (T, B)
        assert part.value.dtype == np.float32

    # An unbroken episode scores the same as one cut into rollouts.
    for cut in (1, T // 2, T - 1):
        model = make()
        state, pieces = model.initial_state(B), []
        for steps in ((0, cut), (cut, T)):
            parts, state = model.score(_part(rollout, steps, everyone), state)
            pieces.append(parts)
        joined = {
            name: replace(
                whole[name],
                value=np.concatenate([p[name].value for p in pieces]),
                valid=np.concatenate([p[name].valid for p in pieces]),
            )
            for name in whole
        }
        if lookahead:
            _same_up_to_lookahead(joined, whole, cut, lookahead)
        else:
            _same(joined, whole)

    # The order of the games does not matter, nor who plays beside them.
    for games in (everyone[::-1], everyone[:1]):
        model = make()
        parts, _ = model.score(_part(rollout, (0, T), games), model.initial_state(len(games)))
        _same(parts, whole, where=lambda x, games=games: x[:, games])

    # What was learned survives a checkpoint.
    copy = make()
    copy.load_state_dict(model.state_dict())
    assert copy.version == model.version
    parts, _ = copy.score(rollout, copy.initial_state(B))
    _same(parts, whole)

    # Memory resets where episodes end: a later episode scores as if it were the first.
    ends = [(int(t), int(b)) for t, b in rollout.final_obs.at if t < T - 1]
    assert ends, "the rollout must have an episode that ends before its last step"
    for t, b in ends:
        model = make()
        parts, _ = model.score(_part(rollout, (t + 1, T), [b]), model.initial_state(1))
        _same(parts, whole, where=lambda x, t=t, b=b: x[t + 1 :, [b]])
