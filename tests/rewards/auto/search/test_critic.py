"""The critic: every executed test can refuse a program, and says why."""

import pytest

from rewards.auto.config import CompositionConfig, ContainmentConfig
from rewards.auto.program import ProgramRejectedError
from rewards.auto.sandbox.contained import ContainedProgram
from rewards.auto.sandbox.engine import ProgramTimeoutError, WorkerDiedError
from rewards.auto.search.critic import MIN_EPISODES, Critic
from rewards.auto.search.farming import NUM_STEPS
from rewards.auto.search.proposal import Finding, verdict_of
from tests.rewards.auto.fake_engine import FakeEngine, program
from tests.rewards.auto.played import episode, walk

READ = ("obs.hp", "obs.x", "prev_obs.x", "obs.dungeon_level", "prev_obs.dungeon_level", "info.succeeded", "info.died")
WALKED = ("info.new_tiles_seen", "info.visits_here", "info.step_in_episode", "info.has_key")
GOAL = "1.0 if info['succeeded'] else -1.0 if info['died'] else 0.0"


class Made:
    """Makes runners of fake engines, the n-th with the n-th script."""

    def __init__(self, *scripts):
        self.scripts, self.engines = list(scripts), []

    def __call__(self, made):
        engine = FakeEngine(self.scripts[len(self.engines)] if len(self.engines) < len(self.scripts) else None)
        self.engines.append(engine)
        return ContainedProgram(made, ContainmentConfig(), engine, distinct=False)


class Judge:
    """An opinion that says what it is told."""

    def __init__(self, outcome="pass"):
        self.outcome, self.asked = outcome, []

    def of(self, judged, findings):
        self.asked.append([finding.test for finding in findings])
        return Finding(test="opinion", outcome=self.outcome, reason="as told")


def coded(body, **components):
    source = f"def reward(obs, prev_obs, action, info):\n    return {body}\n"
    return program(source, *READ, *WALKED, **components)


def critic(judged, *scripts, opinion=None, **changes):
    made = Made(*scripts)
    containment = ContainmentConfig(**changes.pop("containment", {}))
    composition = CompositionConfig(**{"dense": "budget", "dense_weight": 0.1, **changes})
    return Critic(containment, composition, opinion, make=made, check=lambda source: judged), made


def critique(judged, episodes, *scripts, **changes):
    made, _ = critic(judged, *scripts, **changes)
    found, verdict = made.critique(judged.source, episodes)
    assert found is judged
    assert verdict_of(verdict.as_json()) == verdict
    return {finding.test: finding for finding in verdict.findings}


def played(successes=6, failures=8, hp=(9, 3)):
    """Walks of 40 steps, in successes and failures with other hit points."""
    path = [3, 4, 5, 6, 5, 4, 3, 3] * 5 + [3]
    return [
        *(walk("success", path, obs_hp=hp[0], prev_obs_hp=hp[0], info_visits_here=2) for _ in range(successes)),
        *(walk("death", path, obs_hp=hp[1], prev_obs_hp=hp[1], info_visits_here=2) for _ in range(failures)),
    ]


GOOD = coded(f"{{'goal': {GOAL}, 'right': obs['x'] - prev_obs['x']}}", goal="sparse", right="dense")


def test_a_sound_program_passes_every_test():
    opinion = Judge()
    found = critique(GOOD, played(), opinion=opinion)
    assert {name: finding.outcome for name, finding in found.items()} == dict.fromkeys(
        ["admission", "dry_run", "deterministic", "pure", "time", "constant", "cycle", "auc", "opinion"], "pass"
    )
    assert opinion.asked == [["admission", "dry_run", "deterministic", "pure", "time", "constant", "cycle", "auc"]]
    assert found["dry_run"].figures["transitions"] >= 256
    assert found["auc"].figures["successes"] == 6 and found["auc"].figures["discounted_return"] == 1.0


def test_two_fresh_workers_and_none_is_left_running():
    made, makes = critic(GOOD)
    made.critique(GOOD.source, played())
    assert len(makes.engines) == 3 and all(engine.closed for engine in makes.engines)
    assert [engine.loads for engine in makes.engines] == [1, 1, 1]


def test_what_is_not_admitted_is_not_run():
    made, makes = Critic(ContainmentConfig(), CompositionConfig(), Judge(), make=Made()), Made()
    found, verdict = made.critique("import os\n", played())
    assert found is None and not verdict.accepted and not makes.engines
    (finding,) = verdict.findings
    assert (finding.test, finding.code, finding.line) == ("admission", "E15", 1)
    with pytest.raises(ProgramRejectedError):
        made._check("import os\n")


# ---- the dry run


