"""The report's tables: evaluations, captions, events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.report import formats

_MAX_CAPTIONS, _MAX_PAID, _MAX_REASONS, _MAX_EVENTS = 25, 10, 8, 200
_ROUTINE_EVENTS = frozenset({"checkpoint"})

Rows = Sequence[Mapping[str, Any]]

_SOLVED_COLUMNS = (
    ("env_return", "return", formats.figure),
    ("episode_steps", "steps", formats.figure),
    ("steps_to_success", "steps where solved", formats.figure),
    ("death_rate", "died", formats.share),
    ("truncated_rate", "out of time", formats.share),
)
_SCORED_COLUMNS = (
    ("score_median", "median", formats.figure),
    ("max_depth", "depth", formats.figure),
    ("max_xp_level", "level", formats.figure),
    ("turns", "turns", formats.figure),
    ("progression", "progression", formats.share),
    ("env_return", "return", formats.figure),
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
    summaries = [read_json(path) for path in sorted(folder.glob("*.json"))]
    told = [s for s in summaries if isinstance(s, dict) and isinstance(s.get("summary"), dict)]
    # NetHack itself cannot be solved in a training run: its figure is the score.
    scored = [s for s in told if s["task"].startswith("NetHack") and "score" in s["summary"]]
    solved = [s for s in told if s not in scored]
    tables = [
        _evaluation_table("success", formats.share, _SOLVED_COLUMNS, solved),
        _evaluation_table("score", formats.figure, _SCORED_COLUMNS, scored),
    ]
    return [table for table in tables if table["rows"]]


def _evaluation_table(
    headline: str, form: Any, columns: Sequence[tuple[str, str, Any]], summaries: Rows
) -> dict[str, Any]:
    used = [c for c in columns if any(s["summary"].get(c[0]) is not None for s in summaries)]
    return {
        "headline": headline,
        "heads": [head for _, head, _ in used],
        "rows": [
            {
                "task": s["task"],
                "policy": _policy(s),
                "episodes": s["summary"].get("episodes"),
                "value": s["summary"].get(headline),
                "shown": form(s["summary"].get(headline)),
                "interval": s["summary"].get(f"{headline}_interval"),
                "interval_shown": [form(x) for x in s["summary"].get(f"{headline}_interval") or ()],
                "cells": [cell(s["summary"].get(key)) for key, _, cell in used],
                "ends": [
                    (title, _counted(s["summary"].get(key) or {}))
                    for key, title in (("end_reasons", "How episodes end"), ("death_causes", "What killed"))
                    if s["summary"].get(key)
                ],
            }
            for s in summaries
        ],
    }


def _policy(summary: Mapping[str, Any]) -> str:
    """Which policy, how it acts: 'step 500,000, sampled'."""
    source = summary.get("provenance") or {}
    who = f"step {source['step']:,}" if "step" in source else str(source.get("policy", ""))
    return ", ".join(part for part in (who, summary.get("mode")) if part)


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
    told = [e for e in events if e["kind"] not in _ROUTINE_EVENTS]
    shown = [
        {
            "time": str(e.get("time", ""))[:19].replace("T", " "),
            "step": e.get("step"),
            "kind": e["kind"].replace("_", " "),
            "text": _event_text(e),
        }
        for e in told[-_MAX_EVENTS:]
    ]
    return {"shown": shown, "num_hidden": len(told) - len(shown), "kinds": kinds}


def _event_text(event: Mapping[str, Any]) -> str:
    left = {k: v for k, v in event.items() if k not in ("kind", "step", "time", "command", "versions")}
    return "; ".join(f"{k}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in left.items())
