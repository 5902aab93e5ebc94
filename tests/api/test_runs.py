"""Runs over HTTP: what printed the same, who sees what of a run that spans groups, and trying again what is left."""

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from server_monitor.db.tables import task_output, tasks
from server_monitor.tasks.placing import Placed
from tests.support.api import Site, site_on
from tests.tasks.runs import add_servers, place, task_rows


@pytest.fixture
async def site(db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(db, tmp_path) as running:
        yield running


async def end(db: Database, placed: Placed, printed: list[bytes], status: str = "success") -> None:
    """Every task has ended, and printed this."""
    now = datetime.now(UTC)
    rows = [
        {
            "task_id": row.id,
            "stdout": out[:65_536],
            "stderr": b"",
            "stdout_bytes": len(out),
            "stderr_bytes": 0,
            "truncated": False,
            "digest": hashlib.sha256(out).digest(),
        }
        for row, out in zip(await task_rows(db, placed), printed, strict=True)
    ]
    async with db.transaction() as conn:
        ended = {"status": status, "exit_code": 0, "started_at": now, "finished_at": now}
        await conn.execute(update(tasks).where(tasks.c.run_id == placed.run_id).values(**ended))
        await conn.execute(insert(task_output), rows)


async def test_a_group_beyond_those_that_come_with_text_says_that_it_printed_something(site: Site) -> None:
    admin = await site.person(Role.ADMIN)
    placed = await place(site.db, await add_servers(site.db, 205))
    await end(site.db, placed, [f"up {number} days\n".encode() for number in range(205)])

    found = (await admin.get(f"/api/runs/{placed.run_id}/outputs"))["items"]

    assert [group["stdout"] is None for group in found] == [False] * 200 + [True] * 5
    last = found[-1]
    assert last["stdout_bytes"] > last["stdout_sent_bytes"] == 0
    more = await admin.get(f"/api/tasks/{last['tasks'][0]['id']}")
    assert more["stdout_sent_bytes"] == last["stdout_bytes"] == len(more["stdout"])


async def test_a_long_output_says_how_much_of_it_was_sent(site: Site) -> None:
    admin = await site.person(Role.ADMIN)
    placed = await place(site.db, await add_servers(site.db, 1))
    await end(site.db, placed, [b"\xff" * 100_000])

    [group] = (await admin.get(f"/api/runs/{placed.run_id}/outputs"))["items"]
    task = await admin.get(f"/api/tasks/{group['tasks'][0]['id']}")

    assert (group["stdout_sent_bytes"], task["stdout_sent_bytes"], group["stdout_bytes"]) == (16_384, 65_536, 100_000)
    assert len(group["stdout"]) == 16_384