def test_too_many_transitions_without_an_answer():
    body = "1 / (obs['x'] - 6)"
    found = critique(coded(body), played())
    assert found["dry_run"].outcome == "fail"
    assert "70 of 560 transitions have no answer; 70 of them because: ZeroDivisionError" in found["dry_run"].reason
    assert critique(coded(body), played(), containment={"max_failure_share": 0.2})["dry_run"].outcome == "pass"


def test_values_beyond_the_bound_are_no_answers():
    found = critique(coded("1e9 * obs['x']"), played())
    assert found["dry_run"].outcome == "fail" and "beyond" in found["dry_run"].reason


def test_another_worker_must_say_the_same():
    shifted = {"all": lambda answer: _changed(answer, 1e-12)}
    found = critique(GOOD, played(), None, shifted)
    assert found["deterministic"].outcome == "fail" and found["pure"].outcome == "pass"
    assert "560 of 560" in found["deterministic"].reason


def test_a_program_that_counts_its_calls():
    found = critique(coded("tick()"), played())
    assert (found["deterministic"].outcome, found["deterministic"].code) == ("fail", "nondeterministic")


def test_state_between_batches_is_found():
    # The worker's second batch has other answers than its first: the program remembers.
    found = critique(GOOD, played(), {1: lambda answer: _changed(answer, 1.0)})
    assert found["pure"].outcome == "fail" and found["deterministic"].outcome == "pass"


def _changed(answer, by):
    cells = [value + by for value in answer.components["right"]]
    return type(answer)(components={**answer.components, "right": cells}, failures=answer.failures)


def test_a_worker_that_dies_once_is_forgiven_and_twice_is_not():
    dies = WorkerDiedError("the worker was ended by signal 9")
    assert critique(GOOD, played(), {0: dies})["auc"].outcome == "pass"
    found = critique(GOOD, played(), {0: dies, 1: dies})
    assert (found["dry_run"].outcome, found["dry_run"].code) == ("fail", "died")
    assert "signal 9" in found["dry_run"].reason and "auc" not in found


def test_a_program_that_runs_out_of_time():
    opinion = Judge()
    slow = ProgramTimeoutError("it took more than 1 s")
    found = critique(GOOD, played(), {"all": slow}, opinion=opinion)
    assert (found["time"].outcome, found["time"].code) == ("fail", "timeout")
    assert not opinion.asked


def test_time_per_transition_is_held_against_the_budget_of_a_batch():
    found = critique(GOOD, played(), containment={"batch_s": 1e-6})
    assert found["time"].outcome == "fail" and "too slow" in found["time"].reason


def test_too_little_play_is_undetermined_unless_shipped_play_fits():
    few = played(1, 1)
    assert critique(GOOD, few)["dry_run"].figures["transitions"] > 600  # shipped play is added
    assert critique(GOOD, few)["auc"].outcome == "undetermined"
    assert critique(GOOD, [])["auc"].figures == {"successes": 0.0, "failures": 0.0}


def test_play_that_lacks_what_the_program_reads_is_passed_over():
    blind = [walk("success", [3, 4] * 200, without=("obs.hp",)) for _ in range(9)]
    found = critique(GOOD, [*blind, *played()])
    assert found["dry_run"].figures["transitions"] == 14 * 40 and found["auc"].figures["successes"] == 6


# ---- constant programs


def test_the_same_everywhere_is_a_failure():
    opinion = Judge()
    found = critique(coded("1.0"), played(), opinion=opinion)
    assert found["constant"].outcome == "fail" and found["constant"].figures["constant_share"] == 1.0
    assert not opinion.asked
    assert critique(coded("{'a': 0.0, 'b': 2}"), played())["constant"].outcome == "fail"


def test_a_goal_that_was_never_reached_is_undetermined():
    judged = coded("{'goal': 1.0 if info['succeeded'] else 0.0}", goal="sparse")
    assert critique(judged, played(successes=0))["constant"].outcome == "undetermined"
    assert critique(judged, played())["constant"].outcome == "pass"
    dense = coded("1.0 if info['succeeded'] else 0.0")
    assert critique(dense, played(successes=0))["constant"].outcome == "fail"
    never = coded("{'goal': 1.0 if obs['hp'] > 99 else 0.0}", goal="sparse")
    assert critique(never, played())["constant"].outcome == "fail"


def test_dead_components_are_named():
    found = critique(coded("{'right': obs['x'] - prev_obs['x'], 'dead': 0}"), played())
    assert found["constant"].outcome == "pass" and "always the same: dead" in found["constant"].reason
    # Of 8 steps 3 lead right, 3 left, and 2 stay: the share of the commonest is 3/8.
    assert found["constant"].figures["constant_share"] == pytest.approx(3 / 8)


# ---- walks back and forth


def farmed(body, episodes=None, **components):
    return critique(coded(body, **components), episodes or played(), values="clipped")["cycle"]


