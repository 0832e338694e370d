"""The reward of programs: conformance, its parts by hand, and what happens when programs fail in training."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs.data import FinalObs, Rollout
from rewards import conformance
from rewards.auto.batches import BATCH
from rewards.auto.config import CompositionConfig, ContainmentConfig, ProgramConfig
from rewards.auto.contained import ContainedProgram
from rewards.auto.engine import (
    MalformedAnswerError,
    ProgramMemoryError,
    ProgramTimeoutError,
    WorkerDiedError,
)
from rewards.auto.program_reward import ProgramReward, Quarantined
from rewards.mix import Ingredient, RewardMix
from rewards.parts import StreamConfig


def _beside(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _beside("fake_engine")

HP = fake.program(
    "def reward(obs, prev_obs, action, info):\n"
    "    return {'goal': int(info['succeeded']) - int(info['died']), 'gain': obs['hp'] - prev_obs['hp']}\n",
    "obs.hp", "prev_obs.hp", "info.succeeded", "info.died", goal="sparse", gain="dense",
)  # fmt: skip
RISKY = fake.program(
    "def reward(obs, prev_obs, action, info):\n    return {'gain': 6 / obs['hp'], 'more': 2, 'most': 3}\n",
    "obs.hp", gain="sparse",
)  # fmt: skip
NUMBER = fake.program("def reward(obs, prev_obs, action, info):\n    return -0.5\n")
UNSTABLE = fake.program("def reward(obs, prev_obs, action, info):\n    return tick()\n")


def _rollout(T=24, B=3, ends=((4, 0), (11, 0), (9, 2)), low=0, seed=0):
    rng = np.random.default_rng(seed)
    done = np.zeros((T, B), bool)
    for end in ends:
        done[end] = True
    cut = done & (rng.random((T, B)) < 0.3)
    at = np.argwhere(done).astype(np.int64).reshape(-1, 2)
    won = done & ~cut & (rng.random((T, B)) < 0.5)
    return Rollout(
        obs={"vector": np.zeros((T + 1, B, 1), np.float32)},
        actions=np.zeros((T, B), np.int64),
        env_reward=won.astype(np.float32),
        terminated=done & ~cut,
        truncated=cut,
        end_status=np.where(cut, -1, np.where(won, 2, done)).astype(np.int8),
        final_obs=FinalObs(at=at, obs={"vector": np.zeros((len(at), 1), np.float32)}),
        policy_version=np.zeros((T, B), np.int64),
        episode_id=np.zeros((T, B), np.int64),
        step_in_episode=np.zeros((T, B), np.int32),
        features={name: rng.integers(low, 4, (T, B)) for name in ("obs.hp", "prev_obs.hp")},
    )


class Bench:
    """A reward of programs whose engines are at hand."""

    def __init__(self, *chain, scripts=None, failure_window=100, max_failure_share=0.3, **config):
        self.config = ProgramConfig(
            composition=CompositionConfig(**{"dense": "budget", "dense_weight": 0.1, "dense_budget": 0.25, **config}),
            containment=ContainmentConfig(failure_window=failure_window, max_failure_share=max_failure_share),
        )
        self.engines = {p.sha: fake.FakeEngine((scripts or {}).get(p.sha)) for p in chain}
        self.reward = ProgramReward(chain, self.config, self._make)

    def _make(self, program):
        return ContainedProgram(program, self.config.containment, self.engines[program.sha])

    def score(self, rollout=None, state=None):
        rollout = _rollout(low=1) if rollout is None else rollout
        parts, state = self.reward.score(rollout, state or self.reward.initial_state(rollout.num_games))
        assert tuple(parts) == self.reward.part_names
        return parts, state

    def calls(self, program):
        return self.engines[program.sha].calls


def _gains(rollout):
    return np.sign(rollout.features["obs.hp"] - rollout.features["prev_obs.hp"])


@pytest.mark.parametrize("dense", ["budget", "potential"])
@pytest.mark.parametrize("values", ["signs", "clipped"])
@pytest.mark.parametrize("chain", [(HP,), (RISKY, HP), (NUMBER,), (UNSTABLE, HP)])
def test_conformance(dense, values, chain):
    conformance.check_reward_model(lambda: Bench(*chain, dense=dense, values=values).reward, _rollout())


def test_conformance_of_a_chain_that_has_run_out():
    def make():
        reward = Bench(HP).reward
        reward.take((HP.sha,))
        return reward

    conformance.check_reward_model(make, _rollout())


def test_parts_are_named_for_the_whole_chain():
    bench = Bench(HP, NUMBER, RISKY)
    labels = ["goal", "gain", "reward", "other"]
    assert bench.reward.part_names == ("program", *(f"program/{x}{raw}" for x in labels for raw in ("", "/raw")))
    assert bench.reward.columns == ("obs.hp", "info.succeeded", "info.died", "prev_obs.hp")
    parts, _ = bench.score()
    assert [name for name, part in parts.items() if part.pays] == ["program"]


def test_a_step_pays_its_goal_and_a_tenth_of_its_gain_within_the_budget():
    rollout = _rollout()
    parts, _ = Bench(HP).score(rollout)
    won, cut = rollout.env_reward > 0, rollout.truncated
    goal = np.where(rollout.done & ~cut, np.where(won, 1, -1), 0)
    np.testing.assert_array_equal(parts["program/goal"].value, goal)
    paid, expected = np.zeros(3), np.zeros_like(goal, float)
    for t, gain in enumerate(_gains(rollout)):
        after = np.clip(paid + 0.1 * gain, -0.25, 0.25)
        expected[t], paid = after - paid, np.where(rollout.done[t], 0, after)
    np.testing.assert_allclose(parts["program/gain"].value, expected, atol=1e-7)
    np.testing.assert_allclose(parts["program"].value, goal + expected, atol=1e-6)
    raw = rollout.features["obs.hp"] - rollout.features["prev_obs.hp"]
    np.testing.assert_array_equal(parts["program/gain/raw"].value, raw)
    assert parts["program"].valid.all() and not parts["program/other"].value.any()


def test_what_nobody_declared_goes_together_and_only_the_program_pays():
    bench = Bench(RISKY)
    parts, _ = bench.score(_rollout(T=1, ends=(), low=1))
    assert (parts["program/other"].value == np.float32(0.2)).all() and (parts["program/other/raw"].value == 5).all()
    mix = RewardMix([Ingredient(model=bench.reward, config=bench.config)], {"intrinsic": StreamConfig()})
    output, _ = mix.score(_rollout(T=1, ends=(), low=1), mix.initial_state(3))
    assert output.streams[0, :, 0].tolist() == pytest.approx([bench.config.weight * 1.2] * 3)


def test_a_few_failures_are_invalid_and_nothing_more():
    rollout = _rollout()
    bench = Bench(RISKY, HP)
    parts, _ = bench.score(rollout)
    failed = rollout.features["obs.hp"] == 0
    assert 0 < failed.mean() < 0.3
    for part in parts.values():
        np.testing.assert_array_equal(part.valid, ~failed)
        assert not part.value[failed].any()
    assert bench.reward.quarantines == [] and bench.reward.version == 0


# ---- quarantine


FAILURES = {
    "timeout": ProgramTimeoutError("too slow"),
    "memory": ProgramMemoryError("too much"),
    "malformed": MalformedAnswerError("no answer"),
}


@pytest.mark.parametrize("code", FAILURES)
def test_a_program_that_fails_is_quarantined_and_the_batch_scored_anew(code):
    bench = Bench(RISKY, HP, scripts={RISKY.sha: {1: FAILURES[code], 2: FAILURES[code]}})
    rollout = _rollout(low=1)
    first, state = bench.score(rollout)
    again, state = bench.score(rollout, state)
    assert bench.reward.program == HP and bench.reward.version == 1
    why = str(FAILURES[code])
    event = Quarantined(scorer="learner", sha=RISKY.sha, code=code, why=why, fallback=HP.sha, batch=1)
    assert bench.reward.quarantines == [event]
    np.testing.assert_array_equal(np.sign(again["program/gain/raw"].value), _gains(rollout))
    assert again["program"].valid.all() and first["program/gain/raw"].value.min() > 0
    bench.score(rollout, state)
    assert (bench.calls(RISKY), bench.calls(HP)) == (3 if code == "timeout" else 2, 2)
    assert bench.engines[RISKY.sha].closed >= 1


def _always(value):
    def change(answer):
        cells = [value] * len(answer.components["gain"])
        return replace(answer, components={**answer.components, "gain": cells})

    return change


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "72 of the last 72 transitions have no answer; most often, 72 times in this batch: "),
        (float("nan"), "component 'gain' is nan"),
        (1e300, "component 'gain': 1e+300 is beyond 1e+06"),
        ("much", "component 'gain' is a str, not a number"),
    ],
)
def test_too_many_transitions_without_an_answer_are_a_failure(value, words):
    bench = Bench(HP, NUMBER, scripts={HP.sha: {"all": _always(value)}}, failure_window=50)
    parts, _ = bench.score()
    (event,) = bench.reward.quarantines
    assert (event.sha, event.code, event.fallback, event.batch) == (HP.sha, "failures", NUMBER.sha, 0)
    assert words in event.why
    assert parts["program"].valid.all() and (parts["program/reward/raw"].value == -0.5).all()


def test_a_fallback_does_not_answer_for_the_failures_before_it():
    bench = Bench(HP, NUMBER, scripts={HP.sha: {"all": _always("much")}}, failure_window=2000)
    for _ in range(2):
        bench.score(_rollout(T=200, low=1))
    assert bench.reward.program == NUMBER and len(bench.reward.quarantines) == 1


def test_failures_are_counted_over_rollouts_and_over_a_checkpoint():
    bench = Bench(HP, scripts={HP.sha: {"all": _always(None), 1: _always("much")}}, failure_window=144)
    bench.score()
    assert not bench.score()[0]["program"].valid.any()  # 72 of 144
    assert bench.reward.quarantines[0].batch == 1
    for share, left in ((0.5, HP), (0.4, None)):
        bench = Bench(HP, scripts={HP.sha: {0: _always("much")}}, failure_window=144, max_failure_share=share)
        bench.score()
        copy = Bench(HP, failure_window=144, max_failure_share=share)
        copy.reward.load_own_state(bench.reward.own_state())
        copy.score()
        assert copy.reward.program == left


def test_a_program_that_gives_equal_inputs_different_values_is_quarantined():
    bench = Bench(UNSTABLE, NUMBER)
    parts, _ = bench.score()
    (event,) = bench.reward.quarantines
    assert (event.sha, event.code, event.batch) == (UNSTABLE.sha, "nondeterministic", 0)
    assert (parts["program/reward/raw"].value == -0.5).all()


def test_what_engines_say_cannot_play_tricks_on_a_terminal():
    bench = Bench(HP, scripts={HP.sha: {0: MalformedAnswerError("\x1b[2J" + "long " * 999)}})
    bench.score()
    (event,) = bench.reward.quarantines
    assert event.why.startswith("\\x1b[2Jlong") and len(event.why) < 250


def test_values_too_large_for_a_part_are_shown_at_its_limit():
    config = ProgramConfig(
        containment=ContainmentConfig(max_value=1e300),
        composition=CompositionConfig(dense="budget", dense_weight=0.1),
    )
    huge = fake.program("def reward(obs, prev_obs, action, info):\n    return 1e200\n")
    reward = ProgramReward([huge], config, lambda p: ContainedProgram(p, config.containment, fake.FakeEngine()))
    parts, _ = reward.score(_rollout(T=1, ends=()), reward.initial_state(3))
    assert (parts["program/reward/raw"].value == np.finfo(np.float32).max).all()
    assert (parts["program"].value == np.float32(0.1)).all()


MACHINES_DOING = {"died": WorkerDiedError("killed"), "timeout": ProgramTimeoutError("suspended")}


@pytest.mark.parametrize("code", MACHINES_DOING)
def test_one_death_or_timeout_in_a_rollout_is_forgiven(code):
    bench = Bench(HP, NUMBER, scripts={HP.sha: {0: MACHINES_DOING[code], 2: MACHINES_DOING[code]}})
    expected, _ = Bench(HP).score()
    for _ in range(2):
        parts, _ = bench.score()
        np.testing.assert_array_equal(parts["program"].value, expected["program"].value)
    assert bench.reward.quarantines == [] and bench.reward.program == HP
    assert (bench.calls(HP), bench.engines[HP.sha].loads) == (4, 3)


def test_rollouts_are_run_in_batches_of_which_one_is_forgiven():
    rollout = _rollout(T=1500, low=1)
    slow = ProgramTimeoutError("slow")
    bench = Bench(HP, NUMBER, scripts={HP.sha: {1: slow}})
    parts, _ = bench.score(rollout)
    assert bench.calls(HP) == -(-rollout.env_reward.size // BATCH) + 1 == 4
    raw = rollout.features["obs.hp"] - rollout.features["prev_obs.hp"]
    np.testing.assert_array_equal(parts["program/gain/raw"].value, raw)
    assert bench.reward.quarantines == []
    bench = Bench(HP, NUMBER, scripts={HP.sha: {0: slow, 2: slow}})  # of two batches one each
    bench.score(rollout)
    assert [event.code for event in bench.reward.quarantines] == ["timeout"]


def test_a_worker_that_dies_twice_in_a_batch_is_the_programs_fault():
    bench = Bench(HP, NUMBER, scripts={HP.sha: {0: WorkerDiedError("killed"), 1: WorkerDiedError("again")}})
    parts, _ = bench.score()
    (event,) = bench.reward.quarantines
    assert (event.code, event.why, event.fallback) == ("died", "again", NUMBER.sha) and bench.calls(HP) == 2
    assert parts["program"].valid.all()


def test_a_program_that_cannot_be_loaded_is_quarantined():
    bench = Bench(HP, NUMBER, scripts={HP.sha: {"load": ProgramTimeoutError("module level")}})
    bench.score()
    assert bench.reward.quarantines[0].code == "timeout" and bench.reward.program == NUMBER


def test_when_nothing_is_left_every_step_is_invalid():
    broken = {p.sha: {"all": ProgramMemoryError("too much")} for p in (HP, NUMBER)}
    bench = Bench(HP, NUMBER, scripts=broken)
    parts, state = bench.score()
    events = bench.reward.quarantines
    assert [(e.sha, e.fallback, e.batch) for e in events] == [(HP.sha, NUMBER.sha, 0), (NUMBER.sha, None, 0)]
    for found in (parts, bench.score(state=state)[0]):
        assert not any(part.valid.any() for part in found.values())
    assert bench.reward.program is None and bench.calls(NUMBER) == 1 and bench.reward.version == 2


def test_others_may_quarantine_at_once():
    bench = Bench(HP, NUMBER, RISKY)
    bench.score()
    bench.reward.take((NUMBER.sha,))  # not in use; it must not be fallen back on
    bench.reward.take(("0" * 64,))
    assert bench.reward.program == HP
    bench.reward.take((HP.sha,))
    bench.reward.take((HP.sha,))
    bench.score()
    assert (bench.calls(HP), bench.calls(NUMBER), bench.calls(RISKY)) == (1, 0, 1)
    events = [(e.sha, e.code, e.fallback, e.batch) for e in bench.reward.quarantines]
    assert events == [(NUMBER.sha, "elsewhere", HP.sha, 1), (HP.sha, "elsewhere", RISKY.sha, 1)]


def test_the_budget_of_an_episode_is_not_renewed_by_a_switch():
    more = fake.program("def reward(obs, prev_obs, action, info):\n    return 1\n")
    less = fake.program("def reward(obs, prev_obs, action, info):\n    return 2\n")
    bench = Bench(more, less, scripts={more.sha: {1: ProgramMemoryError("much")}})
    rollout = _rollout(T=2, B=1, ends=())
    paid, state = [], None
    for _ in range(3):
        parts, state = bench.score(rollout, state)
        paid += parts["program"].value[:, 0].tolist()
    assert paid == pytest.approx([0.1, 0.1, 0.05, 0, 0, 0]) and bench.reward.version == 1


def test_a_potential_begins_anew_with_another_program():
    high = fake.program("def reward(obs, prev_obs, action, info):\n    return 1\n")
    low = fake.program("def reward(obs, prev_obs, action, info):\n    return -1\n")
    bench = Bench(high, low, scripts={high.sha: {1: ProgramMemoryError("much")}}, dense="potential")
    rollout = _rollout(T=2, B=1, ends=())
    first, state = bench.score(rollout)
    second, state = bench.score(rollout, state)
    third, _ = bench.score(rollout, state)
    paid = [part["program"].value[:, 0].tolist() for part in (first, second, third)]
    assert paid == [pytest.approx([0.1, 0]), pytest.approx([-0.1, 0]), [0, 0]]


# ---- resume


def _play(bench, num, state=None):
    paid = []
    for seed in range(bench.reward.own_state()["scored"], num):
        parts, state = bench.score(_rollout(low=1, seed=seed), state)
        paid.append(parts["program"].value)
    return paid, state


def test_a_resume_replays_what_the_log_says_without_running_the_program():
    # The first run is killed after 6 rollouts; its checkpoint is of the second one.
    first = Bench(RISKY, HP, NUMBER, scripts={RISKY.sha: {3: ProgramMemoryError("much")}})
    _, state = _play(first, 2)
    learned = first.reward.own_state()
    paid, _ = _play(first, 6, state)
    events = first.reward.quarantines
    assert [event.batch for event in events] == [3]

    second = Bench(RISKY, HP, NUMBER)  # this time nothing would be too slow
    second.reward.load_own_state(learned)
    second.reward.replay(
        [Quarantined(scorer="learner", sha=HP.sha, code="died", why="", fallback=None, batch=1), *events]
    )
    again, _ = _play(second, 6, state)
    np.testing.assert_array_equal(paid, again)
    assert second.calls(RISKY) == 1 and second.reward.program == HP
    assert second.reward.quarantines == events  # the log has them, but the others do not
    assert second.reward.version == first.reward.version == 1


def test_a_checkpoint_keeps_the_place_in_the_chain_and_what_was_not_taken():
    first = Bench(RISKY, HP, scripts={RISKY.sha: {0: ProgramMemoryError("much")}})
    first.score()
    second = Bench(RISKY, HP)
    second.reward.load_own_state(first.reward.own_state())
    assert second.reward.program == HP and second.reward.version == 1
    second.score()
    assert second.calls(RISKY) == 0
    assert second.reward.quarantines == first.reward.quarantines != []


def test_what_those_who_score_share_is_the_bad_programs_alone():
    first = Bench(RISKY, HP, NUMBER, scripts={RISKY.sha: {0: ProgramMemoryError("much")}})
    first.score()
    assert first.reward.state_dict() == {"bad": [RISKY.sha]}
    second = Bench(RISKY, HP, NUMBER, scripts={HP.sha: {1: ProgramMemoryError("much")}})
    second.reward.take((RISKY.sha,))
    _play(second, 3)
    second.reward.load_state_dict(first.reward.state_dict())
    assert second.reward.program == NUMBER and second.reward.version == 2  # a union
    assert second.reward.own_state()["scored"] == 3 and len(second.reward.quarantines) == 2

    # A quarantine that was reported, but that nobody else had been told of at the checkpoint, is not forgotten.
    resumed = Bench(RISKY, HP, NUMBER)
    resumed.reward.load_state_dict(first.reward.state_dict())
    resumed.reward.load_own_state(second.reward.own_state())
    assert resumed.reward.program == NUMBER


def test_failures_of_a_program_that_others_drop_are_forgotten():
    first = Bench(RISKY, HP, scripts={RISKY.sha: {0: _always("much")}}, failure_window=1000)
    first.score()
    first.reward.load_state_dict({"bad": [RISKY.sha]})
    assert first.reward.own_state()["watch"] == {"batches": []} and first.engines[RISKY.sha].closed == 1


# ---- the rest


def test_columns_that_are_not_recorded_are_named():
    bench, rollout = Bench(HP), _rollout()
    bare = replace(rollout, features={})
    with pytest.raises(ValueError, match=r"obs\.hp"):
        bench.score(bare)


def test_a_program_is_needed():
    with pytest.raises(ValueError, match="needs a program"):
        ProgramReward((), ProgramConfig())


def test_the_engine_is_started_when_needed_and_closed():
    bench = Bench(HP, NUMBER)
    bench.reward.close()
    assert bench.engines[HP.sha].loads == 0
    bench.score()
    bench.reward.close()
    bench.reward.close()
    assert (bench.engines[HP.sha].closed, bench.engines[NUMBER.sha].loads) == (1, 0)
