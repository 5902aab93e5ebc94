"""A library of recordings on a real database, and terminals on real hosts: Debian's sshd on loopback."""

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from server_monitor.db.engine import Database
from server_monitor.terminal.library import Library
from tests.support.recordings import KEYRING, Stage
from tests.support.sshd import Sshds
from tests.support.terminals import TerminalConsole, running_terminals


@pytest.fixture
async def library(db: Database, tmp_path: Path) -> AsyncIterator[Library]:
    library = Library(db, tmp_path / "recordings", KEYRING)
    yield library
    library.close()


@pytest.fixture
def stage(db: Database, library: Library) -> Stage:
    return Stage(db, library)


@pytest.fixture
async def terminals(sqlite_db: Database, sshds: Sshds, tmp_path: Path) -> AsyncIterator[TerminalConsole]:
    async with running_terminals(sqlite_db, sshds, tmp_path / "recordings") as console:
        yield console


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """Production runs on uvloop."""
    return {"uvloop": uvloop.new_event_loop}