def test_a_sparse_component_that_pays_for_walking_is_farmed():
    found = farmed("{'step': 1.0 if obs['x'] > prev_obs['x'] else 0.0}", step="sparse")
    assert found.outcome == "fail" and "'step'" in found.reason
    assert found.figures["most"] == NUM_STEPS / 2  # every other step leads to the right
    assert found.figures["allowed"] == 0.9


def test_a_dense_component_cannot_be_farmed():
    found = farmed("{'step': 1.0 if obs['x'] > prev_obs['x'] else 0.0}")
    assert found.outcome == "pass" and found.figures["most"] == pytest.approx(0.9)


def test_standing_still_is_a_walk_too():
    still = [episode("death", 300, info_steps_since_change=5, obs_hp=4, prev_obs_hp=4)]
    found = farmed("{'still': 1.0 if obs['x'] == prev_obs['x'] else 0.0}", still, still="sparse")
    assert found.outcome == "fail" and found.figures["most"] == NUM_STEPS


def test_levels_are_places():
    level = [1, 2] * 150 + [1]
    stairs = [episode("death", 300, prev_obs_dungeon_level=level[:-1], obs_dungeon_level=level[1:])]
    body = "{'down': 1.0 if obs['dungeon_level'] > prev_obs['dungeon_level'] else 0.0}"
    found = farmed(body, stairs, down="sparse")
    assert found.outcome == "fail" and found.figures["most"] == NUM_STEPS / 2


@pytest.mark.parametrize(
    "body",
    [
        "{'new': 1.0 if info['new_tiles_seen'] > 0 else 0.0}",
        "{'new': 1.0 if info['visits_here'] == 1 else 0.0}",
        "{'new': 1.0 if info['succeeded'] else 0.0}",
    ],
)
def test_what_comes_only_once_is_not_farmed(body):
    path = [3, 4, 3] + [3] * 300
    first = walk("success", path, info_new_tiles_seen=5, info_visits_here=1)
    assert farmed(body, [first], new="sparse").outcome == "pass"


def test_steps_that_gain_something_are_not_repeated():
    path = [3, 4] * 200
    rich = walk("death", path, obs_gold=range(1, len(path)), prev_obs_gold=range(len(path) - 1))
    found = farmed("{'step': 1.0 if obs['x'] > prev_obs['x'] else 0.0}", [rich], step="sparse")
    assert found.outcome == "undetermined"


def test_the_end_of_an_episode_is_not_repeated_and_episodes_are_apart():
    there = [walk("death", [*([3] * 300), 4, 5, 4]), walk("death", [*([4] * 300), 3, 3])]
    assert farmed("{'step': abs(obs['x'] - prev_obs['x'])}", there, step="sparse").outcome == "undetermined"


def test_a_potential_that_goes_round_comes_to_little():
    judged = coded("{'at': obs['x'] - 4.5}", at="dense")
    found = critique(judged, played(), dense="potential", values="clipped")["cycle"]
    assert found.outcome == "pass" and found.figures["most"] == pytest.approx(0.05)


# ---- successes and failures


def test_a_reward_that_prefers_failures_fails():
    judged = coded("-obs['hp']")
    found = critique(judged, played())["auc"]
    assert found.outcome == "undetermined"  # both have used up the same budget by the end
    found = critique(coded("1.0 if obs['hp'] < 5 else -1.0"), played())["auc"]
    assert found.outcome == "fail" and found.figures["discounted_return"] == 0.0
    assert found.figures["discounted_return_high"] < 0.5


def test_a_reward_that_cannot_tell_is_undetermined():
    found = critique(coded("obs['x'] - prev_obs['x']"), played())["auc"]
    assert found.outcome == "undetermined" and found.figures["discounted_return"] == 0.5


@pytest.mark.parametrize(("successes", "failures"), [(30, 0), (0, 30), (30, MIN_EPISODES - 1), (MIN_EPISODES - 1, 30)])
def test_too_few_of_either_is_never_a_pass(successes, failures):
    found = critique(GOOD, played(successes, failures))["auc"]
    assert found.outcome == "undetermined" and found.figures == {"successes": successes, "failures": failures}


def test_unfinished_episodes_are_neither():
    unfinished = [walk("unfinished", [3, 4] * 20) for _ in range(9)]
    assert critique(GOOD, [*played(6, 2), *unfinished])["auc"].outcome == "undetermined"


# ---- the opinion


def test_the_opinion_is_asked_last_and_counts():
    judged, opinion = GOOD, Judge("fail")
    made, _ = critic(judged, opinion=opinion)
    _, verdict = made.critique(judged.source, played())
    assert not verdict.accepted and verdict.reasons == ["opinion: as told"]
    unsure, _ = critic(judged, opinion=Judge("undetermined"))
    assert unsure.critique(judged.source, played())[1].accepted
