"""The lexicon and the reward models beside grades by hand."""

import json

import numpy as np
import pytest

from envs.templates import template_of
from launch.errors import UserError
from tests.benchmarks.__main__ import run
from tests.benchmarks.judges import captions as judged_captions

FOES = ("newt", "jackal", "grid bug", "sewer rat", "lichen", "kobold", "gnome", "fox")
TEXTS = [f"{what} the {foe}{end}" for what, end in (("You kill", "!"), ("You miss", ".")) for foe in FOES]
TEXTS += ["It's the wall.", "You find the hidden door.", "Never mind.", "You hear the noise.", "The door opens."]
TEXTS += ["This door is locked.", "Welcome to experience level N.", "You are hungry.", "_ - N gold piece."]


@pytest.fixture
def files(tmp_path):
    captions, grades = tmp_path / "captions.jsonl", tmp_path / "grades.jsonl"
    captions.write_text("".join(json.dumps({"text": t, "count": 1 + i}) + "\n" for i, t in enumerate(TEXTS)))
    grades.write_text("".join(json.dumps({"text": t, "grade": 2 if "kill" in t else -1}) + "\n" for t in TEXTS[:16]))
    return captions, grades


def test_a_template_is_in_one_fold(files):
    captions, uncovered = judged_captions.read(*files, 3)
    assert len(captions.texts) + uncovered == len(TEXTS)
    for text, fold in zip(captions.texts, captions.folds.tolist(), strict=True):
        assert fold == judged_captions.fold_of(template_of(text), 3)
    assert len(np.unique(captions.templates)) < len(captions.texts)
    assert captions.counts.tolist() == sorted(captions.counts.tolist(), reverse=True)


def test_a_judge_is_held_to_the_grades(files):
    captions, _ = judged_captions.read(*files, 3)
    graded = np.nan_to_num(captions.grades, nan=0.0)
    found = judged_captions.by_hand(graded, graded > 0, captions)
    assert found["rank_correlation"]["value"] == pytest.approx(1.0) and found["agreement"]["value"] == 1.0
    against = judged_captions.by_hand(-graded, graded < 0, captions)
    assert against["rank_correlation"]["value"] == pytest.approx(-1.0) and against["agreement"]["value"] == 0.0


def test_the_command_compares_all_judges(files, tmp_path, capsys):
    out = tmp_path / "judges.json"
    flags = ["--captions", str(files[0]), "--grades", str(files[1]), "--folds", "2", "--pairs", "50"]
    assert run(["judges", *flags, "--network-labels", "12", "--json", str(out)]) == 0
    kept = json.loads(out.read_text())
    assert set(kept["summary"]["judges"]) == {"lexicon", "classification", "ranking"}
    assert {row["network"] for row in kept["summary"]["networks"]} == {"ngrams", "chars"}
    assert len(kept["measurements"]["opinions"]["ranking"]) == kept["summary"]["captions"]
    assert "rank correlation with grades" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", '{"text": "a"}', "[1]"])
def test_a_bad_file_is_refused_with_its_place(files, text):
    files[1].write_text(text)
    with pytest.raises(UserError, match=r"grades\.jsonl"):
        judged_captions.read(*files, 2)
