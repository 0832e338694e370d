import json
import math
import re
from html.parser import HTMLParser

import pytest

from envs.files import JsonLines
from launch.errors import UserError
from launch.report.build import build_report
from launch.report.charts import Chart, draw, short_number
from launch.runs.folder import write_config

CONFIG = {
    "preset": "keyroom_oni", "seed": 1, "total_steps": 500_000,
    "env": {"task": "MiniHack-KeyRoom-S5-v0", "penalty_step": -0.001},
    "reward": {"env": {"weight": 1.0}, "oni": {"kind": "retrieval", "weight": 0.1, "count_exponent": 0.5}},
    "ppo": {"learning_rate": 0.0002, "epochs": 1, "minibatch": 1024},
    "labels": {"mode": "barrier", "path": None},
}  # fmt: skip


def synthetic_run(folder, num_lines=180):
    """A run's folder as training leaves it, with every part that the report reads."""
    (folder / "eval").mkdir(parents=True)
    write_config(folder, CONFIG)
    lines = JsonLines(folder / "metrics.jsonl")
    for i in range(1, num_lines + 1):
        t = i / num_lines
        wave = 0.04 * math.sin(9 * i)
        success = min(1.0, max(0.0, 1 / (1 + math.exp(10 * (0.4 - t))) + wave))
        rollout = {"success": success, "env_return": success - 0.1, "episode_steps": 90 - 70 * success}
        oni_mean = 0.01 + 0.004 * math.sin(i / 9)
        lines.append({
            "step": int(t * 500_000), "time": 1.8e9 + i, "rollout/episodes": 90 * i,
            **{f"rollout/{name}": value for name, value in rollout.items()},
            "rewards/env/mean": 0.03 * success, "rewards/env/valid": 1.0, "rewards/env/episode_sum": success,
            "rewards/oni/mean": oni_mean, "rewards/oni/valid": 0.6 + 0.35 * t,
            "rewards/oni/episode_sum": 0.4 + 0.1 * t, "policy/entropy": 2.1 - 1.5 * t + wave,
            "policy/approx_kl": None if i == 50 else 0.004 + abs(wave) / 9,
            "policy/explained_variance": 0.9 * t, "labels/known": 60 * (1 - math.exp(-6 * t)),
            "labels/queued": max(0, 12 - i), "labels/uncovered": 5 * t, "labels/coverage": 0.6 + 0.35 * t,
            "time/steps_per_s": 4200 + 900 * wave, "time/elapsed_s": 1.2 * i,
        })  # fmt: skip
    lines.close()
    events = JsonLines(folder / "events.jsonl")
    for event in (
        {"kind": "started", "step": 0, "command": "yendor train keyroom_oni --seed 1",
         "versions": {"python": "3.11", "torch": "2.13.0", "nle": "1.3.0"}},
        {"kind": "checkpoint", "step": 100_000, "path": "000000100000"},
        {"kind": "worker_died", "step": 150_000, "worker": 1, "cause": "SIGSEGV in <nle>"},
        {"kind": "resumed", "step": 200_000, "checkpoint": "000000200000"},
        {"kind": "label_error", "step": 210_000, "text": "503 from the server, sent again"},
        {"kind": "finished", "step": 500_000},
    ):  # fmt: skip
        events.append({"time": "2026-01-02T03:04:05.678+00:00", **event})
    events.close()
    texts = {
        "You see here a key.": (900, 1.0, 31.0), "This door is locked.": (700, 0.0, 0.0),
        "g - a key named <The Master Key>.": (420, 1.0, 160.0), "You unlock the door.": (400, 1.0, 150.0),
        "It's a wall.": (5200, 0.0, 0.0), "Never mind.\nThe second page.": (310, None, 0.0),
        "You stub your toe.": (20, -1.0, -4.0),
    }  # fmt: skip
    captions = [{"text": t, "count": c, "label": label, "paid": p} for t, (c, label, p) in texts.items()]
    (folder / "captions.json").write_text(json.dumps(captions))
    keyroom = {
        "episodes": 200, "success": 0.945, "success_low": 0.904, "success_high": 0.969, "env_return": 0.91,
        "episode_steps": 21.4, "steps_to_success": 18.0, "death_rate": 0.01, "truncated_rate": 0.045,
        "score": 3.0, "end_reasons": {"TASK_SUCCESSFUL": 189, "ABORTED": 9, "DIED": 2},
        "death_causes": {"killed by a newt": 2},
    }  # fmt: skip
    nethack = {
        "episodes": 64, "success": 0.0, "success_low": 0.0, "success_high": 0.05, "score": 812.5,
        "score_low": 700.1, "score_high": 950.2, "score_median": 640.0, "max_depth": 2.4, "max_xp_level": 3.1,
        "turns": 2210.0, "progression": 0.013,
        "death_causes": {f"killed by a monster of kind {i}": 12 - i for i in range(11)},
    }  # fmt: skip
    run = {"policy": "run", "step": 500_000}
    for task, summary, source in (
        ("MiniHack-KeyRoom-S5-v0", keyroom, run),
        (
            "MiniHack-KeyRoom-S5-v0",
            keyroom | {"success": 0.01, "success_low": 0.003, "success_high": 0.036},
            {"policy": "random"},
        ),
        ("NetHackScore-v0", nethack, run),
    ):
        path = folder / "eval" / f"{source['policy']}-sampled.json"
        answer = {"tasks": [], "sampled": True, "provenance": source, "checkpoint_step": source.get("step")}
        answer = json.loads(path.read_text()) if path.exists() else answer
        answer["tasks"].append({"task": task, **summary})
        path.write_text(json.dumps(answer))
    (folder / "eval" / "one-episode.json").write_text(json.dumps({"seed": 1}))
    return folder


