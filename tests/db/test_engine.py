"""Transactions are atomic, durable and share commits; readers never wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import orjson
import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import Event
from server_monitor.auth.actor import Actor, audited
from server_monitor.db.engine import POSTGRES_POOL, READERS, Database, at_commit
from server_monitor.db.tables import audit_records, login_failures
from server_monitor.errors import Unavailable
from server_monitor.telemetry import metrics
from tests.support.patience import PATIENCE_S


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    db = await Database.open(url)
    try:
        yield db
    finally:
        await db.close()


async def add(db: Database, key: str) -> None:
    async with db.transaction() as conn:
        await conn.execute(insert(login_failures).values(key=key, failures=1, last_failed_at=datetime.now(UTC)))


async def count(db: Database) -> int:
    async with db.reading() as conn:
        return (await conn.execute(select(func.count()).select_from(login_failures))).scalar_one()


async def test_a_failed_transaction_leaves_nothing_and_disturbs_nobody(db: Database) -> None:
    async def fail() -> None:
        async with db.transaction() as conn:
            await conn.execute(insert(login_failures).values(key="lost", failures=1, last_failed_at=datetime.now(UTC)))
            raise RuntimeError("changed my mind")

    results = await asyncio.gather(*(add(db, f"k{i}") for i in range(20)), fail(), return_exceptions=True)

    assert [type(r) for r in results if r is not None] == [RuntimeError]
    assert await count(db) == 20


async def test_writers_that_queue_share_commits(sqlite_db: Database) -> None:
    before = metrics.database_commits._value.get()
    await asyncio.gather(*(add(sqlite_db, f"k{i}") for i in range(100)))

    assert metrics.database_commits._value.get() - before < 10
    assert await count(sqlite_db) == 100


async def test_a_cancelled_writer_does_not_strand_the_others(sqlite_db: Database) -> None:
    entered = asyncio.Event()

    async def hang() -> None:
        async with sqlite_db.transaction():
            entered.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        hung = tasks.create_task(hang())
        await entered.wait()
        others = [tasks.create_task(add(sqlite_db, f"k{i}")) for i in range(5)]
        await asyncio.sleep(0)
        others[2].cancel()
        hung.cancel()

    assert await count(sqlite_db) == 4
    await add(sqlite_db, "after")


async def test_a_change_whose_maker_gives_up_at_the_last_moment_has_its_record(
    sqlite_db: Database, admin: Actor
) -> None:
    """At whatever point it is cancelled: both or neither."""

    async def change(key: str) -> None:
        async with sqlite_db.transaction() as conn:
            await conn.execute(insert(login_failures).values(key=key, failures=1, last_failed_at=datetime.now(UTC)))
            await log.append(conn, Event("auth.login", audited(admin), meta={"key": key}))

    for turns in range(40):
        doomed = asyncio.ensure_future(change(f"k{turns}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        doomed.cancel()
        await asyncio.gather(doomed, change(f"other{turns}"), return_exceptions=True)

    async with sqlite_db.reading() as conn:
        changed = set((await conn.execute(select(login_failures.c.key))).scalars())
        recorded = {
            orjson.loads(body)["meta"]["key"] for body in (await conn.execute(select(audit_records.c.body))).scalars()
        }
    assert changed == recorded
    assert {f"other{turns}" for turns in range(40)} <= changed


async def test_a_bug_in_what_is_written_last_is_heard_and_stops_nobody_after_it(sqlite_db: Database) -> None:
    async def broken(_conn: AsyncConnection, _items: list[object]) -> None:
        raise ZeroDivisionError

    async def change() -> None:
        async with sqlite_db.transaction() as conn:
            at_commit(conn, broken, None)

    with pytest.raises(ZeroDivisionError):
        await change()

    await add(sqlite_db, "after")
    assert await count(sqlite_db) == 1


async def test_a_reader_sees_only_what_is_committed_and_cannot_write(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute(insert(login_failures).values(key="k", failures=1, last_failed_at=datetime.now(UTC)))
        assert await count(db) == 0
    assert await count(db) == 1
    with pytest.raises(Exception, match=r"(?i)read-?only|readonly"):
        async with db.reading() as conn:
            await conn.execute(insert(login_failures).values(key="x", failures=1, last_failed_at=datetime.now(UTC)))


@pytest.mark.long
async def test_a_reader_that_finds_no_connection_free_is_told_that_the_database_is_busy(sqlite_db: Database) -> None:
    async with AsyncExitStack() as readers:
        for _ in range(READERS):
            await readers.enter_async_context(sqlite_db.reading())
        with pytest.raises(Unavailable, match="busy"):
            await count(sqlite_db)


async def test_a_session_that_the_server_ends_is_no_bug_of_ours(postgres_url: str) -> None:
    """An administrator ends it, the server goes down, somebody cuts the line: the caller may try again."""
    async with opened(postgres_url) as db, opened(postgres_url) as other:

        async def write() -> None:
            async with db.transaction() as conn:
                pid = await conn.scalar(text("SELECT pg_backend_pid()"))
                async with other.transaction() as ending:
                    await ending.execute(text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": pid})
                await conn.execute(text("SELECT 1"))

        with pytest.raises(Unavailable, match="lost"):
            await write()
        await add(db, "after")
        assert await count(db) == 1


async def test_two_writers_in_each_others_way_are_no_bug_of_ours(postgres_url: str) -> None:
    async with opened(postgres_url) as db:
        await add(db, "one")
        await add(db, "two")
        both_hold = asyncio.Barrier(2)

        async def write(*keys: str) -> None:
            async with db.transaction() as conn:
                for key in keys:
                    await conn.execute(update(login_failures).where(login_failures.c.key == key).values(failures=2))
                    if key == keys[0]:
                        await both_hold.wait()

        outcomes = await asyncio.gather(write("one", "two"), write("two", "one"), return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {type(None), Unavailable}


@pytest.mark.long
async def test_a_pool_that_has_no_connection_left_makes_a_writer_wait_and_then_says_so(postgres_url: str) -> None:
    async with opened(postgres_url) as db, AsyncExitStack() as others:
        for _ in range(2 * POSTGRES_POOL):
            await others.enter_async_context(db.transaction())
        with pytest.raises(Unavailable, match="busy"):
            await add(db, "late")


@pytest.mark.parametrize("error", [OSError("no such file"), TimeoutError()])
async def test_what_the_caller_does_wrong_stays_its_own_error(db: Database, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        async with db.transaction():
            raise error
    with pytest.raises(IntegrityError):
        async with db.transaction() as conn:
            await conn.execute(insert(login_failures).values(key=None, failures=1, last_failed_at=datetime.now(UTC)))

    assert raised.value is error


async def test_a_directory_that_cannot_be_written_is_a_clear_refusal() -> None:
    with pytest.raises(Unavailable, match="cannot be opened"):
        await Database.open("sqlite:////proc/nowhere/x.sqlite3")


async def test_concurrent_appends_leave_no_gap(db: Database, admin: Actor) -> None:
    async def act(number: int) -> None:
        async with db.transaction() as conn:
            await log.append(conn, Event("auth.login", audited(admin), meta={"number": number}))
            if number % 5 == 0:
                raise RuntimeError("aborted")

    await asyncio.gather(*(act(i) for i in range(50)), return_exceptions=True)

    async with db.reading() as conn:
        seqs = list((await conn.execute(select(audit_records.c.seq).order_by(audit_records.c.seq))).scalars())
        assert seqs == list(range(40))
        assert await log.size(conn) == 40
