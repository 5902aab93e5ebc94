"""Pages that repeat the code say what the code says."""

from pathlib import Path

import pytest

from server_monitor.settings import Settings
from tools import reference

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", reference.PAGES)
def test_a_written_page_is_up_to_date(page: str) -> None:
    assert (ROOT / page).read_text() == reference.PAGES[page](), "run: python3 tools/dev.py docs"


def test_every_setting_is_explained() -> None:
    unexplained = [name for name, field in Settings.model_fields.items() if not field.description]
    assert unexplained == []


def test_a_copied_example_changes_nothing() -> None:
    """Every line of .env.example is a comment until somebody takes the # away."""
    assert all(not line or line.startswith("#") for line in (ROOT / ".env.example").read_text().splitlines())
