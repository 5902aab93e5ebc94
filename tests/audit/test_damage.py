"""A database that was damaged or forged stops the keeping of its log with a sentence, and never the console."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from server_monitor.audit.anchors import Anchors
from server_monitor.audit.archive import Archive
from server_monitor.audit.chain import Event
from server_monitor.audit.keeper import Keeper
from server_monitor.audit.log import append
from server_monitor.db.engine import Database
from server_monitor.errors import AuditUnavailable, Failure
from tests.support.console import Browser, ConsoleProcess
from tests.support.keeping import ADA, fill, housekeeping, later, sign, signer_of
from tests.support.patience import PATIENCE_S

TAMPERED = {
    "a record that archiving begins with is missing": "DELETE FROM audit_records WHERE seq = 0",
    "records in the middle are missing": "DELETE FROM audit_records WHERE seq BETWEEN 100 AND 200",
    "every record is missing": "DELETE FROM audit_records",
    "a record has no time": "UPDATE audit_records SET ts = 'yesterday' WHERE seq = 0",
    "a record is text": "UPDATE audit_records SET body = 'text' WHERE seq = 7",
    "the head is missing": "DELETE FROM audit_head",
    "the head has a word for its size": "UPDATE audit_head SET size = 'many'",
    "the head has half a frontier": "UPDATE audit_head SET frontier = x'00ff'",
    "the head says that records were pruned": "UPDATE audit_head SET min_index = 5",
    "the head has another epoch": "UPDATE audit_head SET epoch = 'first'",
    "a checkpoint is no note": "UPDATE audit_checkpoints SET note = 'nothing like a note'",
    "a checkpoint has no time": "UPDATE audit_checkpoints SET made_at = 'yesterday'",
    "a checkpoint has a word for its size": "UPDATE audit_checkpoints SET size = 'many'",
    "the inner nodes are missing": "DELETE FROM audit_nodes",
    "the inner nodes are wrong": "UPDATE audit_nodes SET hash = x'00'",
    "a table is missing": "DROP TABLE audit_segments",
    "a step of the clock is nonsense": "UPDATE audit_records SET action = 'system.clock_step' WHERE seq = 3",
    "a hold is nonsense": "INSERT INTO audit_holds VALUES ('1', 'x', 'y', '[3]', '2026-01-01T00:00:00Z', 'z', NULL)",
}


def tamper(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, timeout=PATIENCE_S)) as connection, connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("PRAGMA ignore_check_constraints = 1")
        connection.execute(statement)


@pytest.mark.parametrize("statement", TAMPERED.values(), ids=TAMPERED.keys())
async def test_whatever_was_done_to_it_ends_in_a_failure_that_can_be_shown(
    sqlite_db: Database, sqlite_url: str, tmp_path: Path, statement: str
) -> None:
    await fill(sqlite_db, 350)
    await sign(sqlite_db, tmp_path)
    await asyncio.to_thread(tamper, Path(sqlite_url.removeprefix("sqlite:///")), statement)
    keeping = housekeeping(sqlite_db, tmp_path)
    handed_out = Anchors(sqlite_db, tmp_path / "anchors", Archive((tmp_path / "outside").as_uri()))
    failures = []

    for work in (
        lambda: keeping.once(later(), everything=True),
        lambda: keeping.standing(later()),
        Keeper(sqlite_db, signer_of(tmp_path)).look,
        lambda: handed_out.append_to_file(0),
        lambda: handed_out.put_into_store(0),
        lambda: handed_out.write_to_log(0),
    ):
        try:
            await work()
        except Failure as failure:
            failures.append(failure)
    assert all(len(str(failure)) > 10 for failure in failures)


async def test_a_record_that_finds_no_place_is_audit_unavailable_and_undone(
    sqlite_db: Database, sqlite_url: str
) -> None:
    await fill(sqlite_db, 5)
    database = Path(sqlite_url.removeprefix("sqlite:///"))
    await asyncio.to_thread(tamper, database, "UPDATE audit_head SET size = 'many'")

    for _ in range(2):
        with pytest.raises(AuditUnavailable):
            async with sqlite_db.transaction() as conn:
                await append(conn, Event("server.update", ADA))
    await asyncio.to_thread(tamper, database, "UPDATE audit_head SET size = 5")
    await fill(sqlite_db, 1)


@pytest.mark.parametrize("what", ["the head is missing", "a table is missing", "a checkpoint has a word for its size"])
async def test_the_console_stays_up_and_says_what_is_wrong(
    console: ConsoleProcess, browser: Browser, what: str
) -> None:
    await asyncio.to_thread(tamper, console.data_dir / "server-monitor.sqlite3", TAMPERED[what])

    started = await browser.send("POST", "/api/audit/archive")
    async with asyncio.timeout(PATIENCE_S):
        while "damaged" not in console.log:  # noqa: ASYNC110  # Another process.
            await asyncio.sleep(0.05)
    shown = await browser.get("/api/audit/segments")
    ready = await browser.get("/api/ready")

    assert console.is_running
    assert (await browser.get("/api/health")).status_code == 200
    assert started.status_code in {202, 503}
    assert shown.status_code in {200, 503}
    assert ready.status_code in {200, 503}
    assert "console_failed" not in console.log


async def test_a_start_on_a_damaged_log_says_so(console: ConsoleProcess) -> None:
    await console.stop()
    await asyncio.to_thread(
        tamper, console.data_dir / "server-monitor.sqlite3", TAMPERED["the head has a word for its size"]
    )
    with pytest.raises(AssertionError, match="did not start"):
        await console.start()
    assert "Traceback" not in console.log
