"""Checkpoints leave the house, each way in its own time, and a log that does not continue them is refused."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server_monitor.audit import anchors, note, sources, verify
from server_monitor.audit.anchors import NEWS_EVERY_S, QUIET_EVERY_S, Anchors
from server_monitor.audit.archive import Archive
from server_monitor.audit.note import Checkpoint
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_checkpoints
from server_monitor.errors import Invalid, Unavailable
from tests.support.keeping import fill, sign, signer_of

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


async def keys(place: Path) -> list[str]:
    return [key async for key in Archive(place.as_uri()).keys()]  # noqa: SIM118  # Not a mapping.


async def test_a_log_continues_its_newest_anchor_or_is_refused(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "anchors"
    signer = signer_of(tmp_path)
    handed_out = Anchors(db, file, None)
    await fill(db, 5)
    made = await sign(db, tmp_path)
    await handed_out.append_to_file(0)
    with file.open("a") as torn:
        torn.write("test-node/server-monitor/audit/1\n9")
    await fill(db, 5)
    newest = await sign(db, tmp_path)
    await handed_out.append_to_file(0)

    anchor = anchors.newest_anchor(file, signer, 1)
    assert anchor is not None
    assert (anchor.size, anchor.root) == (newest.size, newest.root)
    async with db.reading() as conn:
        assert await anchors.anchored_size(conn) == newest.size
    await anchors.require_continuation(db, signer, file)

    origin = signer.origin(1)
    for size, root in ((newest.size + 1, newest.root), (made.size, bytes(32))):
        file.write_text(note.sign(Checkpoint(origin, size, root), {origin: signer.key}))
        with pytest.raises(Unavailable, match="does not continue"):
            await anchors.require_continuation(db, signer, file)


async def test_the_store_gets_a_checkpoint_a_minute_with_news_and_one_an_hour_without(
    sqlite_db: Database, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    handed_out = Anchors(sqlite_db, None, Archive(outside.as_uri()))
    await fill(sqlite_db, 5)
    await sign(sqlite_db, tmp_path)
    await handed_out.put_into_store(0)
    await fill(sqlite_db, 5)
    newest = await sign(sqlite_db, tmp_path)

    await handed_out.put_into_store(NEWS_EVERY_S - 1)
    assert len(await keys(outside)) == 1
    await handed_out.put_into_store(NEWS_EVERY_S)
    assert len(await keys(outside)) == 2
    await handed_out.put_into_store(NEWS_EVERY_S + QUIET_EVERY_S - 1)
    assert len(await keys(outside)) == 2
    await handed_out.put_into_store(NEWS_EVERY_S + QUIET_EVERY_S)

    [quiet] = [key for key in await keys(outside) if "/quiet/" in key]
    assert f"{newest.size:012}" in quiet
    assert (await Archive(outside.as_uri()).get(quiet)).data.decode() == newest.note


async def test_a_store_that_is_away_does_not_keep_the_file_from_a_checkpoint(
    sqlite_db: Database, tmp_path: Path
) -> None:
    blocked = tmp_path / "not-a-directory"
    blocked.write_text("in the way")
    handed_out = Anchors(sqlite_db, tmp_path / "anchors", Archive(blocked.as_uri()))
    await fill(sqlite_db, 5)
    await sign(sqlite_db, tmp_path)

    with pytest.raises(Unavailable):
        await handed_out.put_into_store(0)
    await handed_out.append_to_file(0)

    assert len(sources.kept_checkpoints(tmp_path / "anchors")) == 1


async def test_the_file_gets_what_the_store_has_already(sqlite_db: Database, tmp_path: Path) -> None:
    handed_out = Anchors(sqlite_db, tmp_path / "anchors", Archive((tmp_path / "outside").as_uri()))
    await fill(sqlite_db, 5)
    await sign(sqlite_db, tmp_path)

    await handed_out.put_into_store(0)
    await handed_out.append_to_file(0)
    await handed_out.append_to_file(1)

    assert len(sources.kept_checkpoints(tmp_path / "anchors")) == 1


async def test_the_log_stream_carries_checkpoints_that_a_verifier_takes(sqlite_db: Database, tmp_path: Path) -> None:
    handed_out = Anchors(sqlite_db, None, None)
    await fill(sqlite_db, 5)
    await sign(sqlite_db, tmp_path)

    with capture_logs() as logs:
        for at_s in (0, 59, 60, 3599, 3600):
            await handed_out.write_to_log(at_s)
    said = [entry for entry in logs if entry["event"] == "audit_checkpoint"]

    assert [entry["size"] for entry in said] == [5, 5]
    opened = note.open_note(said[0]["note"], [signer_of(tmp_path).verifier(1)])
    assert (opened.size, opened.root.hex()) == (5, said[0]["root"])


async def test_a_note_that_was_tampered_with_is_a_failure_and_not_the_end(sqlite_db: Database, tmp_path: Path) -> None:
    await fill(sqlite_db, 5)
    await sign(sqlite_db, tmp_path)
    async with sqlite_db.transaction() as conn:
        await conn.execute(audit_checkpoints.update().values(note="nothing like a note"))
    handed_out = Anchors(sqlite_db, None, Archive((tmp_path / "outside").as_uri()))

    with pytest.raises(Invalid):
        await handed_out.put_into_store(0)


def test_a_verifier_does_not_mind_the_hourly_copies(tmp_path: Path) -> None:
    place = tmp_path / "outside"
    directory = place / "n/server-monitor/audit/1/checkpoints/quiet"
    directory.mkdir(parents=True)
    (directory / "20261125T12-000000000005-0123456789abcdef.txt").write_text("x")
    with sources.archive(str(place)) as found:
        report = verify.verify(found.parts, found.notes, outside=found.outside, now=NOW)
    assert not report.is_broken
