"""A worker with real hosts: Debian's sshd on loopback, each host with a home of its own on a real disk."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from server_monitor.db.engine import Database
from tests.support.machines import on_a_real_disk
from tests.support.sshd import Sshds, require_sshd
from tests.tasks.site import Site
from tests.tasks.talks import Talk


@pytest.fixture(autouse=True)
async def nothing_is_left_talking() -> AsyncIterator[None]:
    """A test that fails in its middle leaves scripts that wait for an answer, and the loop would wait for them."""
    Talk.begun.clear()
    yield
    for talk in Talk.begun:
        talk.cut()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk that the wrapper accepts, whatever the temporary directory is on."""
    with on_a_real_disk(tmp_path) as found:
        yield found


@pytest.fixture
def home(disk: Path) -> Path:
    """The home of an account, with nothing in it."""
    path = disk / "home"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def sshds(disk: Path) -> Iterator[Sshds]:
    """Starts as many hosts as the test asks for."""
    require_sshd()
    started = Sshds(disk)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
async def site(sqlite_db: Database, sshds: Sshds, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(sqlite_db, sshds, tmp_path / "output")
    try:
        yield made
    finally:
        await made.close()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """Production runs on uvloop."""
    return {"uvloop": uvloop.new_event_loop}