class Page(HTMLParser):
    """Checks that tags close, and collects text, ids and references."""

    VOID = ("meta", "link", "br", "img", "input")

    def __init__(self, html):
        super().__init__()
        self.open, self.words, self.ids, self.links, self.tags = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self._keep(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self._keep(attrs)

    def _keep(self, attrs):
        self.ids += [v for k, v in attrs if k == "id"]
        self.links += [v for k, v in attrs if k in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = synthetic_run(tmp_path_factory.mktemp("runs") / "keyroom_oni-001")
    build_report(folder, folder / "report.html")
    return (folder / "report.html").read_text()


def test_the_page_tells_what_the_folder_holds(html):
    text = Page(html).text
    for piece in (
        "keyroom_oni-001", "MiniHack-KeyRoom-S5-v0", "500,000", "3 min 36 s", "94.5 %", "(90.4 % to 96.9 %)",
        "killed by a newt", "others", "812", "1.3 %", "You unlock the door.", "none", "resumed",
        "SIGSEGV in <nle>", "ppo.learning_rate", "0.0002", "torch 2.13.0",
        "yendor train keyroom_oni --seed 1", "died", "out of time",
        "(700 to 950)", "step 500,000, sampled", "random, sampled", "task successful",
        "g - a key named <The Master Key>.", "label error", "oni per step", "Entropy", "KL divergence",
    ):  # fmt: skip
        assert piece in text, piece


def test_the_page_needs_nothing_else(html):
    page = Page(html)
    assert all(link.startswith("#") for link in page.links)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "url(http" not in html and "@import" not in html
    assert len(html) < 600_000


def test_figures_take_their_colours_from_the_page(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) | {link[1:] for link in page.links} <= set(page.ids)
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(svgs) >= 12
    for svg in svgs:
        assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r"#[\w-]+-[mp][0-9a-f]+", "", svg))
        assert "environment steps" in svg and "font-family" not in svg


def test_markup_in_captions_and_names_is_escaped(tmp_path):
    folder = synthetic_run(tmp_path / "r", num_lines=2)
    evil = "<script>alert(1)</script>"
    (folder / "captions.json").write_text(json.dumps([{"text": evil, "count": 1, "label": 1.0, "paid": 1.0}]))
    write_config(folder, {"env": {"task": evil}, "a": [evil]})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 600_000, f"rewards/{evil}/mean": 1.0}) + "\n")
    build_report(folder, folder / "report.html")
    page = (folder / "report.html").read_text()
    assert "<script" not in page.lower()
    Page(page)


def test_a_run_that_has_just_begun(tmp_path):
    write_config(tmp_path, {})
    build_report(tmp_path, tmp_path / "report.html")
    text = Page((tmp_path / "report.html").read_text()).text
    for piece in (
        "Not evaluated yet", "No metrics have been written yet", "kept no captions", "Nothing but routine",
        "were not recorded",
    ):  # fmt: skip
        assert piece in text


def test_starts_and_rows_may_lack_what_is_optional(tmp_path):
    write_config(tmp_path, {})
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "e.json").write_text(json.dumps({"tasks": [{"task": "A", "success": 1.0}]}))
    (tmp_path / "events.jsonl").write_text('{"kind": "started", "command": "yendor train x"}\n')
    build_report(tmp_path, tmp_path / "report.html")
    assert "yendor train x" in Page((tmp_path / "report.html").read_text()).text


def test_one_line_of_metrics_is_enough(tmp_path):
    write_config(tmp_path, {})
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "rollout/success": 1.0, "policy/entropy": null}\n')
    build_report(tmp_path, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 1 and "100.0 %" in page


def test_damaged_parts_are_named(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        build_report(tmp_path, tmp_path / "report.html")
    write_config(tmp_path, {})
    (tmp_path / "captions.json").write_text("[")
    with pytest.raises(ValueError, match=r"captions\.json is not JSON"):
        build_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_drawing_is_deterministic_and_thins_long_series():
    steps = list(range(10_000))
    chart = Chart(title="T", unit="u", series={"a": (steps, [math.sin(s / 500) for s in steps])})
    assert draw(chart) == draw(chart)
    assert len(draw(chart)) < 25_000
    assert Chart(title="T", unit="u", series={"a": ([1], [math.nan])}).is_empty


def test_short_numbers():
    assert [short_number(x) for x in (0, 0.0125, 9999, 20_000, 1_500_000, -2e9)] == [
        "0", "0.0125", "9999", "20k", "1.5M", "-2G",
    ]  # fmt: skip
