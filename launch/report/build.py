"""Reads a run's folder and writes one HTML file that needs nothing else, neither files nor network.

What is read, all of it optional but ``config.json``:

* ``metrics.jsonl``: the curves.
* ``events.jsonl``: resumes, worker deaths, errors; ``command`` and ``versions`` of a ``started`` event.
* ``captions.json``: a list of ``{"text", "count", "label", "paid"}``.
* what each reward keeps there for its own section.
* ``eval/*.json``: the summaries that ``launch.evaluation.evaluation`` writes; other files there are passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from envs.files import write_atomic
from launch.config.flags import validate
from launch.report import sections
from launch.report.charts import Chart, draw, series_colour
from launch.report.sections import Rows
from launch.runs.folder import flatten, read_config, read_events
from launch.runs.glossary import glossary
from launch.runs.metrics import read_metrics
from launch.runs.progress import duration
from rewards import reporting
from rewards.config import RewardConfig
from rewards.reporting import Listing, Paragraph, Section, Table


@dataclass(frozen=True, kw_only=True, slots=True)
class _Curve:
    """What the page's standard charts show."""

    title: str
    unit: str
    metrics: Mapping[str, str]
    """``{name of the series: metric}``."""
    is_share: bool = False


_LEARNING = (
    _Curve(title="Success", unit="share of episodes", metrics={"success": "rollout/success"}, is_share=True),
    _Curve(title="Environment return", unit="reward per episode", metrics={"return": "rollout/env_return"}),
    _Curve(title="Score", unit="points per episode", metrics={"score": "rollout/score"}),
    _Curve(title="Depth", unit="dungeon level", metrics={"depth": "rollout/max_depth"}),
    _Curve(title="Experience", unit="experience level", metrics={"level": "rollout/max_xp_level"}),
    _Curve(title="Episode length", unit="steps", metrics={"steps": "rollout/episode_steps"}),
)
_POLICY = (
    _Curve(title="Entropy", unit="nats", metrics={"entropy": "policy/entropy"}),
    _Curve(title="KL divergence", unit="nats", metrics={"KL": "policy/approx_kl"}),
    _Curve(title="Explained variance", unit="1 is perfect", metrics={"explained": "policy/explained_variance"}),
    _Curve(title="Speed", unit="steps per second", metrics={"speed": "time/steps_per_s"}),
)
_PLANS = (
    _Curve(title="Plan head", unit="loss, nats a token", metrics={"loss": "offline/head_loss"}),
    _Curve(title="Critic", unit="loss", metrics={"members": "offline/critic_loss", "values": "offline/value_loss"}),
    _Curve(title="Value of logged states", unit="reward", metrics={"value": "offline/value"}),
    _Curve(title="Speed of learning", unit="updates per second", metrics={"speed": "time/updates_per_s"}),
)
_LABELS = (
    _Curve(
        title="Captions",
        unit="captions",
        metrics={"labelled": "labels/known", "waiting": "labels/queued", "no answer": "labels/uncovered"},
    ),
    _Curve(
        title="Label coverage",
        unit="share of occurrences",
        metrics={"coverage": "labels/coverage"},
        is_share=True,
    ),
)


def build_report(run_dir: Path, out: Path) -> None:
    """Write the report of a run.

    Args:
        run_dir: the run folder; it may still be training.
        out: the HTML file to write, replaced in one step.

    Raises:
        UserError: ``run_dir`` is no run folder.
        ValueError: one of its files is damaged; the text names it.
    """
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.tests |= {
        "paragraph": lambda block: isinstance(block, Paragraph),
        "table": lambda block: isinstance(block, Table),
        "listing": lambda block: isinstance(block, Listing),
    }
    page.filters |= {
        "figure": reporting.figure,
        "share": reporting.share,
        "signed": reporting.signed,
        "whole": reporting.whole,
    }
    write_atomic(out, page.get_template("template.html.j2").render(**_page(run_dir)))


def _page(run_dir: Path) -> dict[str, Any]:
    saved = read_config(run_dir)
    config, reward = flatten(saved), validate(RewardConfig, saved.get("reward", {}))
    lines, events = read_metrics(run_dir), read_events(run_dir)
    marks = [e["step"] for e in events if e["kind"] == "resumed" and e["step"] is not None]
    groups = (
        ("Learning", _LEARNING),
        ("Rewards", _reward_curves(lines)),
        ("Policy", _POLICY),
        ("Plans", _PLANS),
        ("Labels", _LABELS),
    )
    charts = [(title, _drawn(curves, lines, marks)) for title, curves in groups]
    return {
        "name": run_dir.resolve().name,
        "task": config.get("env.task") or f"what was logged in {config.get('data', 'an unnamed place')}",
        "preset": config.get("preset"),
        "tiles": _tiles(lines, config),
        "charts": [(title, drawn) for title, drawn in charts if drawn],
        "has_resumes": bool(marks),
        "evaluations": sections.evaluations(run_dir / "eval"),
        "rewards": _reward_sections(run_dir, reward, events),
        "captions": sections.captions(run_dir / "captions.json"),
        "config": list(config.items()),
        "events": sections.shown_events(events),
        "starts": [e for e in events if "command" in e or "versions" in e],
        "glossary": _used_glossary(lines, reward),
    }


