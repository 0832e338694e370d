"""The label bench: its questions and its sums by hand, and one short run of it."""

import json
from pathlib import Path

import pytest

from launch.bench import labelling as labels
from launch.bench.labelling import LabelBench, LabelRound
from launch.errors import UserError
from rewards.labels.questions import PromptSpec

CAPTIONS = Path(__file__).parents[2] / "standin" / "captions.json"


def test_no_pair_is_asked_twice():
    captions = [f"The door {i} opens." for i in range(9)]
    rounds = labels.draw_questions(captions, LabelBench(prompts=12, rounds=5))
    assert [len(questions) for questions in rounds] == [12] * 6  # a warm-up and five rounds
    pairs = [(q.text, q.second_text) for questions in rounds for q in questions]
    assert len(set(pairs)) == 72 == 9 * 8 and all(first != second for first, second in pairs)


def test_too_few_captions_are_said():
    with pytest.raises(UserError, match="3 captions have 6 ordered pairs, 2 rounds and a warm-up of 3 prompts need 9"):
        labels.draw_questions(["a", "b", "c"], LabelBench(prompts=3, rounds=2))


def test_play_gives_captions():
    found = labels.captions_of(LabelBench(task="MiniHack-Room-5x5-v0", steps=640))
    assert "It's solid stone." in found and "" not in found and len(set(found)) == len(found)


def test_bad_input_is_said(tmp_path):
    with pytest.raises(UserError, match="needs --model PATH"):
        labels.measure(LabelBench())
    with pytest.raises(UserError, match=r"none\.json cannot be read"):
        labels.captions_of(LabelBench(captions=tmp_path / "none.json"))


def test_agreement_is_counted_where_the_lexicon_has_an_answer():
    spec = PromptSpec("pair-1")
    assert labels.agreement(["first", "equal", "second"], ["first", "first", "unknown"], spec) == 0.5
    assert labels.agreement(["first"], ["unknown"], spec) == 0.0


def test_rounds_are_summarised_by_their_medians():
    def rounds(*speeds, **more):
        return [
            LabelRound(seconds=1.0, labels_per_s=v, cpu_ms_per_label=100.0 / v, agreement=1.0, **more) for v in speeds
        ]

    summary = labels.summarise({"server": rounds(80.0, 90.0, 50.0, requests=5, prefix_hits=0.75)}, 50)
    assert summary["systems"]["server"] == {
        "median": 80.0,
        "low": 50.0,
        "high": 90.0,
        "cpu_ms_per_label": 1.25,
        "agreement": 1.0,
    }
    assert (summary["requests_per_label"], summary["prefix_hits"]) == (0.1, 0.75)
    assert "0.1000 requests a label; 75%" in labels.table(summary)


@pytest.mark.vllm
def test_a_short_run(standin_model, vllm):
    flags = {"model": str(standin_model), "captions": CAPTIONS, "prompts": 300, "rounds": 2}
    server = {"vllm": vllm.executable, "dtype": "float32"}
    shown, results = labels.measure(LabelBench.model_validate(flags | {"server": server}))
    assert "labels/s" in shown
    assert [r["agreement"] >= 0.99 for r in results["measurements"]["server"]] == [True, True]
    assert results["summary"]["prefix_hits"] > 0.5 and results["summary"]["requests_per_label"] < 0.02
    json.dumps(results)
