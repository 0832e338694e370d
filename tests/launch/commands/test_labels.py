"""``yendor labels``: gather, label without a run, list, audit, export."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from pyarrow import parquet
from rich.console import Console

from envs.captions import canonical, caption_id
from launch.cli import main
from launch.commands import labels
from launch.commands.agreement import compare
from launch.commands.captions import LabelFlags, _language_model, random_pairs, read_captions, read_gathered
from launch.commands.labels import ListFlags, asked, confidence, is_wanted, ordered, soft_value, spreads
from launch.config.flags import parse
from launch.errors import UserError
from launch.llm.config import ServerConfig
from rewards.labels.store import Label, LabelStore, label_key
from rewards.llm.config import LLMConfig

WORTH = {"helpful": 1.0, "neutral": 0.0, "unhelpful": 0.0, "first": 1.0, "second": 0.0, "equal": 0.5}


def label(text, reply, second="", *, model="lexicon", prompt=None, goal="score", probability=None, time_s=0.0):
    prompt = prompt or ("pair-1" if second else "single-1")
    key = label_key(text, second_text=second, prompt_version=prompt, model=model, model_revision="1", goal=goal)
    return Label(
        key=key,
        caption_id=caption_id(text),
        text=text,
        prompt_version=prompt,
        model=model,
        model_revision="1",
        goal=goal,
        value=WORTH.get(reply),
        probability=probability,
        raw_reply=reply,
        failed=reply not in WORTH and reply != "unknown",
        time_s=time_s,
        second_id=caption_id(second),
        second_text=second,
    )


def store_of(path, *labels):
    with LabelStore(path) as store:
        store.append(labels)
    return path


def by_lexicon_and_model():
    """Ten captions that both judged: 4 x helpful/helpful, 1 x helpful/neutral, 2 x neutral/helpful, 3 x neutral."""
    replies = [("helpful", "helpful")] * 4 + [("helpful", "neutral")] + [("neutral", "helpful")] * 2
    replies += [("neutral", "neutral")] * 3
    a = [label(f"Event {chr(65 + i)}.", reply) for i, (reply, _) in enumerate(replies)]
    b = [
        label(f"Event {chr(65 + i)}.", reply, model="m", probability=0.6 + 0.04 * i if reply == "helpful" else 0.1)
        for i, (_, reply) in enumerate(replies)
    ]
    return a, b


# ---- files of captions


def test_captions_are_read_from_both_kinds_of_files_and_made_canonical(tmp_path):
    lines, text = tmp_path / "a.jsonl", tmp_path / "a.txt"
    lines.write_text('{"text": "You see a key.", "count": 3}\n{"text": "You see the key."}\n{"text": ""}\n')
    text.write_text("You see 3 gold pieces.\n\nThe newt bites! / You die...\n")
    assert read_captions(lines) == ["You see the key."]
    assert read_captions(text) == ["You see N gold piece.", "The newt bites!\nYou die..."]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "x", "allowed endings are .jsonl and .txt"),
        ("a.jsonl", '{"words": "x"}\n', "line 1 has no text"),
        ("a.jsonl", "nonsense\n", "line 1 is not JSON"),
        ("a.txt", "\n \n", "holds no captions"),
    ],
)
def test_a_bad_file_of_captions_gets_one_sentence(name, content, says, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(says)):
        read_captions(tmp_path / name)


# ---- gather


def test_gather_writes_distinct_captions_most_frequent_first_and_repeats_itself(tmp_path):
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    tasks = "MiniHack-KeyRoom-S5-v0,MiniHack-Room-5x5-v0"
    for out in (a, b):
        assert main(f"labels gather {tasks} --out {out} --steps 600 --games 4 --seed 3".split()) == 0
    assert a.read_bytes() == b.read_bytes()
    found = read_gathered(a)
    assert [c.count for c in found] == sorted((c.count for c in found), reverse=True)
    assert len({c.text for c in found}) == len(found) > 2
    assert all(canonical(c.example) == c.text for c in found)
    assert {task for c in found for task in c.tasks} == set(tasks.split(","))


def test_gather_adds_only_when_told(tmp_path, capsys):
    out = tmp_path / "a.jsonl"
    command = f"labels gather MiniHack-Room-5x5-v0 --out {out} --steps 200 --games 2".split()
    assert main(command) == 0
    first = {c.text: c.count for c in read_gathered(out)}
    assert main(command) == 2 and "--add" in capsys.readouterr().err
    assert main([*command, "--add"]) == 0
    assert {c.text: c.count for c in read_gathered(out)} == {text: 2 * count for text, count in first.items()}


# ---- run


def test_captions_are_labelled_once_and_an_interrupted_call_goes_on(tmp_path, capsys):
    captions, out = tmp_path / "a.txt", tmp_path / "s.sqlite"
    captions.write_text("You kill the newt!\nYou hit it.\nXyzzy plugh.\n")
    command = f"labels run {captions} --out {out} --labels.client.kind lexicon".split()
    assert main(command) == 0
    assert "2 labelled, 0 failed, 1 abstained, 0 known before, of 3 in all" in capsys.readouterr().out
    captions.write_text(captions.read_text() + "The newt bites!\n")
    assert main(command) == 0
    assert "1 labelled, 0 failed, 0 abstained, 3 known before, of 4 in all" in capsys.readouterr().out
    with LabelStore(out, read_only=True) as store:
        assert {x.text: x.raw_reply for x in store.since()[0]}["You kill the newt!"] == "helpful"
        assert store.count() == 4


def test_replies_that_cannot_be_read_are_counted_as_failed(tmp_path, capsys):
    captions = tmp_path / "a.txt"
    captions.write_text("You hit it.\nYou miss it.\n")
    scripted = "--labels.client.kind scripted --labels.client.reply maybe"
    assert main(f"labels run {captions} --out {tmp_path / 's.sqlite'} {scripted}".split()) == 0
    assert "0 labelled, 2 failed, 0 abstained" in capsys.readouterr().out


def test_pairs_are_distinct_repeatable_and_compared(tmp_path, capsys):
    texts = ["You kill the newt!", "You hit it.", "The newt bites!", "You die..."]
    pairs = random_pairs(texts, 6, seed=1)
    assert pairs == random_pairs(texts, 6, seed=1) != random_pairs(texts, 6, seed=2)
    assert {frozenset((q.text, q.second_text)) for q in pairs} == {
        frozenset((a, b)) for i, a in enumerate(texts) for b in texts[:i]
    }
    with pytest.raises(UserError, match="4 captions make 6 pairs, not 7"):
        random_pairs(texts, 7, seed=1)
    captions, out = tmp_path / "a.txt", tmp_path / "s.sqlite"
    captions.write_text("\n".join(texts))
    assert main(f"labels run {captions} --out {out} --pairs 6 --labels.client.kind lexicon".split()) == 0
    with LabelStore(out, read_only=True) as store:
        found = store.since()[0]
    assert len(found) == 6 and all(x.second_id and x.prompt_version == "pair-1" for x in found)
    better = {
        x.text if x.value == 1 else x.second_text for x in found if "You kill the newt!" in (x.text, x.second_text)
    }
    assert better == {"You kill the newt!"}


def test_a_model_that_is_not_named_is_refused(tmp_path, capsys):
    captions = tmp_path / "a.txt"
    captions.write_text("You hit it.\n")
    assert main(f"labels run {captions} --out {tmp_path / 's.sqlite'} --labels.client.kind llm".split()) == 2
    assert "llm.base_url" in capsys.readouterr().err
    assert not (tmp_path / "s.sqlite").exists()


def test_a_server_that_does_not_answer_is_said_as_train_says_it(tmp_path, capsys):
    captions = tmp_path / "a.txt"
    captions.write_text("You hit it.\n")
    command = f"labels run {captions} --out {tmp_path / 's.sqlite'} --llm.base-url http://127.0.0.1:9/v1"
    assert main(command.split()) == 2
    assert "without llm.model, the server must answer at the start" in capsys.readouterr().err
    assert main([*command.split(), "--llm.model", "m", "--llm.required"]) == 2
    assert "llm.required: the language model server at http://127.0.0.1:9/v1" in capsys.readouterr().err
    assert not (tmp_path / "s.sqlite").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--labels.prompt-version pair-1", "asks about pairs"),
        ("--labels.client.kind lexicon --labels.goal riches", "riches"),
    ],
)
def test_a_question_that_cannot_be_asked_is_said_before_a_server_is_started(flags, says, tmp_path, monkeypatch, capsys):
    def started(*args):
        raise AssertionError("a server was started")

    monkeypatch.setattr("launch.llm.server.VLLMServer", started)
    captions = tmp_path / "a.txt"
    captions.write_text("You hit it.\n")
    command = f"labels run {captions} --out {tmp_path / 's.sqlite'} --llm.serve some/model {flags}"
    assert main(command.split()) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "s.sqlite").exists()


def test_a_model_is_served_under_the_name_and_with_the_key_that_its_labels_are_asked_with(tmp_path, monkeypatch):
    seen = []

    class Served:
        base_url = "http://127.0.0.1:9/v1"

        def __init__(self, model, config, log):
            seen.append((model, config))
            self.model = config.served_model_name

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr("launch.llm.server.VLLMServer", Served)
    llm = LLMConfig(serve="some/model", model="little", api_key_env="OUR_KEY")
    flags = LabelFlags(captions="x.txt", out=tmp_path / "s.sqlite", llm=llm, llm_server=ServerConfig(dtype="float32"))
    with _language_model(flags, Console(quiet=True)) as found:
        assert (found.base_url, found.model, found.serve) == ("http://127.0.0.1:9/v1", "little", None)
    ((model, config),) = seen
    assert model == "some/model"
    assert (config.served_model_name, config.api_key_env, config.dtype) == ("little", "OUR_KEY", "float32")


def test_ctrl_c_leaves_what_was_answered(tmp_path):
    captions, out = tmp_path / "a.txt", tmp_path / "s.sqlite"
    letters = "abcdefghijklmnopqrstuvwxyz"
    captions.write_text("".join(f"You see the {a}{b}.\n" for a in letters for b in letters))
    slow = ["--labels.client.kind", "scripted", "--labels.client.delay-s", "0.3"]
    command = [sys.executable, "-m", "launch.cli", "labels", "run", str(captions), "--out", str(out), *slow]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline_s = time.monotonic() + 60
        while count(out) == 0 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        shown_text, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGINT, error
    kept = count(out)
    assert 0 < kept < len(letters) ** 2
    assert "labelled" in shown_text and "interrupted" in error
    assert main(["labels", "run", str(captions), "--out", str(out), "--labels.client.kind", "scripted"]) == 0
    assert count(out) == len(letters) ** 2


def count(path):
    if not path.exists() or path.stat().st_size == 0:
        return 0
    try:
        with LabelStore(path, read_only=True) as store:
            return store.count()
    except ValueError:  # being made
        return 0


# ---- list


def test_filters_and_orders():
    sure = label("B.", "helpful", model="m", probability=0.9, time_s=3)
    unsure = label("A.", "neutral", model="m", probability=0.4, time_s=1)
    plain, failed = label("A.", "helpful", time_s=2), label("C.", "rubbish", goal="gold", time_s=4)
    labels = [sure, unsure, plain, failed]

    def kept(**flags):
        return [x for x in labels if is_wanted(x, ListFlags(labels=".", **flags))]

    assert kept(match="a.") == [unsure, plain] and kept(annotator="m") == [sure, unsure]
    assert kept(value="0") == [unsure] and kept(value="none") == [failed] == kept(failed=True) == kept(goal="gold")
    assert kept(prompt="pair-1") == []
    counts = {"A.": 2, "B.": 9, "C.": 1}
    assert [confidence(x) for x in labels] == [pytest.approx(0.9), pytest.approx(0.6), None, None]
    assert ordered(labels, "time", counts) == [failed, sure, plain, unsure]
    assert ordered(labels, "confidence", counts) == [unsure, sure, plain, failed]
    assert ordered(labels, "count", counts) == [sure, unsure, plain, failed]
    assert ordered(labels, "disagreement", counts) == [plain, unsure]
    assert [soft_value(x) for x in (sure, plain, failed)] == [0.9, 1.0, None]
    assert soft_value(label("A.", "unknown", probability=0.3)) is None
    assert spreads(labels) == {(caption_id("A."), 0, "score"): pytest.approx(0.6)}


def test_the_list_shows_confidence_and_which_of_a_pair_is_better(tmp_path, capsys):
    store = store_of(
        tmp_path / "s.sqlite",
        label("You win.", "first", "You lose.", probability=0.75),
        label("You win.", "first", "You draw.", probability=0.5),
        label("You win.", "helpful", model="m"),
    )
    assert asked(label("A.", "second", "B.\nC.")) == "A.  <  B. / C."
    assert [asked(label("A.", r, "B.")) for r in ("equal", "unknown")] == ["A.  =  B.", "A.  ?  B."]
    assert main(["labels", "list", str(store), "--prompt", "pair-1"]) == 0
    table = capsys.readouterr().out
    assert "0.75" in table and "0.50" in table and "2 of 2 matching, 3 in all" in table
    assert "sure" in table and "goal" not in table  # one goal for all
    assert main(["labels", "list", str(store), "--value", "good"]) == 2


# ---- audit


def test_agreement_and_kappa_by_hand():
    # 7 of 10 agree. A says helpful 5 times, B 6 times: chance 0.5 x 0.6 + 0.5 x 0.4 = 0.5; kappa (0.7 - 0.5) / 0.5.
    a, b = by_lexicon_and_model()
    found = compare([*a, label("Only A.", "helpful")], [*b, label("Only B.", "helpful", model="m")], {"Event F.": 7})
    assert found.num_compared == 10 and found.agreement == pytest.approx(0.7) and found.kappa == pytest.approx(0.4)
    assert found.categories == ("helpful", "neutral", "unhelpful")
    assert found.confusion == {
        ("helpful", "helpful"): 4, ("helpful", "neutral"): 1, ("neutral", "helpful"): 2, ("neutral", "neutral"): 3,
    }  # fmt: skip
    # Confidence of B: E 0.9 (neutral at 0.1), G 0.6 + 0.24, F 0.6 + 0.2.
    assert [pair.a.text for pair in found.disagreements] == ["Event E.", "Event G.", "Event F."]


def test_frequent_disagreements_come_first_where_nobody_says_how_sure():
    a = [label(text, "helpful") for text in ("A.", "B.", "C.")]
    b = [label(text, "neutral", model="m") for text in ("A.", "B.", "C.")]
    found = compare(a, b, {"B.": 5, "C.": 9})
    assert [pair.a.text for pair in found.disagreements] == ["C.", "B.", "A."]


def test_what_is_not_defined_is_not_a_number():
    same = compare([label("A.", "helpful")], [label("A.", "helpful", model="m")], {})
    assert same.agreement == 1 and same.kappa is None
    nothing = compare([label("A.", "unknown")], [label("A.", "helpful", model="m")], {})
    assert (nothing.num_compared, nothing.unanswered, nothing.agreement, nothing.kappa) == (0, 1, None, None)


def test_pairs_asked_the_other_way_round_are_turned():
    a = [label("A.", "first", "B."), label("C.", "equal", "D.")]
    b = [label("B.", "second", "A.", model="m", probability=0.1), label("C.", "second", "D.", model="m")]
    found = compare(a, b, {})
    assert found.confusion == {("first", "first"): 1, ("equal", "second"): 1}
    assert found.categories == ("first", "second", "equal")


def test_prompts_with_other_choices_are_compared_by_value():
    a = [label("A.", "helpful"), label("B.", "neutral")]
    b = [label("A.", "yes", model="m", prompt="other-1"), label("B.", "yes", model="m", prompt="other-1")]
    b = [Label(**{f: getattr(x, f) for f in x.__slots__} | {"value": 1.0, "failed": False}) for x in b]
    found = compare(a, b, {})
    assert found.categories == ("1", "0") and found.confusion == {("1", "1"): 1, ("0", "1"): 1}


def test_audit_chooses_names_where_there_are_two_and_asks_where_there_are_more(tmp_path, capsys):
    a, b = by_lexicon_and_model()
    pairs = [label("A.", "first", "B."), label("A.", "equal", "B.", model="m")]
    store, out = store_of(tmp_path / "s.sqlite", *a, *b, *pairs), tmp_path / "audit.json"
    assert main(["labels", "audit", str(store), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "n 10, agreement 0.700, Cohen's kappa 0.400" in printed
    single, paired = json.loads(out.read_text())["audits"]
    assert (single["a"], single["b"]) == ("lexicon@single-1", "m@single-1")
    assert single["confusion"] == [[4, 1, 0], [2, 3, 0], [0, 0, 0]] and single["kappa"] == pytest.approx(0.4)
    assert [row["text"] for row in single["disagreements"]] == ["Event E.", "Event G.", "Event F."]
    assert paired["asked_about"] == "pairs" and paired["n"] == 1
    store_of(store, label("Event A.", "helpful", model="third"))
    assert main(["labels", "audit", str(store)]) == 2
    assert "lexicon@single-1 or m@single-1 or third@single-1" in capsys.readouterr().err
    assert main(["labels", "audit", str(store), "--a", "m@single-1", "--b", "third"]) == 0
    assert main(["labels", "audit", str(store), "--a", "nobody"]) == 2


def test_audit_compares_two_stores(tmp_path, capsys):
    a, b = by_lexicon_and_model()
    one, two = store_of(tmp_path / "1.sqlite", *a), store_of(tmp_path / "2.sqlite", *b)
    assert main(["labels", "audit", str(one), str(two)]) == 0
    assert "n 10, agreement 0.700" in capsys.readouterr().out
    assert main(["labels", "audit", str(one)]) == 2
    assert "there are labels of lexicon@single-1" in capsys.readouterr().err


# ---- export


def test_exports_hold_the_same_labels_and_nothing_half_written(tmp_path, monkeypatch, capsys):
    a, b = by_lexicon_and_model()
    store = store_of(tmp_path / "s.sqlite", *a, *b, label("Odd\nü.", "rubbish"))
    folder = tmp_path / "out"
    for ending in ("parquet", "csv", "jsonl"):
        assert main(["labels", "export", str(store), str(folder / f"x.{ending}")]) == 0
    columns = parquet.read_table(folder / "x.parquet").to_pylist()
    lines = [json.loads(line) for line in (folder / "x.jsonl").read_text().splitlines()]
    assert columns == lines and len(lines) == 21
    assert [row["text"] for row in csv.DictReader((folder / "x.csv").open(newline=""))] == [x["text"] for x in lines]
    assert math.isclose(columns[10]["probability"], 0.6) and columns[0]["probability"] is None
    assert main(["labels", "export", str(store), str(folder / "x.xls")]) == 2
    assert ".parquet, .csv, .jsonl" in capsys.readouterr().err

    def breaks(out, names, rows):
        out.write_text("half")
        raise OSError("disk full")

    before = (folder / "x.csv").read_bytes()
    monkeypatch.setitem(labels.WRITERS, ".csv", breaks)
    with pytest.raises(OSError, match="disk full"):
        labels.export(parse(labels.ExportFlags, [str(store), str(folder / "x.csv")], "x"))
    assert (folder / "x.csv").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["x.csv", "x.jsonl", "x.parquet"]


def test_an_empty_store_has_the_same_columns(tmp_path):
    store = store_of(tmp_path / "s.sqlite")
    assert main(["labels", "export", str(store), str(tmp_path / "x.parquet")]) == 0
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.num_rows == 0 and str(table.schema.field("value").type) == "double"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("labels", None),
        ("labels list --limit 3", "labels list needs a run folder or a label store"),
        ("labels run", "labels run needs a file of captions"),
        ("labels gather MiniHack-Rom-5x5-v0", "MiniHack-Room-5x5-v0"),
        ("labels run nowhere.txt", "nowhere.txt"),
        ("labels gathr x", "unknown labels action 'gathr'; did you mean gather"),
    ],
)
def test_bad_input_gets_one_sentence(argv, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv.split()) == (0 if says is None else 2)
    printed = capsys.readouterr()
    assert (says or "usage: yendor labels ACTION") in (printed.err or printed.out)
    assert list(tmp_path.iterdir()) == []
