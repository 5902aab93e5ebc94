"""A disk that the wrapper accepts, whatever the temporary directory is on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machines import on_a_real_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with on_a_real_disk(tmp_path) as found:
        yield found


@pytest.fixture
def home(disk: Path) -> Path:
    """The home of an account, with nothing in it."""
    path = disk / "home"
    path.mkdir(mode=0o700)
    return path
