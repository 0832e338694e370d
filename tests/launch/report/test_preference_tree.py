"""The picture of a preference tree in a run's report."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from launch.report.build import build_report
from rewards.heron.preference_section import draw, preference_section
from tests.launch.commands.test_factors import JUDGED, REPORT, level, run_folder


def words_of(svg):
    """Every text in a drawing, titles aside."""
    return [node.text for node in ElementTree.fromstring(svg).iter() if node.tag == "text"]


def bars_of(svg):
    """Widths of the coloured bars, the accents of the boxes aside."""
    rects = [node.attrib for node in ElementTree.fromstring(svg).iter("rect")]
    return [float(r["width"]) for r in rects if r.get("fill") == "var(--series-1)" and r["height"] == "8"]


def test_every_level_has_its_box_with_what_it_decides():
    said = words_of(draw(REPORT))
    assert [text for text in said if text in {one.name for one in REPORT.levels}] == [x.name for x in REPORT.levels]
    assert [text for text in said if text.startswith("decides")] == [
        "decides 30.0 %",
        "decides 0.0 %",
        "decides 40.0 %",
        "decides 25.0 %",
    ]
    assert [text for text in said if text.startswith("undecided")] == [
        "undecided 70.0 %",
        "undecided 70.0 %",
        "undecided 30.0 %",
        "undecided 5.0 %",
    ]
    assert [text[2:6] for text in said if text.endswith("is better")] == ["more", "more", "more", "less"]
    assert "model agrees on 90.0 % (80 to 95)" in said and "bins of 2.5" in said
    assert said.count("dead: tells no two segments apart") == 1
    assert said.count("better") == said.count("worse") == 4
    assert said[-1] == "tie: no level decides, 5.0 % of pairs"


def test_bars_are_in_proportion():
    success, new_tiles, turns = bars_of(draw(REPORT))
    assert (new_tiles / success, turns / success) == pytest.approx((4 / 3, 5 / 6), abs=0.01)


def test_a_dead_level_is_drawn_as_such():
    dashed = [node for node in ElementTree.fromstring(draw(REPORT)).iter("rect") if "stroke-dasharray" in node.attrib]
    assert len(dashed) == 1


def test_what_is_not_known_yet_is_not_drawn_as_0():
    levels = tuple(replace(level(x.name, compared=0, decided=0), margin=None) for x in REPORT.levels)
    nothing = replace(REPORT, levels=levels, tie_share=None, accuracy=None, cycle_share=None, rank_correlation=None)
    said = words_of(draw(nothing))
    assert said.count("no pairs yet") == 4 and "no margin yet" in said
    assert said[-1] == "tie: no level decides"
    assert not bars_of(draw(nothing))


def test_names_and_descriptions_of_users_are_escaped_and_kept_short():
    odd = replace(level("a" * 40, compared=4, decided=2), description="<b> & \"c\" 'd'")
    svg = draw(replace(REPORT, levels=(odd,)))
    titles = [node.text for node in ElementTree.fromstring(svg).iter("title")]
    assert titles == ["<b> & \"c\" 'd'"]
    assert "a" * 21 + "\N{HORIZONTAL ELLIPSIS}" in words_of(svg)


def test_the_drawing_needs_nothing_but_the_page():
    svg = draw(REPORT)
    assert svg == draw(REPORT)
    assert "http" not in svg and " id=" not in svg and "url(" not in svg and "#" not in svg


def test_the_report_shows_the_tree_where_there_is_one(tmp_path):
    run = run_folder(tmp_path / "run")
    build_report(run, tmp_path / "with.html")
    page = (tmp_path / "with.html").read_text()
    assert '<h2 id="tree">Preference tree</h2>' in page and draw(REPORT) in page
    assert "64,000 by tree" in page and "80 to 95, n = 150" in page
    (run / "heron.json").unlink()
    assert preference_section(run) is None
    build_report(run, tmp_path / "without.html")
    assert "Preference tree" not in (tmp_path / "without.html").read_text()


def test_without_a_tree_the_report_shows_only_what_others_judged(tmp_path):
    build_report(run_folder(tmp_path / "run", report=JUDGED), tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text()
    assert '<h2 id="tree">Preferences</h2>' in page and "40 by human" in page and "80.0" in page
    assert "Preference tree" not in page and '<figure aria-label="None' not in page and "tie: no level" not in page


def test_a_damaged_report_is_named(tmp_path):
    run = run_folder(tmp_path / "run")
    (run / "heron.json").write_text(json.dumps({"mode": "bins"}))
    with pytest.raises(ValueError, match=r"heron\.json is damaged"):
        build_report(run, tmp_path / "out.html")
