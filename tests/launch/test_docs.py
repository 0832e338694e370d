import importlib.util
from pathlib import Path

import pytest

from launch.config.presets import PRESETS

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
pages = _module.pages


@pytest.mark.parametrize("path", pages(ROOT), ids=lambda path: path.name)
def test_written_pages_are_up_to_date(path):
    assert path.read_text() == pages(ROOT)[path], "run: python docs/pages.py"


def test_the_readme_names_every_preset():
    readme = (ROOT / "README.md").read_text()
    assert [name for name in PRESETS if f"`{name}`" not in readme] == []
