"""What is old leaves the database only once it is in the archive, read back and verified; a crash changes nothing."""

import asyncio
import random
import signal
import sqlite3
import sys
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sqlalchemy import Engine, event, select, text

from server_monitor.audit import holds, proofs, sealing, tree
from server_monitor.audit.archive import Archive
from server_monitor.audit.keeper import Keeper
from server_monitor.audit.retention import Obstacle, State
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_head, audit_records
from server_monitor.errors import Conflict, Invalid, NotFound, Unavailable
from tests.support.keeping import ADA, SEGMENT, fill, housekeeping, judged, later, sign, signer_of
from tests.support.patience import PATIENCE_S
from tests.support.s3 import locked_bucket

ROOT = Path(__file__).resolve().parents[2]


async def records(db: Database) -> list[int]:
    async with db.reading() as conn:
        return list((await conn.execute(select(audit_records.c.seq).order_by(audit_records.c.seq))).scalars())


async def states(db: Database) -> list[State]:
    async with db.reading() as conn:
        return [row.state for row in await sealing.listing(conn)]


async def test_old_records_move_to_the_archive_and_the_rest_still_proves_itself(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    await fill(db, 650)
    early = await sign(db, tmp_path)

    done = await housekeeping(db, tmp_path).once(later())
    await fill(db, 20)
    newest = await sign(db, tmp_path)

    assert done.archived == 3  # two that are full, and one that is a day old
    assert done.pruned == 650
    assert (await records(db))[0] == 650
    assert await states(db) == [State.PRUNED] * 3
    report = await asyncio.to_thread(judged, database_url, signer_of(tmp_path))
    assert report.is_intact, report
    async with db.reading() as conn:
        path = await proofs.inclusion(conn, 655, newest.size)
        between = await proofs.consistency(conn, early.size, newest.size)
        body = (await conn.execute(select(audit_records.c.body).where(audit_records.c.seq == 655))).scalar_one()
        assert await proofs.root_at(conn, 650) == early.root
    assert tree.is_included(tree.leaf_hash(body), 655, newest.size, path, newest.root)
    assert tree.is_consistent(early.size, early.root, newest.size, newest.root, between)


async def test_proofs_work_wherever_pruning_stopped(sqlite_db: Database, tmp_path: Path) -> None:
    """Subtrees that reach over the first record that is kept are put together from what is left of them."""
    await fill(sqlite_db, 700)
    keeper = housekeeping(sqlite_db, tmp_path)
    async with sqlite_db.reading() as conn:
        expected = {size: await proofs.root_at(conn, size) for size in range(600, 701)}

    await keeper.once(later())

    async with sqlite_db.reading() as conn:
        assert (await conn.execute(select(audit_head.c.min_index))).scalar_one() == 2 * SEGMENT
        assert {size: await proofs.root_at(conn, size) for size in range(600, 701)} == expected


async def test_what_is_young_or_kept_for_ever_or_unarchived_stays(db: Database, tmp_path: Path) -> None:
    await fill(db, 650)

    young = await housekeeping(db, tmp_path).once(later(0))
    for_ever = await housekeeping(db, tmp_path, days=0).once(later(9999))
    off = await housekeeping(db, tmp_path, is_on=False).once(later(9999))
    unanchored = await housekeeping(db, tmp_path, demands_anchor=True).once(later())

    found = [one.verdict.obstacle for one in (young, for_ever, off, unanchored)]
    assert found == [Obstacle.YOUNG, Obstacle.FOR_EVER, Obstacle.OFF, Obstacle.UNANCHORED]
    assert (await records(db))[0] == 0


async def test_a_hold_keeps_what_it_covers_and_everything_after(db: Database, tmp_path: Path) -> None:
    await fill(db, 400)
    await fill(db, 50, target="evidence")
    await fill(db, 500)
    async with db.transaction() as conn:
        await holds.add(conn, "case 7", "court order", {"target_id": "evidence"}, actor=ADA)
        with pytest.raises(Conflict):
            await holds.add(conn, "case 7", "again", {}, actor=ADA)
        with pytest.raises(Invalid, match=r"filters\.outcome"):
            await holds.add(conn, "case 8", "typo", {"outcome": "sucess"}, actor=ADA)

    held = await housekeeping(db, tmp_path).once(later())

    assert (held.verdict.obstacle, held.verdict.hold) == (Obstacle.HELD, "case 7")
    assert (await records(db))[0] == SEGMENT
    async with db.transaction() as conn:
        await holds.release(conn, "case 7", actor=ADA)
    assert (await housekeeping(db, tmp_path).once(later())).pruned > SEGMENT


@pytest.mark.parametrize("change", ["altered", "missing", "in the way"])
async def test_an_archive_that_is_not_what_was_put_there_stops_pruning(
    sqlite_db: Database, tmp_path: Path, change: str
) -> None:
    await fill(sqlite_db, 350)
    await housekeeping(sqlite_db, tmp_path).once(later(0), everything=True)
    [first, *_] = sorted((tmp_path / "archive").rglob("*.tar.gz"))
    whole = first.read_bytes()
    first.unlink()
    if change == "altered":
        first.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    elif change == "in the way":
        first.write_bytes(b"something else")

    done = await housekeeping(sqlite_db, tmp_path).once(later())

    if change == "missing":  # The records are still here, so it is put there again.
        assert done.pruned > 0
        assert first.read_bytes() == whole
    else:
        assert done.pruned == 0
        assert (await records(sqlite_db))[0] == 0


async def test_records_leave_only_through_pruning(db: Database, tmp_path: Path) -> None:
    await fill(db, 10)
    with pytest.raises(Exception, match="never deleted"):
        async with db.transaction() as conn:
            await conn.execute(text("DELETE FROM audit_records WHERE seq < 5"))


async def test_the_file_shrinks(sqlite_db: Database, sqlite_url: str, tmp_path: Path) -> None:
    await fill(sqlite_db, 3000)
    await housekeeping(sqlite_db, tmp_path).once(later(0))
    async with sqlite_db.reading() as conn:
        before = (await conn.execute(text("PRAGMA page_count"))).scalar_one()

    await housekeeping(sqlite_db, tmp_path).once(later())

    async with sqlite_db.reading() as conn:
        after = (await conn.execute(text("PRAGMA page_count"))).scalar_one()
        assert (await conn.execute(text("PRAGMA freelist_count"))).scalar_one() == 0
    assert after < before / 2


async def test_a_file_that_cannot_shrink_is_left_as_it_is(sqlite_db: Database, sqlite_url: str, tmp_path: Path) -> None:
    """A database that somebody has copied row by row gives no page back, however often it is asked."""
    await fill(sqlite_db, 3000)
    await sqlite_db.close()
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA auto_vacuum = NONE", "VACUUM"):
            connection.execute(statement)
    reopened = await Database.open(sqlite_url, node="test-node")
    try:
        async with asyncio.timeout(PATIENCE_S):
            await housekeeping(reopened, tmp_path).once(later(0))
            assert (await housekeeping(reopened, tmp_path).once(later())).pruned == 3000
    finally:
        await reopened.close()


@pytest.mark.long
async def test_kill_9_anywhere_is_finished_by_the_next_run(db: Database, database_url: str, tmp_path: Path) -> None:
    """At no moment is a record in neither place; and in the end the log is whole, shorter, and says what happened."""
    await fill(db, 900)
    made = await sign(db, tmp_path)
    for number in range(4):
        await _killed(database_url, tmp_path, random.Random(number).uniform(0.0, 0.5))
        await _require_nothing_lost(db, tmp_path)

    await housekeeping(db, tmp_path).once(later())

    assert (await records(db))[0] >= made.size
    await sign(db, tmp_path)
    report = await asyncio.to_thread(judged, database_url, signer_of(tmp_path))
    assert report.is_intact, report
    async with db.reading() as conn:
        actions = select(audit_records.c.outcome).where(audit_records.c.action == "audit.cleanup")
        told = list((await conn.execute(actions.order_by(audit_records.c.seq))).scalars())
    assert told[-1] == "success"
    assert all(a is not None or b is not None for a, b in pairwise(told)), "an intent lacks its end"


async def _killed(url: str, data_dir: Path, after_s: float) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.keeping", url, str(data_dir)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        await process.stdout.readline()
        try:
            async with asyncio.timeout(after_s):
                await process.wait()
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
            await process.wait()


async def _require_nothing_lost(db: Database, data_dir: Path) -> None:
    """Every record that ever was is in the database, or in a segment that has the root that was signed."""
    async with db.reading() as conn:
        head = (await conn.execute(select(audit_head))).one()
        segments = await sealing.listing(conn)
        live = list((await conn.execute(select(audit_records.c.seq).order_by(audit_records.c.seq))).scalars())
    assert live == list(range(head.min_index, head.size))
    assert [row.first_seq for row in segments] == [0, *(row.end_seq for row in segments)][: len(segments)]
    archive = Archive((data_dir / "archive").as_uri())
    for row in segments:
        if row.first_seq < head.min_index:
            stored = await archive.get(row.key)
            assert sealing.what_is_wrong(stored.data, row, signer_of(data_dir), 1) is None


async def test_a_bucket_with_object_lock_keeps_each_segment_once(
    sqlite_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sqlite_db, 650)
    with locked_bucket() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{bucket.name}/console"
        first = await housekeeping(sqlite_db, tmp_path, url).once(later(0))
        done = await housekeeping(sqlite_db, tmp_path, url).once(later())

        keys = await asyncio.to_thread(bucket.keys)
        assert (first.pruned, done.pruned) == (0, 2 * SEGMENT)
        assert all(key.startswith("console/test-node/") for key in keys)
        async with sqlite_db.reading() as conn:
            rows = await sealing.listing(conn)
        for row in rows:
            assert await asyncio.to_thread(bucket.versions, f"console/{row.key}") == [row.version]
        with pytest.raises(ClientError, match="AccessDenied"):
            await asyncio.to_thread(bucket.delete, f"console/{rows[0].key}", str(rows[0].version))
        archive = Archive(url)
        await archive.put(rows[0].key, b"other bytes")
        assert (await archive.get(rows[0].key)).data != b"other bytes"
        with pytest.raises(NotFound):
            await archive.get("no such thing")


async def test_an_archive_that_is_away_stops_pruning(sqlite_db: Database, tmp_path: Path) -> None:
    await fill(sqlite_db, 350)
    blocked = tmp_path / "not-a-directory"
    blocked.write_text("in the way")

    with pytest.raises(Unavailable, match="archive"):
        await housekeeping(sqlite_db, tmp_path, blocked.as_uri()).once(later())

    assert len(await records(sqlite_db)) >= 350


async def test_a_clock_that_jumped_deletes_nothing(sqlite_db: Database, tmp_path: Path) -> None:
    await fill(sqlite_db, 350)
    keeping = housekeeping(sqlite_db, tmp_path)
    clock = Keeper(sqlite_db, signer_of(tmp_path))
    await clock.watch_clock(later(0), 0)
    await clock.watch_clock(later(), 1)

    jumped = await keeping.once(later())
    await clock.watch_clock(later(0), 2)
    again = await keeping.once(later(0))

    assert (jumped.verdict.obstacle, jumped.pruned) == (Obstacle.CLOCK, 0)
    assert again.verdict.obstacle is Obstacle.YOUNG
    assert (await records(sqlite_db))[0] == 0


async def test_a_hold_is_not_searched_for_again_and_again(sqlite_db: Database, tmp_path: Path) -> None:
    """A page that is looked at every few seconds asks nothing that it knows, and nothing about young records."""
    await fill(sqlite_db, 650)
    async with sqlite_db.transaction() as conn:
        await holds.add(conn, "case 7", "court order", {"target_id": "nothing has this"}, actor=ADA)
    keeping = housekeeping(sqlite_db, tmp_path)
    await keeping.once(later(0))
    asked: list[str] = []

    def note(*given: Any) -> None:
        if "audit_records.target_id = ?" in given[2]:
            asked.append(given[2])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await keeping.standing(later(0))
        assert asked == []
        await keeping.standing(later())
        await keeping.standing(later())
        assert len(asked) == 1
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def test_pages_that_a_crash_kept_are_given_back_by_the_next_run(sqlite_db: Database, tmp_path: Path) -> None:
    await fill(sqlite_db, 3000)
    await housekeeping(sqlite_db, tmp_path).once(later(0))
    async with sqlite_db.transaction() as conn:
        await conn.execute(text("CREATE TABLE emptied AS SELECT * FROM audit_records"))
    async with sqlite_db.transaction() as conn:
        await conn.execute(text("DROP TABLE emptied"))

    assert (await housekeeping(sqlite_db, tmp_path).once(later(0))).pruned == 0

    async with sqlite_db.reading() as conn:
        assert (await conn.execute(text("PRAGMA freelist_count"))).scalar_one() == 0
