"""What the analyzer says of play and of components, on episodes made by hand."""

import json

import numpy as np
import pytest

from rewards.auto.program import Program
from rewards.auto.search.analyzer import MAX_TEXT_CHARS, NUM_CHECKPOINTS, analyse, idle_components
from tests.rewards.auto.search.recorded_play import played

LOCKED = "This door is locked."
COMPONENTS = {"goal": "sparse", "near": "dense", "absent": "dense", "always": "dense"}
PROGRAM = Program(source="", columns=(), components=COMPONENTS)


def failure(T=10, *, locked=True, ending="out of time", **columns):
    return played(
        T,
        ending,
        messages=["", LOCKED if locked else ""],
        info__closed_door_distance=[3, 1, *[2] * (T - 2)],
        info__tiles_seen=[7] * T,
        **columns,
    )


def values(episodes):
    """near fires on the first step of each but the first episode, always on every step."""
    found = []
    for place, episode in enumerate(episodes):
        T = episode.num_steps
        near = np.zeros(T)
        near[0] = float(place > 0)
        found.append({"goal": np.zeros(T), "near": near, "absent": np.zeros(T), "always": np.ones(T)})
    return found


def curves(num=50):
    return [
        {
            "step": 100.0 * row,
            "rewards/program/near/mean": row / 1000,
            "rewards/program/near/raw/mean": row / 100,
            "rewards/program/near/episode_sum": row / 10,
            "rewards/program/absent/mean": 0.0,
            "rewards/program/absent/raw/mean": 0.0,
        }
        for row in range(num)
    ]


def test_how_episodes_ended():
    episodes = [
        failure(),
        failure(20),
        played(4, "death", messages=["", "The newt bites!", "", "The newt bites!\nYou die..."]),
        played(6, "death", messages=["", "", "", "", "Ouch!", "You die..."]),
        played(8, "success"),
    ]
    found = analyse(episodes)
    assert found.endings == {"out of time": 2, "death": 2, "success": 1}
    assert found.deaths == {"'The newt bites!'": 1, "'Ouch!'": 1}
    assert found.steps == {"mean": 9.6, "least": 4, "most": 20}
    assert found.mean_return == pytest.approx(0.2)
    assert "5 episodes: 2 out of time, 2 death, 1 success" in found.text
    assert "9.6" not in found.text and "10 on average (4 to 20)" in found.text


def test_how_far_failures_got():
    found = analyse([*(failure() for _ in range(3)), failure(locked=False), played(9, "success")])
    assert found.closest == {"closed_door": 1.0}
    assert found.progress["cells_seen"] == pytest.approx(4 * 7 / 5)
    assert found.progress["messages"] == pytest.approx(3 / 5)
    assert "closed_door on the map in 4, next to it in 4" in found.text
    assert "In 4 of 4 failures no new cell was ever seen" in found.text
    assert f"'{LOCKED}' 3 times in 3" in found.text
    assert "'locked' in 3 episodes, 3 of 3 times next to closed_door" in found.text


def test_who_was_stuck():
    still = np.arange(30)
    found = analyse([failure(30, info__steps_since_change=still), failure(30)])
    assert "1 of 2 failures were stuck for 20 steps or more, at worst 29" in found.text
    assert "48% of steps changed nothing" in found.text  # 29 of 60


def test_what_successes_have_that_failures_lack():
    won = [played(12, "success", messages=["The door crashes open!"]) for _ in range(4)]
    lost = [failure() for _ in range(4)]
    told = analyse([*won, *lost]).text
    assert "steps 12.0 against 10.0" in told
    assert "steps with 'crashes' in the message 1.0 against 0.0" in told
    assert "Successes against failures" not in analyse([*won, *lost[:1]]).text


def test_components():
    episodes = [failure() for _ in range(5)]
    found = analyse(episodes, PROGRAM, values(episodes), curves())
    near = found.components["near"]
    assert near.fired_share == pytest.approx(4 / 50) and near.fired_episodes == 4
    assert (near.mean, near.lowest, near.highest) == (pytest.approx(4 / 50), 0.0, 1.0)
    assert near.episode_sum == pytest.approx(4 / 5)
    assert not (near.never_fired or near.saturates or near.dominates)
    assert found.components["absent"].never_fired and found.components["goal"].never_fired
    assert found.components["always"].saturates and found.components["always"].dominates
    assert "Component near (dense): fired on 8.0% of steps, in 4 episodes" in found.text
    assert "Never fired: goal, absent." in found.text
    assert idle_components(found.figures) == {"goal", "absent", "always"}


