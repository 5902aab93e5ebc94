"""Only what is right goes into the archive, and only what is right and locked there counts as archived."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from sqlalchemy import select, text, update

from server_monitor.audit import sealing, sources, verify
from server_monitor.audit.archive import Archive
from server_monitor.audit.retention import State
from server_monitor.audit.sealing import Row
from server_monitor.audit.verify import Report
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_head, audit_records, audit_segments
from server_monitor.errors import Unavailable
from tests.support.keeping import SEGMENT, fill, housekeeping, judged, later, sign, signer_of
from tests.support.s3 import Bucket, locked_bucket


@pytest.fixture
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket that locks as the test asks, with the variables that name it."""
    with locked_bucket(**getattr(request, "param", {})) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


async def listed(db: Database) -> list[Row]:
    async with db.reading() as conn:
        return list(await sealing.listing(conn))


async def told(db: Database) -> list[tuple[str, dict[str, object]]]:
    """The outcome and the free part of each audit.archive record."""
    found = select(audit_records.c.outcome, audit_records.c.body).where(audit_records.c.action == "audit.archive")
    async with db.reading() as conn:
        rows = (await conn.execute(found.order_by(audit_records.c.seq))).all()
    return [(row.outcome, orjson.loads(row.body).get("meta", {})) for row in rows]


