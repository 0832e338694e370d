"""Programs that admission and containment must deal with, and what must become of each.

``reward_programs/*.toml`` hold them, grouped by kind, a table for each, with one of

- ``source``: the whole text;
- ``body``: the lines of ``reward``; ``expression``: what it returns; ``before``: what stands before it;

``fill = {A = ["(", 200]}`` puts 200 brackets in place of ``<A>``. ``expected`` is

- ``benign``: admitted, and gives what a plain interpreter gives;
- ``reject``: refused before any of it runs, with the code ``code``;
- ``timeout``: admitted, but must be stopped by a budget of time or memory;
- ``contained``: admitted and run, but what comes out is sane: inputs unchanged, values finite, bounded, equal for
  equal inputs, or no answer at all.
"""

import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "reward_programs"
HEAD = "def reward(obs, prev_obs, action, info):\n"


@dataclass(frozen=True)
class Case:
    """A program and its fate."""

    name: str
    expected: str
    """benign, reject, timeout or contained."""
    source: str
    code: str = ""
    """Of the rejection."""


def _source(entry):
    source = entry.get("source")
    if source is None:
        body = entry["body"] if "body" in entry else f"return {entry['expression']}"
        source = entry.get("before", "") + HEAD + textwrap.indent(body.strip("\n"), "    ") + "\n"
    for mark, (text, number) in entry.get("fill", {}).items():
        source = source.replace(f"<{mark}>", text * number)
    return source


def _read():
    for path in sorted(FOLDER.glob("*.toml")):
        for name, entry in tomllib.loads(path.read_text()).items():
            yield Case(f"{path.stem}-{name}", entry["expected"], _source(entry), entry.get("code", ""))


CASES: list[Case] = list(_read())


def cases(*expected: str) -> list[Case]:
    """Those with one of these fates."""
    return [case for case in CASES if case.expected in expected]
