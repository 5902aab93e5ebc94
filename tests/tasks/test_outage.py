"""A database that goes away while commands run, and trouble that is one task's alone."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from server_monitor.db import migrate
from server_monitor.db.engine import Database
from server_monitor.errors import Unavailable
from server_monitor.tasks.output import LiveOutput, Outputs, Sizes
from server_monitor.tasks.sweeping import Sweeper
from tests.support.patience import until
from tests.support.postgres import Postgres
from tests.support.sshd import Sshds
from tests.tasks.site import COUNT, Site, count
from tests.tasks.test_execution import Scripted

pytestmark = pytest.mark.sshd


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A PostgreSQL server of this test alone, to be stopped."""
    with TemporaryDirectory(prefix="server-monitor-") as directory, Postgres(Path(directory)) as running:
        yield running


@pytest.fixture
async def on_postgres(server: Postgres, sshds: Sshds, tmp_path: Path) -> AsyncIterator[Site]:
    db = await Database.open(server.url("postgres"), node="one")
    await migrate.upgrade(db)
    site = Site(db, sshds, tmp_path / "output")
    try:
        yield site
    finally:
        await site.close()
        await db.close()


async def test_a_task_that_needs_a_new_connection_waits_for_the_database_that_knows_how_to_log_in(
    server: Postgres, on_postgres: Site
) -> None:
    site = on_postgres
    host, server_row = await site.start()
    async with site.worker() as worker:
        placed = await site.place(server_row, command=f"{COUNT}; until test -e ~/go; do sleep 0.05; done; exit 3")
        worker.wake()
        await until((host.home / "count").exists)
        with capture_logs() as said:
            await asyncio.to_thread(server.stop)
            host.drop_connections()
            await until(lambda: any(one["event"] == "task_waits_for_the_database" for one in said))
        (host.home / "go").touch()
        await asyncio.to_thread(server.start)
        [row] = await site.ended(placed)

    assert (row.status, row.exit_code) == ("failed", 3)
    assert count(host) == {row.id: 1}


async def test_a_host_that_cannot_be_connected_to_for_want_of_the_database_is_swept_another_day() -> None:
    class Gone(Scripted):
        async def open(self, target, script, on_data, on_closed, on_stderr=None):
            raise Unavailable("gone")

    sweeper = Sweeper(Gone("silence"))
    sweeper.used("s-1", None, 100_000.0)

    await sweeper.sweep_some(100_000.0)


class Broken(Outputs):
    """Fails for its first task in a way that nobody foresees."""

    has_failed = False

    @override
    async def begin(self, task_id: str, *, is_stored: bool, secrets: Sequence[bytes] = ()) -> LiveOutput:
        if not self.has_failed:
            self.has_failed = True
            raise ZeroDivisionError
        return await super().begin(task_id, is_stored=is_stored, secrets=secrets)


async def test_a_bug_over_one_task_ends_that_task_and_no_other(site: Site, tmp_path: Path) -> None:
    host, server = await site.start()
    site.outputs = Broken(tmp_path / "output", Sizes())
    async with site.worker() as worker:
        [row] = await site.run(worker, server, command=COUNT)
        [next_one] = await site.run(worker, server, command=COUNT)

    assert (row.status, row.cause) == ("interrupted", "console_failed")
    assert next_one.status == "success"
    assert count(host) == {next_one.id: 1}
