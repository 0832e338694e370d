import numpy as np
import pytest
import torch
from nle import nethack

from agents.config import (
    AutoregressiveConfig,
    CriticConfig,
    Decoding,
    EncoderConfig,
    FactorisedConfig,
    MaskedConfig,
    OneStepConfig,
    PlannerConfig,
)
from agents.evaluate import EpisodeNoise
from agents.offline import PlanningModel
from agents.planner import LoggedWindows, PlanningPolicy
from envs.data import EpisodeSeeds
from envs.protocols import GamesSpec, ObsSpec

MOVES = ("north", "east", "south", "west", "northeast", "southeast", "southwest", "northwest")
ACTIONS = (*MOVES, "search")
OBS = {
    "blstats": ObsSpec(shape=(27,), dtype=np.dtype(np.int64)),
    "glyphs": ObsSpec(shape=(21, 79), dtype=np.dtype(np.int16)),
    "message": ObsSpec(shape=(256,), dtype=np.dtype(np.uint8)),
}
SPEC = GamesSpec(tasks=("a",), obs=OBS, action_names=ACTIONS)
STAIRS = nethack.GLYPH_CMAP_OFF + 24
HORIZON, EXECUTED = 6, 3
QUICK = Decoding(kind="passes", passes=2)


def planner(config=None, head=None, seed=0, knows_goals=True, **more):
    torch.manual_seed(seed)
    head = head or MaskedConfig(horizon=HORIZON, width=32, layers=1)
    critic = CriticConfig(hidden=32, chunk_steps=EXECUTED, reward="goal" if knows_goals else "env")
    model = PlanningModel(head, critic, EncoderConfig(hidden=32), {"blstats": OBS["blstats"]}, len(ACTIONS))
    W = 16
    generator = np.random.default_rng(seed)
    windows = LoggedWindows(
        obs={"blstats": torch.zeros(W, 27, dtype=torch.int64)},
        condition={name: torch.zeros(W, 2, dtype=torch.int64) for name in ("hero", "goal")}
        | {"return_bin": torch.full((W,), -1)},
        plans=torch.from_numpy(generator.integers(0, len(ACTIONS), (W, head.horizon))),
        critic_goal=torch.ones(W, 2, dtype=torch.int64),
        chunk=torch.from_numpy(generator.integers(0, len(ACTIONS), (W, EXECUTED))),
        weight=torch.ones(W),
    )
    config = config or PlannerConfig(candidates=4, decoding=QUICK, goal="asked")
    return PlanningPolicy(model, config, SPEC, windows, knows_goals=knows_goals, keeps_plans=True, **more)


def screens(num_games, hero=(10, 5), hp=12, message=b""):
    obs = {key: np.zeros((num_games, *spec.shape), spec.dtype) for key, spec in OBS.items()}
    obs["blstats"][:, :2] = hero
    obs["blstats"][:, 10] = hp
    obs["glyphs"][:] = nethack.GLYPH_CMAP_OFF
    obs["glyphs"][:, 7, 30] = STAIRS
    obs["message"][:, : len(message)] = np.frombuffer(message, np.uint8)
    return obs


def noise(num_games, first=0):
    found = EpisodeNoise(num_games)
    for game in range(num_games):
        found.begin(game, EpisodeSeeds(first + game, 0, 0))
    return found


