"""What every run's report has besides curves: evaluations, captions, events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards import reporting

_MAX_CAPTIONS, _MAX_PAID, _MAX_REASONS, _MAX_EVENTS = 25, 10, 8, 200
_ROUTINE_EVENTS = frozenset({"checkpoint"})

Rows = Sequence[Mapping[str, Any]]

_SOLVED_COLUMNS = (
    ("env_return", "return", reporting.figure),
    ("episode_steps", "steps", reporting.figure),
    ("steps_to_success", "steps where solved", reporting.figure),
    ("death_rate", "died", reporting.share),
    ("truncated_rate", "out of time", reporting.share),
)
_SCORED_COLUMNS = (
    ("score_median", "median", reporting.figure),
    ("max_depth", "depth", reporting.figure),
    ("max_xp_level", "level", reporting.figure),
    ("turns", "turns", reporting.figure),
    ("progression", "progression", reporting.share),
    ("env_return", "return", reporting.figure),
)


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        ValueError: it is damaged; the text names it.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """Tables of the summaries in a run's ``eval`` folder: tasks that are solved, games that are scored."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        summary = read_json(path)
        if isinstance(summary, dict) and isinstance(summary.get("tasks"), list):
            rows += [row | {"policy": _policy(summary)} for row in summary["tasks"]]
    # NetHack itself cannot be solved in a training run: its figure is the score.
    scored = [row for row in rows if row["task"].startswith("NetHack") and "score" in row]
    solved = [row for row in rows if row not in scored]
    tables = [
        _evaluation_table("success", reporting.share, _SOLVED_COLUMNS, solved),
        _evaluation_table("score", reporting.figure, _SCORED_COLUMNS, scored),
    ]
    return [table for table in tables if table["rows"]]


def _evaluation_table(headline: str, form: Any, columns: Sequence[tuple[str, str, Any]], rows: Rows) -> dict[str, Any]:
    used = [c for c in columns if any(row.get(c[0]) is not None for row in rows)]
    return {
        "headline": headline,
        "heads": [head for _, head, _ in used],
        "rows": [
            {
                "task": row["task"],
                "policy": row["policy"],
                "episodes": row.get("episodes"),
                "value": row.get(headline),
                "shown": form(row.get(headline)),
                "interval": _interval(row, headline),
                "interval_shown": [form(x) for x in _interval(row, headline) or ()],
                "cells": [cell(row.get(key)) for key, _, cell in used],
                "ends": [
                    (title, _counted(row.get(key) or {}))
                    for key, title in (("end_reasons", "How episodes end"), ("death_causes", "What killed"))
                    if row.get(key)
                ],
            }
            for row in rows
        ],
    }


def _interval(row: Mapping[str, Any], figure: str) -> tuple[float, float] | None:
    return (row[f"{figure}_low"], row[f"{figure}_high"]) if f"{figure}_low" in row else None


def _policy(summary: Mapping[str, Any]) -> str:
    """Which policy, how it acts: 'step 500,000, sampled'."""
    step = summary.get("checkpoint_step")
    who = str((summary.get("provenance") or {}).get("policy", "")) if step is None else f"step {step:,}"
    return f"{who}, {'sampled' if summary.get('sampled', True) else 'greedy'}"


def _counted(counts: Mapping[str, int]) -> list[tuple[str, int, float]]:
    """(text, count, share), the most frequent first, the rest as one."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    total = sum(counts.values())
    shown = [(text.lower().replace("_", " "), count, count / total) for text, count in ordered[:_MAX_REASONS]]
    rest = total - sum(count for _, count, _ in shown)
    return shown + ([("others", rest, rest / total)] if rest else [])


def captions(path: Path) -> dict[str, Any] | None:
    """The most paid and the most frequent captions of ``captions.json``; None where it is missing."""
    if not path.exists():
        return None
    rows = read_json(path)
    paid = sum(abs(row["paid"]) for row in rows)
    count = sum(row["count"] for row in rows)
    shown = [
        {
            **row,
            "count_share": row["count"] / count if count else 0.0,
            "paid_share": abs(row["paid"]) / paid if paid else 0.0,
        }
        for row in sorted(rows, key=lambda row: (-row["count"], row["text"]))
    ]
    most_paid = sorted(shown, key=lambda row: (-row["paid_share"], row["text"]))
    return {
        "frequent": shown[:_MAX_CAPTIONS],
        "paid": [row for row in most_paid[:_MAX_PAID] if row["paid"]],
        "num": len(rows),
    }


def shown_events(events: Rows) -> dict[str, Any]:
    """Events worth reading, newest last, and how many there were of each kind."""
    kinds: dict[str, int] = {}
    for event in events:
        kinds[event["kind"]] = kinds.get(event["kind"], 0) + 1
    noteworthy = [e for e in events if e["kind"] not in _ROUTINE_EVENTS]
    shown = [
        {
            "time": str(e.get("time", ""))[:19].replace("T", " "),
            "step": e.get("step"),
            "kind": e["kind"].replace("_", " "),
            "text": _event_text(e),
        }
        for e in noteworthy[-_MAX_EVENTS:]
    ]
    return {"shown": shown, "num_hidden": len(noteworthy) - len(shown), "kinds": kinds}


def _event_text(event: Mapping[str, Any]) -> str:
    left = {k: v for k, v in event.items() if k not in ("kind", "step", "time", "command", "versions")}
    return "; ".join(f"{k}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in left.items())
