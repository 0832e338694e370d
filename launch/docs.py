"""Pages that are written from the code they describe: ``python -m launch.docs`` from the repository's root.

The tests fail where a page is out of date.
"""

from __future__ import annotations

from pathlib import Path

from envs.conformance import EXCEPTIONS, UNBUILDABLE
from envs.features import describe_schema
from launch.metrics import glossary_markdown

BEGIN, END = "<!-- glossary: written by launch.docs -->", "<!-- end of glossary -->"


def pages(root: Path) -> dict[Path, str]:
    """``{file: its text}`` of every written page; the README's own text is kept around its glossary."""
    readme = (root / "README.md").read_text()
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return {
        root / "README.md": f"{before}{BEGIN}\n\n{glossary_markdown()}\n{END}{after}",
        root / "docs" / "schema.md": f"# What rewards may see\n\n{describe_schema().strip()}\n",
        root / "docs" / "games.md": _games(),
    }


def _games() -> str:
    def rows(exceptions: tuple[object, ...]) -> str:
        return "\n".join(f"| `{e.tasks}` | {e.what} | {e.reason} |" for e in exceptions)  # pyright: ignore

    head = "| tasks | what | why |\n|---|---|---|\n"
    return (
        "# How our games differ from gymnasium's\n\n"
        "Same seeds and same actions give the same observations, rewards and ends as the registered environments "
        "(`tests/envs/test_conformance.py`), but for these:\n\n"
        f"{head}{rows(EXCEPTIONS)}\n\n"
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