HEADS = [
    MaskedConfig(horizon=HORIZON, width=32, layers=1),
    AutoregressiveConfig(horizon=HORIZON, width=32, layers=1),
    FactorisedConfig(horizon=HORIZON, width=32, layers=1),
    OneStepConfig(width=32, layers=1),
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
@pytest.mark.parametrize("mode", ["none", "best_of_n", "fk", "svdd", "svdd_r"])
def test_every_head_plans_in_every_mode_it_can(head, mode):
    config = PlannerConfig(mode=mode, candidates=4, decoding=QUICK)
    if head.kind == "autoregressive" and mode not in ("none", "best_of_n"):
        with pytest.raises(ValueError, match="autoregressive"):
            planner(config, head)
        return
    policy = planner(config, head)
    acted = policy.act(screens(2), policy.initial_state(2), None, noise(2))
    assert acted.actions.shape == (2,) and (acted.actions < len(ACTIONS)).all()
    assert acted.head_record["planned"].all()
    assert acted.head_record["candidates"].shape == (2, 1 if mode == "none" else 4, head.horizon)


def test_a_plan_is_executed_for_some_steps_and_then_made_anew():
    policy = planner(PlannerConfig(candidates=4, decoding=QUICK, reactive=False))
    memory, noises = policy.initial_state(1), noise(1)
    planned = []
    for t in range(7):
        acted = policy.act(screens(1, hero=(10 + t, 5)), memory, None, noises)
        memory = acted.recurrent_state
        if acted.head_record:
            plan = acted.head_record["candidates"][0, acted.head_record["taken"][0]]
            planned.append(t)
        assert acted.actions[0] == plan[t - planned[-1]]
    assert planned[0] == 0 and planned[1] <= EXECUTED


@pytest.mark.parametrize(
    ("what", "change"),
    [("hurt", {"hp": 11}), ("told", {"message": b"You hear a door open."}), ("stuck", {"hero": (10, 5)})],
)
def test_something_that_comes_between_ends_the_plan(what, change):
    policy = planner()
    state = policy.initial_state(1)
    moving = np.zeros_like(state)
    moving[0, :6] = (1, 1, 12, 10, 5, 2)  # second action of a plan, after a move from column 10, row 5
    undisturbed = {"hero": (11, 5)}
    assert not policy.act(screens(1, **undisturbed), moving, None, noise(1)).head_record
    assert policy.act(screens(1, **(undisturbed | change)), moving, None, noise(1)).head_record, what


def test_one_games_planning_does_not_touch_another():
    policy = planner()
    memory = policy.initial_state(3)
    memory[1, :6] = (1, 1, 12, 9, 5, 1)
    together = noise(3)
    first = policy.act(screens(3), memory, None, together)
    assert first.head_record["planned"].tolist() == [True, False, True]
    alone = noise(1, first=1)
    # Game 1 has drawn nothing: its next plan is that of a game which has just begun to draw.
    memory[1] = 0
    again = policy.act(screens(3), memory, None, together)
    single = policy.act(screens(1), policy.initial_state(1), None, alone)
    np.testing.assert_array_equal(again.head_record["candidates"][1], single.head_record["candidates"][0])


def test_half_of_the_candidates_may_be_free_of_the_goal():
    mixed, asked, free = (
        planner(PlannerConfig(candidates=n, decoding=QUICK, goal=goal, warm_start=False, refuse=0))
        for n, goal in ((8, "mixed"), (4, "asked"), (4, "free"))
    )
    found = [p.act(screens(2), p.initial_state(2), None, noise(2)).head_record for p in (mixed, asked, free)]
    # The random numbers of the first half are those of four candidates that are asked.
    np.testing.assert_array_equal(found[0]["candidates"][:, :4], found[1]["candidates"])
    assert found[0]["candidates"].shape == (2, 8, HORIZON)
    best = np.where(found[0]["refused"], -np.inf, found[0]["scores"]).argmax(1)
    np.testing.assert_array_equal(found[0]["taken"], best)
    with pytest.raises(ValueError, match="7 is odd"):
        PlannerConfig(candidates=7, goal="mixed")


def test_plans_go_on_with_what_is_left_of_the_last():
    policy = planner(PlannerConfig(candidates=4, decoding=QUICK, reactive=False))
    memory = policy.initial_state(1)
    memory[0, :6] = (1, EXECUTED, 12, 9, 5, 1)
    memory[0, 7:] = [0, 1, 2, 3, 4, 5]
    acted = policy.act(screens(1), memory, None, noise(1))
    assert acted.head_record["candidates"][0, 0, :3].tolist() == [3, 4, 5]


def test_unlikely_plans_are_refused_unless_all_are():
    strict = planner(PlannerConfig(candidates=64, decoding=QUICK, refuse=0.5))
    acted = strict.act(screens(1), strict.initial_state(1), None, noise(1))
    record = {name: x[0] for name, x in acted.head_record.items()}
    assert record["refused"].any() and not record["refused"].all()
    allowed = np.where(record["refused"], -np.inf, record["scores"])
    assert record["taken"] == allowed.argmax()
    strict._least_likely = np.inf
    acted = strict.act(screens(1), strict.initial_state(1), None, noise(1))
    assert acted.head_record["refused"].all()
    assert acted.head_record["taken"][0] == acted.head_record["scores"][0].argmax()


def test_a_move_that_was_in_vain_is_not_tried_again_from_there():
    policy = planner(PlannerConfig(candidates=64, decoding=QUICK, refuse=0, warm_start=False))
    memory, noises, tried = policy.initial_state(1), noise(1), []
    for _ in range(6):
        acted = policy.act(screens(1), memory, None, noises)  # the hero never gets anywhere
        memory, (action,) = acted.recurrent_state, acted.actions
        tried.append(ACTIONS[action])
    moves = [name for name in tried if name in MOVES]
    assert len(moves) == len(set(moves)) > 1
    # Elsewhere they may be.
    policy.act(screens(1, hero=(11, 5)), memory, None, noises)
    elsewhere = policy.act(screens(1, hero=(11, 5)), memory, None, noises).recurrent_state
    assert elsewhere[0, 6] == 0


def test_masked_actions_are_never_planned():
    policy = planner()
    mask = np.zeros((2, len(ACTIONS)), bool)
    mask[0, 3] = mask[1, [2, 8]] = True
    acted = policy.act(screens(2), policy.initial_state(2), mask, noise(2))
    for game, allowed in enumerate([{3}, {2, 8}]):
        assert set(acted.head_record["candidates"][game].ravel().tolist()) <= {*allowed, len(ACTIONS)}


def test_plans_to_the_stairs_need_the_map():
    torch.manual_seed(0)
    model = PlanningModel(HEADS[0], CriticConfig(), EncoderConfig(hidden=32), {"blstats": OBS["blstats"]}, len(ACTIONS))
    blind = GamesSpec(tasks=("a",), obs={"blstats": OBS["blstats"]}, action_names=ACTIONS)
    with pytest.raises(ValueError, match="need the observation 'glyphs'"):
        PlanningPolicy(model, PlannerConfig(), blind, None, knows_goals=True)
