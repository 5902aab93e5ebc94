"""How exports end: whole, cut off, or completed by the next start; and who has to wait for whom."""

import asyncio
import http.client
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from server_monitor.audit import checkpoints, export, log, pages, search
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.audit.cursor import Place
from server_monitor.audit.export import Turns, started
from server_monitor.auth.actor import Actor, audited
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_head, audit_records
from server_monitor.errors import Gone, TooMany
from tests.support.console import Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S

SECRET = SecretStr("a secret for tests that is long enough")
CSV = "/api/export/audit/csv"


async def records(db: Database, action: str) -> list[dict[str, Any]]:
    rows = select(audit_records.c.body).where(audit_records.c.action == action).order_by(audit_records.c.seq)
    async with db.reading() as conn:
        return [orjson.loads(body) for body in (await conn.execute(rows)).scalars()]


async def write(db: Database, actor: Actor, count: int, **meta: Any) -> None:
    async with db.transaction() as conn:
        event = Event("server.update", audited(actor), AuditTarget("server", "s"), meta=meta)
        await log.append(conn, *[event] * count)


def everything(form: str = export.JSONL) -> pages.Wanted:
    return pages.Wanted(search.Filters(), form, pages.ASCENDING, None)


async def test_an_export_that_is_cut_off_is_recorded_as_a_failure(db: Database, admin: Actor, tmp_path: Path) -> None:
    await write(db, admin, 1500)
    signer = checkpoints.load_signer(tmp_path, db.node)

    async with started(db, signer, SECRET, everything(), actor=audited(admin)) as running:
        async for _ in running.chunks():
            break

    (begun,) = await records(db, "audit.export")
    (ended,) = await records(db, "audit.export_finished")
    assert (ended["outcome"], ended["reason"]) == ("failure", "export.cut_off")
    assert ended["meta"]["rows"] == 1000
    assert ended["cause"] == {"parent_seq": begun["seq"]}


async def test_the_start_is_in_the_log_before_the_first_byte(db: Database, admin: Actor, tmp_path: Path) -> None:
    signer = checkpoints.load_signer(tmp_path, db.node)

    async with started(db, signer, SECRET, everything(), actor=audited(admin)) as running:
        assert len(await records(db, "audit.export")) == 1
        assert [chunk async for chunk in running.chunks()] == []
        assert await records(db, "audit.export_finished") == []
        running.delivered()

    (ended,) = await records(db, "audit.export_finished")
    assert ended["outcome"] == "success"


async def test_large_records_come_in_small_batches(db: Database, admin: Actor, tmp_path: Path) -> None:
    """Memory is bounded by bytes, not only by records."""
    await write(db, admin, 150, text="x" * 60_000)
    signer = checkpoints.load_signer(tmp_path, db.node)

    async with started(db, signer, SECRET, everything(), actor=audited(admin)) as running:
        sizes = [len(chunk) async for chunk in running.chunks()]

    assert running.rows == 150
    assert max(sizes) <= export.BATCH_BYTES


def test_one_export_a_person() -> None:
    turns = Turns()
    with turns.taken_by("a"), pytest.raises(TooMany, match="You have an export running"), turns.taken_by("a"):
        pass
    with turns.taken_by("a"):
        pass


def test_four_exports_in_all() -> None:
    turns = Turns()
    with ExitStack() as running:
        for user in ("a", "b", "c", "d"):
            running.enter_context(turns.taken_by(user))
        with pytest.raises(TooMany, match="4 people have an export running"), turns.taken_by("e"):
            pass
    with turns.taken_by("e"):
        pass


async def test_pages_whose_records_were_pruned_meanwhile_are_refused(db: Database, admin: Actor) -> None:
    """A page with a hole in it would look whole."""
    await write(db, admin, 10)
    async with db.transaction() as conn:
        await conn.execute(update(audit_head).values(min_index=5))

    async def place(order: str, oldest: int, next_seq: int) -> Place:
        began = Place(10, oldest, next_seq, {}, order, "u", "csv")
        wanted = pages.Wanted(search.Filters(), "csv", order, 3, began)
        async with db.reading() as conn:
            return await pages.first_place(conn, wanted, audited(admin))

    assert (await place(pages.ASCENDING, 0, 5)).next_seq == 5
    assert (await place(pages.DESCENDING, 5, 7)).next_seq == 7
    for order, oldest, next_seq in ((pages.ASCENDING, 0, 4), (pages.DESCENDING, 4, 7)):
        with pytest.raises(Gone, match="archived and pruned"):
            await place(order, oldest, next_seq)


@pytest.mark.long
async def test_a_client_that_leaves_is_noticed_and_may_come_back(console: ConsoleProcess, browser: Browser) -> None:
    await fill(console)
    await abandon(console, browser)

    ended = await finished(browser)

    assert (ended["outcome"], ended["action"]) == ("failure", "audit.export_finished")
    assert (await browser.get(CSV)).status_code == 200


@pytest.mark.long
async def test_a_second_export_of_the_same_person_has_to_wait(console: ConsoleProcess, browser: Browser) -> None:
    await fill(console)
    connection = await abandon(console, browser, closing=False)

    refused = await browser.get(CSV)

    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    connection.close()
    await finished(browser)


@pytest.mark.long
async def test_a_killed_export_is_a_failure_after_the_next_start(console: ConsoleProcess, browser: Browser) -> None:
    await fill(console)
    connection = await abandon(console, browser, closing=False)

    await console.kill()
    connection.close()
    await console.start()
    browser.client.base_url = console.url

    ended = await finished(browser)
    assert (ended["outcome"], ended["meta_json"]) == ("failure", {"recovered": True})


async def fill(console: ConsoleProcess) -> None:
    """More records than the buffers between server and client hold."""
    from bench.audit_seed import seed

    database = console.data_dir / "server-monitor.sqlite3"
    await asyncio.to_thread(seed, database, "node", 30_000)


async def abandon(console: ConsoleProcess, browser: Browser, *, closing: bool = True) -> http.client.HTTPConnection:
    """Begin an export and read only its first bytes."""
    cookie = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    connection = http.client.HTTPConnection(console.url.removeprefix("http://"), timeout=PATIENCE_S)

    def begin() -> None:
        connection.request("GET", f"{CSV}?limit=50000", headers={"Cookie": cookie})
        answer = connection.getresponse()
        assert (answer.status, len(answer.read(100))) == (200, 100)
        if closing:
            answer.close()
            connection.close()

    await asyncio.to_thread(begin)
    return connection


async def finished(browser: Browser) -> dict[str, Any]:
    """The newest record of an export's end, once there is one."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page = (await browser.get("/api/audit-logs", params={"action": "audit.export_finished"})).json()
            if page["items"]:
                return dict(page["items"][0])
            await asyncio.sleep(0.05)
