"""Databases, people and a whole console, all real."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import pytest
import structlog
from hypothesis import HealthCheck, settings

from server_monitor.auth.actor import Actor, ActorKind, Role
from server_monitor.db import migrate
from server_monitor.db.engine import Database
from tests.support.console import Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.postgres import Postgres

# How fast a machine is says nothing about the code: no test is timed, and none fails because others are busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A test that runs into a bug reads a traceback, and not every variable of every frame of it.
structlog.configure(
    processors=[structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
)

pytest_plugins = ["tests.support.disk", "tests.support.sshd"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: one that begins at the end would have the other processes wait for it."""
    slow = {item.path for item in items if item.get_closest_marker("long") or item.get_closest_marker("browser")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file at the newest version, to be copied by each test."""
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server on loopback with a migrated template database.

    Not below pytest's own temporary directory: as root the server runs under another account, and every pytest that
    starts takes that directory's permissions away from others again.
    """
    with (
        TemporaryDirectory(prefix="server-monitor-", dir=_roomy_memory()) as directory,
        Postgres(Path(directory)) as server,
    ):
        asyncio.run(server.execute(f"CREATE DATABASE {server.template}"))
        asyncio.run(_migrate(server.url(server.template)))
        yield server


def _roomy_memory() -> Path | None:
    """A file system in memory with room to spare, where making a database for each test takes a quarter of the time."""
    memory = Path("/dev/shm")
    room = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30
    return memory if room else None


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    path = tmp_path / "server-monitor.sqlite3"
    shutil.copyfile(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
async def postgres_url(postgres: Postgres) -> AsyncIterator[str]:
    async with postgres.fresh_database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database: once on SQLite, once on PostgreSQL."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with _opened(database_url) as database:
        yield database


@pytest.fixture
async def sqlite_db(sqlite_url: str) -> AsyncIterator[Database]:
    async with _opened(sqlite_url) as database:
        yield database


@pytest.fixture
def admin() -> Actor:
    return Actor(ActorKind.USER, "00000000-0000-7000-8000-000000000001", "ada", Role.ADMIN)


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[ConsoleProcess]:
    """A running console on an empty data directory."""
    process = ConsoleProcess(tmp_path / "data")
    await process.start()
    try:
        yield process
    finally:
        if process.is_running:
            await process.kill()


@pytest.fixture
async def browser(console: ConsoleProcess) -> AsyncIterator[Browser]:
    """The first admin's browser, logged in to the running console."""
    assert console.setup_token is not None
    async with httpx2.AsyncClient(base_url=console.url, timeout=PATIENCE_S) as client:
        page = Browser(client)
        await page.set_up(console.setup_token)
        yield page


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = await Database.open(url, node="test-node")
    try:
        yield database
    finally:
        await database.close()


async def _migrate(url: str) -> None:
    async with _opened(url) as database:
        await migrate.upgrade(database)