def corrupt(url: str, seq: int) -> None:
    """Change a byte of a record, as a bad disk would: no trigger sees it."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DROP TRIGGER audit_records_are_never_changed")
        connection.execute(
            "UPDATE audit_records SET body = cast(replace(cast(body AS TEXT), 'web01', 'web02') AS BLOB) WHERE seq = ?",
            (seq,),
        )


def restore(url: str, seq: int) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(
            "UPDATE audit_records SET body = cast(replace(cast(body AS TEXT), 'web02', 'web01') AS BLOB) WHERE seq = ?",
            (seq,),
        )


def judged_archive(data_dir: Path) -> Report:
    with sources.archive(str(data_dir / "archive")) as found:
        alone = sources.alone(found)
        trusted = [signer_of(data_dir).verifier(1)]
        return verify.verify(alone.parts, alone.notes, outside=alone.outside, trusted=trusted, now=datetime.now(UTC))


# --- what is wrong does not go out ---


async def test_a_record_that_was_corrupted_is_not_archived_and_its_restored_copy_is(
    sqlite_db: Database, sqlite_url: str, tmp_path: Path
) -> None:
    await fill(sqlite_db, 350)
    await asyncio.to_thread(corrupt, sqlite_url, 5)
    keeping = housekeeping(sqlite_db, tmp_path)

    with pytest.raises(Unavailable, match="Records 0 to 299 in the database are not what was signed"):
        await keeping.once(later(0))
    with pytest.raises(Unavailable):
        await keeping.once(later(0))

    assert not list((tmp_path / "archive").rglob("*.tar.gz"))
    assert keeping.failed is not None
    assert "not what was signed" in keeping.failed.cause
    assert [outcome for outcome, _ in await told(sqlite_db)] == ["failure"], "each cause is recorded once"

    await asyncio.to_thread(restore, sqlite_url, 5)
    assert (await keeping.once(later(0))).archived == 1
    assert keeping.failed is None


async def test_a_segment_that_was_never_right_is_put_under_a_second_name(
    sqlite_db: Database, sqlite_url: str, tmp_path: Path
) -> None:
    """What took its name cannot be removed from a locked bucket, and must not be in the way for ever."""
    await fill(sqlite_db, 650)
    await housekeeping(sqlite_db, tmp_path).once(later(0))
    [first, second] = await listed(sqlite_db)
    async with sqlite_db.transaction() as conn:
        await conn.execute(update(audit_segments).values(state=State.UPLOADED, verified_at=None))
    (tmp_path / "archive" / first.key).write_bytes(b"half a file that a power cut left")

    done = await housekeeping(sqlite_db, tmp_path).once(later())

    assert done.failure is None
    again, untouched, *_ = await listed(sqlite_db)
    assert again.key == first.key.replace(".tar.gz", "-2.tar.gz")
    assert untouched.key == second.key
    assert again.state is State.PRUNED
    stored = await Archive((tmp_path / "archive").as_uri()).get(again.key)
    assert sealing.what_is_wrong(stored.data, again, signer_of(tmp_path), 1) is None
    assert (await asyncio.to_thread(judged_archive, tmp_path)).is_only_open

    (tmp_path / "archive" / again.key).write_bytes(b"forged later")
    assert (await asyncio.to_thread(judged_archive, tmp_path)).is_broken


async def test_half_a_file_never_has_the_name_of_a_whole_one(tmp_path: Path) -> None:
    place = tmp_path / "archive"
    archive = Archive(place.as_uri())
    (place / "a").mkdir(parents=True)
    (place / "a" / "one.txt#0").write_bytes(b"cut off")

    await archive.put("a/one.txt", b"whole")
    await archive.put("a/one.txt", b"another")

    assert (await archive.get("a/one.txt")).data == b"whole"
    assert [key async for key in archive.keys()] == ["a/one.txt"]  # noqa: SIM118  # Not a mapping.
    assert [path.name for path in (place / "a").iterdir()] == ["one.txt"]


async def test_a_kill_between_the_upload_and_its_note_keeps_one_object_and_its_version(
    sqlite_db: Database, tmp_path: Path, bucket: Bucket
) -> None:
    await fill(sqlite_db, 350)
    url = f"s3://{bucket.name}/console"
    await housekeeping(sqlite_db, tmp_path, url).once(later(0))
    [row] = await listed(sqlite_db)
    async with sqlite_db.transaction() as conn:
        await conn.execute(update(audit_segments).values(state=State.SEALED, version=None, verified_at=None))

    await housekeeping(sqlite_db, tmp_path, url).once(later(0))

    [again, *_] = await listed(sqlite_db)
    assert (again.version, again.state) == (row.version, State.VERIFIED)
    assert await asyncio.to_thread(bucket.versions, f"console/{row.key}") == [row.version]


# --- locks ---


async def test_the_lock_of_each_segment_is_known_and_recorded(
    sqlite_db: Database, tmp_path: Path, bucket: Bucket
) -> None:
    await fill(sqlite_db, 350)

    await housekeeping(sqlite_db, tmp_path, f"s3://{bucket.name}/console", lock_days=364).once(later(0))

    [row, *_] = await listed(sqlite_db)
    assert row.lock_mode == "COMPLIANCE"
    assert row.locked_until is not None
    assert row.locked_until - datetime.now(UTC) > timedelta(days=364)
    [(_, meta)] = await told(sqlite_db)
    assert meta["lock_mode"] == "COMPLIANCE"
    assert str(meta["locked_until"]).startswith(f"{row.locked_until:%Y-%m-%d}")


@pytest.mark.parametrize("bucket", [{"days": None}, {"days": 10}, {"days": 100, "mode": "GOVERNANCE"}], indirect=True)
async def test_a_segment_that_is_locked_too_little_is_not_archived_where_a_lock_is_demanded(
    sqlite_db: Database, tmp_path: Path, bucket: Bucket
) -> None:
    await fill(sqlite_db, 350)
    url = f"s3://{bucket.name}/console"

    with pytest.raises(Unavailable, match="AUDIT_ARCHIVE_LOCK_DAYS demands COMPLIANCE"):
        await housekeeping(sqlite_db, tmp_path, url, lock_days=30).once(later())

    [row] = await listed(sqlite_db)
    assert row.state is State.UPLOADED
    await housekeeping(sqlite_db, tmp_path, url).once(later(0))
    [row, *_] = await listed(sqlite_db)
    assert row.state is State.VERIFIED, "without the demand it is archived, and its lock is shown"
    assert (row.lock_mode is None) == (row.locked_until is None)


async def test_a_version_over_ours_says_nothing_about_the_lock_of_ours(
    sqlite_db: Database, tmp_path: Path, bucket: Bucket
) -> None:
    archive = Archive(f"s3://{bucket.name}/console")
    version = await archive.put("one.txt", b"ours")
    assert await archive.lock("one.txt", version) is not None
    await asyncio.to_thread(bucket.client.put_object, Bucket=bucket.name, Key="console/one.txt", Body=b"theirs")

    assert await archive.lock("one.txt", version) is None
    assert (await archive.get("one.txt", version)).data == b"ours"


# --- an archive that moves ---


async def test_a_segment_half_of_which_is_pruned_is_finished_where_it_is(
    sqlite_db: Database, sqlite_url: str, tmp_path: Path
) -> None:
    """The archive was moved after a crash in the middle of pruning: the old place has the records, and only it."""
    await fill(sqlite_db, 650)
    old = (tmp_path / "old").as_uri()
    await housekeeping(sqlite_db, tmp_path, old).once(later(0))
    async with sqlite_db.reading() as conn:
        prefix = b"".join(await sealing.proofs.frontier_at(conn, 32))
    async with sqlite_db.transaction() as conn:
        await conn.execute(text("INSERT INTO audit_prune_ticket VALUES (1, 32)"))
        await conn.execute(text("DELETE FROM audit_records WHERE seq < 32"))
        await conn.execute(text("DELETE FROM audit_prune_ticket"))
        await conn.execute(update(audit_head).values(min_index=32, prefix=prefix))

    done = await housekeeping(sqlite_db, tmp_path, (tmp_path / "new").as_uri()).once(later())

    assert (done.failure, done.pruned >= 2 * SEGMENT - 32) == (None, True)
    first, second, *_ = await listed(sqlite_db)
    assert (first.place, second.place) == (old, (tmp_path / "new").as_uri())
    await sign(sqlite_db, tmp_path)
    report = await asyncio.to_thread(judged, sqlite_url, signer_of(tmp_path))
    assert report.is_intact, report
