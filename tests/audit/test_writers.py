"""However many write at once, and whatever kills them: no gap, no fork, and each change has its record."""

import asyncio
import os
import random
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import orjson
import pytest
from sqlalchemy import select

from server_monitor.audit import sources, verify
from server_monitor.audit.verify import Report
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records, groups, login_failures
from tests.audit.test_verify_database import SIGNER
from tests.support import forger as forging
from tests.support.audit_writer import changes
from tests.support.console import Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S

PROCESSES = 4


def judged(url: str) -> Report:
    with sources.database(url) as log:
        return verify.verify(log.parts, log.notes, trusted=[SIGNER.verifier(1)], now=datetime.now(UTC))


async def require_whole(db: Database, url: str, acknowledged: Collection[str]) -> None:
    """The log is intact, and the changes, those that were acknowledged and those in the log are the same."""
    await forging.sign(db, SIGNER)
    report = await asyncio.to_thread(judged, url)
    assert report.is_intact, report
    assert report.records == report.size
    async with db.reading() as conn:
        update = select(audit_records.c.target_id).where(audit_records.c.action == "server.update")
        recorded = list((await conn.execute(update)).scalars())
        rows = set((await conn.execute(select(login_failures.c.key))).scalars())
    assert len(recorded) == len(set(recorded))
    assert set(recorded) == rows == set(acknowledged)


async def test_256_writers_at_once_leave_no_gap_and_no_fork(db: Database, database_url: str) -> None:
    done = await changes(db, "here", writers=256, each=3)

    assert len(done) == 512
    await require_whole(db, database_url, done)


async def test_processes_that_write_at_once_leave_no_gap_and_no_fork(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    """Writers of several processes, and the program's own commands between them."""
    shell = ConsoleProcess(tmp_path / "data", {"DATABASE_URL": database_url})
    shell.data_dir.mkdir()

    async with asyncio.TaskGroup() as tasks:
        others = [tasks.create_task(writer(database_url, f"p{number}")) for number in range(PROCESSES)]
        here = tasks.create_task(changes(db, "here", writers=8, each=20))
        added = tasks.create_task(add_users(shell))

    done = [*here.result(), *(identity for other in others for identity in other.result())]
    assert len({identity.partition("-")[0] for identity in done}) == PROCESSES + 1
    await require_whole(db, database_url, done)
    async with db.reading() as conn:
        created = select(audit_records.c.body).where(audit_records.c.action == "user.create")
        bodies = (await conn.execute(created)).scalars().all()
    assert len(bodies) == len(added.result()) > 0


async def writer(url: str, name: str) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.audit_writer", url, name, "8", "20"), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().split()


async def add_users(shell: ConsoleProcess) -> list[str]:
    added = []
    for name in ("olga", "piet"):
        words = ("user", "add", name, "--role", "viewer", "--password-stdin")
        code, _, _ = await shell.run(*words, stdin=b"walnut orbit cactus thirty\n")
        added += [name] if code == 0 else []
    return added


# --- kill -9 of the real console ---


async def make_groups(browser: Browser, name: str, acknowledged: set[str], begun: asyncio.Event) -> None:
    """Until the console is gone."""
    for number in range(10_000):
        group = f"{name}-{number}"
        try:
            answer = await browser.send("POST", "/api/groups", {"name": group})
        except httpx2.TransportError:
            return
        if answer.status_code == 201:
            acknowledged.add(group)
            begun.set()


async def write_and_kill(console: ConsoleProcess, browser: Browser, round_: int, after_s: float) -> set[str]:
    """Have eight people change things, and kill the console some time after the first change."""
    acknowledged: set[str] = set()
    begun = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for person in range(8):
            tasks.create_task(make_groups(browser, f"r{round_}-{person}", acknowledged, begun))
        async with asyncio.timeout(PATIENCE_S):
            await begun.wait()
        await asyncio.sleep(after_s)  # The moment is what is random here.
        await console.kill()
    return acknowledged


@pytest.mark.parametrize("rounds", [3, pytest.param(10, marks=pytest.mark.long)])
async def test_a_console_killed_under_load_has_a_record_of_every_change(
    console: ConsoleProcess, browser: Browser, rounds: int
) -> None:
    seed = int.from_bytes(os.urandom(4))
    chance = random.Random(seed)
    acknowledged: set[str] = set()

    for round_ in range(rounds):
        acknowledged |= await write_and_kill(console, browser, round_, chance.uniform(0, 0.6))
        code, out, err = await console.run("audit", "verify", "--json")
        assert code == 0, (seed, round_, out, err)
        await console.start()
        browser.client.base_url = console.url
    await console.stop()

    db = await Database.open(f"sqlite:///{console.data_dir / 'server-monitor.sqlite3'}")
    try:
        async with db.reading() as conn:
            created = select(audit_records.c.body).where(audit_records.c.action == "group.create")
            recorded = {orjson.loads(body)["target"]["name"] for body in (await conn.execute(created)).scalars()}
            made = set((await conn.execute(select(groups.c.name))).scalars())
    finally:
        await db.close()
    assert acknowledged <= recorded == made, seed
    assert len(acknowledged) > rounds
