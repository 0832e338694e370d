"""A run's preferences in its report: the tree as a picture, and how each level decides."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from rewards import reporting
from rewards.heron.report import REPORT_FILE, HeronReport, LevelReport, direction, margin, read_report
from rewards.reporting import Beside, Cell, Column, Drawing, Paragraph, Section, Table

_WIDTH, _BOX_WIDTH, _BOX_HEIGHT, _GAP = 620, 330, 88, 44
_LEFT, _TOP = 4, 4
_BAR_X, _BAR_WIDTH = 446, 166
_TRUNK_X = 40
_MAX_NAME_CHARS = 22
_DIRECTIONS = {1: ("\N{UPWARDS ARROW}", "var(--good)"), -1: ("\N{DOWNWARDS ARROW}", "var(--series-2)")}
"""By sign: the arrow that stands for it, and its colour."""


def preference_section(run: Path) -> Section | None:
    """What a report shows of a run's preferences; None where there are none. Without a tree: nothing but the facts.

    Raises:
        ValueError: the run's ``heron.json`` is damaged; the text names the file.
    """
    if not (run / REPORT_FILE).is_file():
        return None
    report = read_report(run)
    if not report.uses_tree:
        return Section(anchor="tree", title="Preferences", blocks=(_facts(report),))
    introduction = (
        "How two segments of play compare: the first level that tells them apart decides. Counted over random pairs of "
        "segments that the reward model has not learned from; intervals are 95\N{NO-BREAK SPACE}%."
    )
    description = "The preference tree: " + "; ".join(_sentence(level, report.mode) for level in report.levels)
    drawing = Drawing(svg=draw(report), description=description)
    tree = Beside(drawing=drawing, blocks=(_levels(report), _facts(report)))
    return Section(anchor="tree", title="Preference tree", blocks=(Paragraph(introduction), tree))


def _sentence(level: LevelReport, mode: str) -> str:
    decides = "decides nothing" if level.dead else f"decides {level.decided} of {level.compared} pairs"
    return f"{direction(level.sign)} {level.name} is better, {margin(level.margin, mode)}, {decides}"


def _levels(report: HeronReport) -> Table:
    numbers = tuple(Column(title=title, kind="number") for title in ("reach it", "decided", "agreement"))
    return Table(columns=(Column(title="level"), *numbers), rows=[_row(level) for level in report.levels])


def _row(level: LevelReport) -> tuple[Cell, ...]:
    interval = "" if level.accuracy is None else f"{_interval(level)}, n = {level.independent_pairs:,}"
    return (
        Cell(text=level.name, warning="dead" if level.dead else "", tooltip=level.description),
        Cell(text=reporting.whole(level.compared)),
        Cell(text=reporting.whole(level.decided)),
        Cell(text=reporting.share(level.accuracy), note=interval),
    )


def _interval(level: LevelReport) -> str:
    """'80 to 95', in per cent."""
    return " to ".join(f"{100 * end:.0f}" for end in (level.accuracy_low, level.accuracy_high) if end is not None)


def _facts(report: HeronReport) -> Table:
    facts = [
        ("agreement of the model, all decided pairs", reporting.share(report.accuracy)),
        ("rank correlation with the tree", reporting.figure(report.rank_correlation)),
        ("agreement on pairs that others judged", reporting.share(report.judged_accuracy)),
        ("pairs that no level decides", reporting.share(report.tie_share)),
        ("triples preferred in a circle", reporting.share(report.cycle_share)),
        ("comparison", report.mode if report.uses_tree else "by others than a tree"),
        ("segments kept, held out", f"{report.segments:,}, {report.held_out_segments:,}"),
        ("pairs judged", ", ".join(f"{count:,} by {source}" for source, count in report.sources.items())),
        ("version of the reward", f"{report.version:,}"),
    ]
    known = [(name, value) for name, value in facts if value not in ("", reporting.NONE)]
    return Table(
        columns=(Column(), Column(kind="number")), rows=[(Cell(text=name), Cell(text=value)) for name, value in known]
    )


# -- drawing ----------------------------------------------------------------------------------------


def draw(report: HeronReport) -> str:
    """The tree as an ``<svg>`` element: a box a level, the most important at the top, and what leaves each.

    The same report gives the same text. Colours are the page's ``--ink``, ``--muted``, ``--rule``, ``--paper``,
    ``--good``, ``--series-1`` and ``--series-2``.
    """
    pairs = report.levels[0].compared if report.levels else 0
    step = _BOX_HEIGHT + _GAP
    parts = []
    for number, level in enumerate(report.levels):
        top = _TOP + number * step
        parts += [
            _box(number + 1, level, report.mode, top),
            _exits(level, pairs, top),
            _trunk(level, pairs, top + _BOX_HEIGHT),
        ]
    bottom = _TOP + len(report.levels) * step
    parts.append(_tie(report.tie_share, bottom))
    body = "".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {bottom + 44}" role="img" aria-hidden="true" font-size="13">{body}</svg>'


def _text(x: float, y: float, text: str, **attributes: Any) -> str:
    given = {"fill": "var(--ink)"} | {name.replace("_", "-"): value for name, value in attributes.items()}
    return f'<text x="{x:g}" y="{y:g}"{_attributes(given)}>{escape(text)}</text>'


def _shape(tag: str, **attributes: Any) -> str:
    return f"<{tag}{_attributes({name.replace('_', '-'): value for name, value in attributes.items()})}/>"


def _attributes(values: dict[str, Any]) -> str:
    return "".join(f' {name}="{escape(str(value))}"' for name, value in values.items())


def _box(number: int, level: LevelReport, mode: str, top: float) -> str:
    ink = "var(--muted)" if level.dead else "var(--ink)"
    outline = {"stroke": "var(--rule)", "stroke_width": 1.5} | ({"stroke_dasharray": "5 4"} if level.dead else {})
    accent = "var(--rule)" if level.dead else "var(--series-1)"
    x = _LEFT + 18
    return (
        f"<g><title>{escape(level.description or level.name)}</title>"
        + _shape("rect", x=_LEFT, y=top, width=_BOX_WIDTH, height=_BOX_HEIGHT, rx=9, fill="var(--paper)", **outline)
        + _shape("rect", x=_LEFT, y=top + 12, width=4, height=_BOX_HEIGHT - 24, rx=2, fill=accent)
        + _text(x, top + 27, f"{number}", fill="var(--muted)")
        + _text(x + 18, top + 27, _shortened(level.name), font_size=15, font_weight=650, fill=ink)
        + _pill(level, top + 12)
        + _text(x + 18, top + 50, margin(level.margin, mode), fill="var(--muted)")
        + _text(x + 18, top + 72, _learned(level), fill=ink)
        + "</g>"
    )


def _learned(level: LevelReport) -> str:
    """What the reward model makes of the level."""
    if level.dead:
        return "dead: tells no two segments apart"
    if level.accuracy is None:
        return "agreement of the model not measured yet"
    return f"model agrees on {reporting.share(level.accuracy)} ({_interval(level)})"


def _pill(level: LevelReport, top: float) -> str:
    arrow, colour = _DIRECTIONS[level.sign]
    colour = "var(--muted)" if level.dead else colour
    right, width = _LEFT + _BOX_WIDTH - 12, 116
    return _shape(
        "rect", x=right - width, y=top, width=width, height=22, rx=11, fill="none", stroke=colour, stroke_opacity=0.5
    ) + _text(
        right - width / 2,
        top + 15.5,
        f"{arrow} {direction(level.sign)} is better",
        fill=colour,
        font_size=11.5,
        text_anchor="middle",
    )


def _exits(level: LevelReport, pairs: int, top: float) -> str:
    """The two arrows by which a decided pair leaves, and how many do."""
    start, end, middle = _LEFT + _BOX_WIDTH, _BAR_X - 14, top + _BOX_HEIGHT / 2
    colour = "var(--rule)" if level.dead or not level.decided else "var(--muted)"
    arrows = "".join(
        _shape("path", d=f"M{start} {y:g}H{end - 7}", stroke=colour, stroke_width=1.5, fill="none")
        + _shape("path", d=f"M{end} {y:g}l-9 -4.5v9z", fill=colour)
        + _text((start + end) / 2 - 2, y - 5, name, fill="var(--muted)", font_size=11.5, text_anchor="middle")
        for name, y in (("better", middle - 12), ("worse", middle + 18))
    )
    share = level.decided / pairs if pairs else 0.0
    bar = _shape("rect", x=_BAR_X, y=middle - 1, width=_BAR_WIDTH, height=8, rx=4, fill="var(--rule)")
    if level.decided:
        width = max(4.0, _BAR_WIDTH * share)
        bar += _shape("rect", x=_BAR_X, y=middle - 1, width=f"{width:.1f}", height=8, rx=4, fill="var(--series-1)")
    said = _text(_BAR_X, middle - 10, f"decides {reporting.share(share)}" if pairs else "no pairs yet", font_weight=600)
    of = f"{level.decided:,} of {level.compared:,} that reach it"
    return arrows + bar + said + _text(_BAR_X, middle + 25, of, fill="var(--muted)", font_size=11.5)


def _trunk(level: LevelReport, pairs: int, top: float) -> str:
    """The arrow to the next level, the thicker the more pairs go on."""
    share = level.ties / pairs if pairs else 0.0
    width = round(1.5 + 6.5 * share, 2)
    half = 5 + width / 2
    tip = top + _GAP - 2
    return (
        _shape("rect", x=_TRUNK_X - width / 2, y=top, width=width, height=_GAP - 11, fill="var(--muted)")
        + _shape("path", d=f"M{_TRUNK_X} {tip:g}l{-half:.2f} -10h{2 * half:.2f}z", fill="var(--muted)")
        + _text(_TRUNK_X + 18, top + 25, f"undecided {reporting.share(share)}", fill="var(--muted)", font_size=11.5)
    )


def _tie(share: float | None, top: float) -> str:
    said = "tie: no level decides" + ("" if share is None else f", {reporting.share(share)} of pairs")
    return _shape(
        "rect", x=_LEFT, y=top, width=_BOX_WIDTH, height=36, rx=18, fill="none", stroke="var(--rule)", stroke_width=1.5
    ) + _text(_LEFT + 36, top + 23, said, fill="var(--muted)")


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME_CHARS else name[: _MAX_NAME_CHARS - 1] + "\N{HORIZONTAL ELLIPSIS}"
