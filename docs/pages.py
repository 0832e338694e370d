"""Pages that are written from the code they describe: ``python docs/pages.py`` from the repository's root.

The tests fail where a page is out of date.
"""

from __future__ import annotations

from pathlib import Path

from envs.differences import DIFFERENCES, UNBUILDABLE
from envs.schema import describe_schema
from launch.runs.glossary import glossary_markdown
from rewards.auto.program import describe_rejections

GLOSSARY, CODES = "glossary", "codes"
"""Names of written parts within a page: between ``<!-- NAME: written by docs/pages.py -->`` and an end."""


def pages(root: Path) -> dict[Path, str]:
    """``{file: its text}`` of every page that is written, as a whole or in a part."""
    programs = root / "docs" / "reward-programs.md"
    return {
        root / "README.md": _with_part(root / "README.md", GLOSSARY, glossary_markdown()),
        programs: _with_part(programs, CODES, describe_rejections()),
        root / "docs" / "schema.md": f"# What rewards may see\n\n{describe_schema().strip()}\n",
        root / "docs" / "games.md": _games(),
    }


def _with_part(page: Path, name: str, text: str) -> str:
    """A page with one part written anew."""
    begin, end = f"<!-- {name}: written by docs/pages.py -->", f"<!-- end of {name} -->"
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def _games() -> str:
    def rows(exceptions: tuple[object, ...]) -> str:
        return "\n".join(f"| `{e.tasks}` | {e.what} | {e.reason} |" for e in exceptions)  # pyright: ignore

    head = "| tasks | what | why |\n|---|---|---|\n"
    return (
        "# How our games differ from gymnasium's\n\n"
        "Same seeds and same actions give the same observations, rewards and ends as the registered environments "
        "(`tests/envs/test_differences.py`), but for these:\n\n"
        f"{head}{rows(DIFFERENCES)}\n\n"
        "Registered ids that cannot be built here:\n\n"
        f"{head}{rows(UNBUILDABLE)}\n"
    )


def main() -> None:
    """Write every page."""
    for path, text in pages(Path()).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
