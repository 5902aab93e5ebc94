"""What is stored of a run when it is asked for, and of its tasks when they end."""

import base64
from datetime import UTC, datetime

import orjson
import pytest
from sqlalchemy import select

from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records, runs, tasks
from server_monitor.errors import Conflict, Invalid
from server_monitor.tasks import listing, placing, waiting
from server_monitor.tasks.run import Status
from tests.support.fleet import records
from tests.tasks.runs import (
    ADA,
    add_servers,
    claim,
    ended,
    finish,
    output_rows,
    place,
    run_row,
    set_server,
    statuses,
    succeed,
    task_rows,
)

SECRET = "hunter2-and-some"


async def test_a_run_is_placed_with_a_task_for_each_server_and_one_record(db: Database) -> None:
    placed = await place(db, await add_servers(db, 3), reason="patch day")

    assert await statuses(db, placed) == ["queued"] * 3
    assert [row.server_name for row in await task_rows(db, placed)] == ["host-0000", "host-0001", "host-0002"]
    [record] = [one for one in await records(db) if one["action"].startswith("task.")]
    assert record["action"] == "task.create"
    assert record["meta"]["command"] == "uptime"
    assert record["meta"]["servers"] == ["host-0000", "host-0001", "host-0002"]
    assert (record["meta"]["verdict"], record["meta"]["digest"]) == ("allow", "sha256:0123")
    assert record["meta"]["reason"] == "patch day"


async def test_a_run_on_a_thousand_servers_fits_into_its_record(db: Database) -> None:
    await place(db, await add_servers(db, 1_000), command="x" * 10_000)

    record = (await records(db))[-1]

    assert record["meta"]["server_count"] == 1_000
    assert len(record["meta"]["servers"]) == 50


async def test_a_denied_run_is_kept_with_its_record_and_never_begins(db: Database) -> None:
    placed = await place(db, await add_servers(db, 2), ruling="deny")

    assert placed.status is Status.DENIED
    assert await statuses(db, placed) == ["denied"] * 2
    assert {row.cause for row in await task_rows(db, placed)} == {"policy"}
    assert (await run_row(db, placed)).finished_at is not None
    record = (await records(db))[-1]
    assert (record["action"], record["outcome"], record["reason"]) == ("task.denied", "denied", "policy.rule-1")
    assert await claim(db, placed) == []


async def test_the_end_of_a_task_is_stored_with_its_output_and_recorded(db: Database) -> None:
    placed = await place(db, await add_servers(db, 2))
    one, two = await claim(db, placed)

    await finish(
        db, ended(one, stdout=b"up 3 days\0\xff\n"), ended(two, Status.TIMEOUT, cause="timeout", exit_code=143)
    )

    first, second = await task_rows(db, placed)
    assert (first.status, first.exit_code, first.mode, first.owner) == ("success", 0, "wrapped", None)
    assert (second.status, second.exit_code, second.cause) == ("timeout", 143, "timeout")
    assert first.finished_at >= first.started_at
    assert {bytes(row.stdout) for row in await output_rows(db)} == {b"up 3 days\0\xff\n", b""}
    row = await run_row(db, placed)
    assert row.finished_at is not None
    finished, timed_out = (await records(db))[-2:]
    assert (finished["action"], finished["phase"], finished["outcome"]) == ("task.finish", "outcome", "success")
    assert (timed_out["action"], timed_out["outcome"], timed_out["reason"]) == ("task.timeout", "failure", "timeout")
    assert finished["request"]["id"] == (await run_row(db, placed)).request_id


async def test_no_secret_is_in_any_row_or_record(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1), secrets={"DB_PASSWORD": SECRET})
    [claimed] = await claim(db, placed)
    before = await run_row(db, placed)
    await succeed(db, claimed)

    async with db.reading() as conn:
        everything = [
            repr(tuple(row)) for table in (runs, tasks, audit_records) for row in await conn.execute(select(table))
        ]
    assert before.secrets is not None
    assert (await run_row(db, placed)).secrets is None, "gone with the run's end"
    assert all(SECRET not in text for text in everything)
    assert SECRET not in repr(before)
    assert SECRET not in repr(claimed)
    assert b"DB_PASSWORD" in orjson.dumps(await records(db))


async def test_a_denied_run_keeps_no_secret(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1), ruling="deny", secrets={"DB_PASSWORD": SECRET})

    assert (await run_row(db, placed)).secrets is None


async def test_a_retry_means_the_servers_where_it_did_not_succeed(db: Database) -> None:
    placed = await place(db, await add_servers(db, 3))
    claimed = await claim(db, placed)
    async with db.reading() as conn:
        with pytest.raises(Conflict):
            await placing.retried_servers(conn, placed.run_id)
    await finish(db, ended(claimed[0]), ended(claimed[1], Status.FAILED), ended(claimed[2], Status.INTERRUPTED))

    async with db.reading() as conn:
        again = await placing.retried_servers(conn, placed.run_id)

    assert sorted(again) == sorted([claimed[1].server_id, claimed[2].server_id])


@pytest.mark.parametrize("change", [{"enabled": False}, {"capability": "observe"}])
async def test_a_server_that_no_longer_takes_commands_is_skipped(db: Database, change: dict[str, object]) -> None:
    chosen = await add_servers(db, 2)
    placed = await place(db, chosen)
    await set_server(db, chosen[0], **change)

    async with db.transaction() as conn:
        await waiting.skip_unfit(conn, placed.run_id, datetime.now(UTC))
        await waiting.skip_unfit(conn, placed.run_id, datetime.now(UTC))

    assert await statuses(db, placed) == ["skipped", "queued"]
    assert [one["meta"] for one in await records(db)][-1] == {"skipped": 1, "why": "server_unfit"}


async def test_a_withdrawn_run_ends_what_waits_and_leaves_what_runs(db: Database) -> None:
    placed = await place(db, await add_servers(db, 3), max_parallel=1)
    [running] = await claim(db, placed)

    async with db.transaction() as conn:
        await waiting.withdraw(conn, placed.run_id, "policy_changed", datetime.now(UTC))

    assert await statuses(db, placed) == ["running", "denied", "denied"]
    record = (await records(db))[-1]
    assert (record["action"], record["reason"], record["meta"]) == ("task.denied", "policy_changed", {"tasks": 2})
    await succeed(db, running)
    assert (await run_row(db, placed)).finished_at is not None


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_cursor_from_beyond_the_calendar_is_refused(db: Database, at: str) -> None:
    cursor = base64.urlsafe_b64encode(f"{at} {'0' * 36}".encode()).decode().rstrip("=")

    async with db.reading() as conn:
        with pytest.raises(Invalid, match="not one of ours"):
            await listing.task_page(conn, listing.Filters(), 10, cursor, actor=ADA)
        with pytest.raises(Invalid, match="not one of ours"):
            await listing.run_page(conn, listing.Filters(), 10, cursor, actor=ADA)