def _reward_sections(run: Path, reward: RewardConfig, events: Rows) -> list[Section]:
    """What each reward that has something to show brings."""
    found = [kind.report(run, part, events) for kind, part in reward.paid.values()]
    return [section for section in found if section is not None]


# -- curves -----------------------------------------------------------------------------------------


def _reward_curves(lines: Rows) -> list[_Curve]:
    names = dict.fromkeys(name for line in lines for name in line)
    parts = [n.removeprefix("rewards/").removesuffix("/mean") for n in names if _is_part_mean(n)]
    # A part that gathers what belongs to no other is no curve where nothing does.
    parts = [p for p in parts if "other" not in p.split("/") or any(r.get(f"rewards/{p}/mean") for r in lines)]
    curves = []
    for part in parts:
        curves.append(_Curve(title=f"{part} per step", unit="mean reward", metrics={part: f"rewards/{part}/mean"}))
        curves.append(
            _Curve(
                title=f"{part} per episode",
                unit="mean sum of reward",
                metrics={part: f"rewards/{part}/episode_sum"},
            )
        )
    if parts:
        valid = {part: f"rewards/{part}/valid" for part in parts}
        curves.append(_Curve(title="Steps with a value", unit="share of steps", metrics=valid, is_share=True))
    return curves


def _is_part_mean(name: str) -> bool:
    return name.startswith("rewards/") and name.endswith("/mean")


def _drawn(curves: Iterable[_Curve], lines: Rows, marks: Sequence[float]) -> list[dict[str, Any]]:
    found = []
    for curve in curves:
        chart = Chart(
            title=curve.title,
            unit=curve.unit,
            series={
                n: s for n, metric in curve.metrics.items() if any(map(math.isfinite, (s := _series(lines, metric))[1]))
            },
            is_share=curve.is_share,
            marks=marks,
        )
        if not chart.is_empty:
            found.append(_card(chart))
    return found


def _series(lines: Rows, metric: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric; nan where it was not finite."""
    points = [(line["step"], line[metric]) for line in lines if metric in line]
    return [x for x, _ in points], [math.nan if y is None else y for _, y in points]


def _card(chart: Chart) -> dict[str, Any]:
    last = {name: _last_finite(values) for name, (_, values) in chart.series.items()}
    form = reporting.share if chart.is_share else reporting.figure
    described = ", ".join(f"{name} {form(value)}" for name, value in last.items())
    return {
        "title": chart.title,
        "unit": chart.unit,
        "svg": Markup(draw(chart)),  # our own drawing; its text was escaped by matplotlib
        "last": form(next(iter(last.values()))) if len(last) == 1 else None,
        "legend": [
            (name, series_colour(i), form(value)) for i, (name, value) in enumerate(last.items()) if len(last) > 1
        ],
        "described": f"{chart.title} over environment steps; at the end {described}",
    }


def _last_finite(values: Sequence[float]) -> float | None:
    return next((v for v in reversed(values) if math.isfinite(v)), None)


# -- figures ----------------------------------------------------------------------------------------

_TILES = (
    ("rollout/success", "success", "last 100 episodes"),
    ("rollout/env_return", "environment return", "last 100 episodes"),
    ("rollout/score", "score", "last 100 episodes"),
    ("rollout/episodes", "episodes", "played"),
    ("time/steps_per_s", "steps per second", "at the end"),
    ("labels/coverage", "label coverage", "of caption occurrences"),
)


def _tiles(lines: Rows, config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(figure, what it is, of what)."""
    if not lines:
        return []
    steps, last = lines[-1]["step"], {k: v for line in lines for k, v in line.items() if v is not None}
    what = "updates" if "kind" in config else "steps"
    planned = config.get("total_updates" if "kind" in config else "total_steps")
    tiles = [(f"{steps:,}", what, f"of {planned:,}" if isinstance(planned, int) else "so far")]
    if "time/elapsed_s" in last:
        tiles.append((duration(last["time/elapsed_s"]), "training time", "without pauses"))
    for metric, name, of in _TILES:
        if metric in last:
            is_share = metric in ("rollout/success", "labels/coverage")
            tiles.append((reporting.share(last[metric]) if is_share else reporting.figure(last[metric]), name, of))
    return tiles


def _used_glossary(lines: Rows, reward: RewardConfig) -> list[tuple[str, str]]:
    from fnmatch import fnmatchcase

    names = {name for line in lines for name in line}
    return [(n, text) for n, text in glossary(reward).items() if any(fnmatchcase(name, n) for name in names)]
