"""A library of recordings on a real database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server_monitor.db.engine import Database
from server_monitor.terminal.library import Library
from tests.support.recordings import KEYRING, Stage


@pytest.fixture
async def library(db: Database, tmp_path: Path) -> AsyncIterator[Library]:
    library = Library(db, tmp_path / "recordings", KEYRING)
    yield library
    library.close()


@pytest.fixture
def stage(db: Database, library: Library) -> Stage:
    return Stage(db, library)
