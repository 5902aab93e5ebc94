"""Pages that repeat the code say what the code says."""

import re
from pathlib import Path

import pytest

from server_monitor.db.tables import metadata
from server_monitor.settings import Settings
from tools import reference

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", reference.PAGES)
def test_a_written_page_is_up_to_date(page: str) -> None:
    assert (ROOT / page).read_text() == reference.PAGES[page](), "run: python3 tools/dev.py docs"


def test_every_table_has_its_writer_in_the_architecture() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    assert [table for table in metadata.tables if not re.search(rf"\b{table}\b", architecture)] == []


def test_every_package_is_in_the_architecture() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    packages = [path.parent.name for path in (ROOT / "src" / "server_monitor").glob("*/__init__.py")]
    assert [package for package in packages if f"| `{package}`" not in architecture] == []


def test_every_setting_is_explained() -> None:
    unexplained = [name for name, field in Settings.model_fields.items() if not field.description]
    assert unexplained == []


def test_a_copied_example_changes_nothing() -> None:
    """Every line of .env.example is a comment until somebody takes the # away."""
    assert all(not line or line.startswith("#") for line in (ROOT / ".env.example").read_text().splitlines())