def test_components_over_training():
    episodes = [failure()]
    near = analyse(episodes, PROGRAM, values(episodes), curves()).components["near"]
    assert near.curves["step"] == [100.0 * row for row in (0, 5, 11, 16, 22, 27, 33, 38, 44, 49)]
    assert len(near.curves["step"]) == NUM_CHECKPOINTS
    assert near.curves["episode_sum"][-1] == 4.9 and near.curves["raw/mean"][0] == 0.0
    assert len(analyse(episodes, PROGRAM, None, curves(3)).components["near"].curves["mean"]) == 3
    assert analyse(episodes, PROGRAM).components["near"].curves == {}


def test_what_fired_in_training_did_fire():
    episodes = [failure()]
    rows = [{"step": 1.0, "rewards/program/absent/mean": 0.1, "rewards/program/absent/raw/mean": 0.2}]
    assert not analyse(episodes, PROGRAM, values(episodes), rows).components["absent"].never_fired


@pytest.mark.parametrize("what", ["raw/episode_sum", "episode_sum", "raw/mean"])
def test_ups_and_downs_that_cancel_are_no_silence(what):
    episodes = [failure()]
    rows = [{"step": float(n), "rewards/program/absent/mean": 0.0} for n in range(40)]
    rows[3][f"rewards/program/absent/{what}"] = -0.5  # none of the rows that are shown
    found = analyse(episodes, PROGRAM, values(episodes), rows).components["absent"]
    assert not found.never_fired
    assert analyse(episodes, PROGRAM, values(episodes), rows[:1]).components["absent"].never_fired


UNDECLARED = Program(source="", columns=())


def test_what_was_returned_is_analysed_declared_or_not():
    episodes = [failure(4), failure(4)]
    given = [{"near": np.array([1.0, 0, 0, 0]), "far": np.zeros(4)}, {"near": np.zeros(4), "late": np.ones(4)}]
    found = analyse(episodes, UNDECLARED, given)
    assert list(found.components) == ["near", "far", "late"]
    assert {report.kind for report in found.components.values()} == {"dense"}
    assert found.components["near"].fired_share == 1 / 8 and found.components["late"].saturates
    assert idle_components(found.figures) == {"far", "late"}
    rows = [{"step": 1.0, "rewards/program/other/raw/mean": 0.5}]  # far may have fired then
    assert not analyse(episodes, UNDECLARED, given, rows).components["far"].never_fired
    some = Program(source="", columns=(), components={"near": "sparse"})
    assert list(analyse(episodes, some, given).components) == ["near", "far", "late"]


def test_a_number_is_the_component_reward():
    given = [{"reward": np.zeros(10)}]
    assert analyse([failure()], UNDECLARED, given).components["reward"].never_fired
    rows = [{"step": 1.0, "rewards/program/reward/raw/mean": 0.5}]
    assert not analyse([failure()], UNDECLARED, given, rows).components["reward"].never_fired
    assert list(analyse([failure()], UNDECLARED).components) == ["reward"]


def test_rows_without_a_value_are_passed_over():
    rows = [{"step": 1.0, "rewards/program/near/mean": None}, {"step": 2.0, "rewards/program/near/mean": 0.5}]
    assert analyse([failure()], PROGRAM, None, rows).components["near"].curves == {"mean": [0.5], "step": [2.0]}


def test_no_answer_is_not_nought():
    given = values([failure(4)])
    given[0]["near"] = np.array([np.nan, 1.0, np.nan, 1.0])
    given[0]["absent"] = np.full(4, np.nan)
    found = analyse([failure(4)], PROGRAM, given).components
    assert found["near"].mean == 1.0 and found["near"].fired_share == 1.0
    assert found["absent"].mean is None and not found["absent"].never_fired


def test_values_must_fit_the_episodes():
    with pytest.raises(ValueError, match="2 episodes"):
        analyse([failure(), failure()], PROGRAM, values([failure()]))
    with pytest.raises(ValueError, match="shape"):
        analyse([failure(5)], PROGRAM, values([failure(4)]))


def test_texts_are_short_and_figures_are_json():
    rng = np.random.default_rng(0)
    chatter = [[f"Message {chr(97 + rng.integers(26)) * 60} of {t}" for t in range(50)] for _ in range(20)]
    episodes = [played(50, messages=messages) for messages in chatter]
    many = {f"says_something_long_number_{n}": "dense" for n in range(16)}
    program = Program(source="", columns=(), components=many)
    given = [{name: np.ones(50) for name in many} for _ in episodes]
    found = analyse(episodes, program, given)
    assert 500 < len(found.text) <= MAX_TEXT_CHARS
    assert found.text.startswith("20 episodes: 20 out of time")
    stored = json.loads(json.dumps(found.as_json()))
    assert stored["figures"] == found.figures and stored["num_episodes"] == 20


def test_nothing_recorded():
    found = analyse([])
    assert found.text == "No play was recorded." and found.figures == {}
