from pathlib import Path

import pytest

from launch.config.presets import PRESETS
from launch.docs import pages

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", pages(ROOT), ids=lambda path: path.name)
def test_written_pages_are_up_to_date(path):
    assert path.read_text() == pages(ROOT)[path], "run: python -m launch.docs"


def test_the_readme_names_every_preset():
    readme = (ROOT / "README.md").read_text()
    assert [name for name in PRESETS if f"`{name}`" not in readme] == []
