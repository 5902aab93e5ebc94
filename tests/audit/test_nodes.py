"""What the database keeps beside its records is held against them, and nothing is deleted or signed by it."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from server_monitor.audit import proofs, repairing, sources, verify
from server_monitor.audit.verify import Aspect, Report
from server_monitor.db.engine import Database
from server_monitor.errors import Unavailable
from tests.support.forger import Forger
from tests.support.keeping import ADA, fill, housekeeping, judged, later, sign, signer_of

COUNT = 1500


async def alone(url: str, data_dir: Path) -> Report:
    return await asyncio.to_thread(judged, url, signer_of(data_dir))


async def with_archive(url: str, data_dir: Path) -> Report:
    return await asyncio.to_thread(judged_with_archive, url, data_dir)


def judged_with_archive(url: str, data_dir: Path) -> Report:
    trusted = [signer_of(data_dir).verifier(1)]
    with sources.opened(url, [(data_dir / "archive").as_uri()]) as log:
        now = datetime.now(UTC)
        return verify.verify(log.parts, log.notes, outside=log.outside, trusted=trusted, kept=log.kept, now=now)


async def zero(f: Forger) -> None:
    await f.run("UPDATE audit_nodes SET hash = ?", bytes(32))


async def shorten(f: Forger) -> None:
    await f.run("UPDATE audit_nodes SET hash = ? WHERE idx = 2", b"\1")


async def delete_one(f: Forger) -> None:
    await f.run("DELETE FROM audit_nodes WHERE idx = 1")


async def add_some(f: Forger) -> None:
    for level, index in ((8, 70), (16, 0), (3, 1), (8, -1)):
        await f.run("INSERT INTO audit_nodes (level, idx, hash) VALUES (?, ?, ?)", level, index, bytes(32))


Tamper = Callable[[Forger], Coroutine[Any, Any, None]]
TAMPERED = [zero, shorten, delete_one, add_some]


@pytest.mark.parametrize("tamper", TAMPERED)
async def test_a_changed_node_is_seen_and_made_anew(
    db: Database, database_url: str, tmp_path: Path, tamper: Tamper
) -> None:
    await fill(db, COUNT)
    made = await sign(db, tmp_path)
    assert (await alone(database_url, tmp_path)).is_intact
    await tamper(Forger(database_url))

    report = await alone(database_url, tmp_path)

    assert report.is_broken
    assert [finding.code for finding in report.findings] == ["nodes_wrong"]
    assert report.first_bad is None, "no record is bad"
    assert any("audit repair" in warning for warning in report.warnings)
    assert report.repair is not None
    await repairing.apply(db, report.repair, actor=ADA)
    await sign(db, tmp_path)
    assert (await alone(database_url, tmp_path)).is_intact
    async with db.reading() as conn:
        assert await proofs.root_at(conn, COUNT) == made.root


@pytest.mark.parametrize("tamper", TAMPERED)
async def test_nodes_of_what_was_pruned_are_compared_with_what_is_kept_of_it(
    db: Database, database_url: str, tmp_path: Path, tamper: Tamper
) -> None:
    """The database by itself sees that they are wrong; which they ought to be only the archive says."""
    await fill(db, COUNT)
    await housekeeping(db, tmp_path).once(later(0), everything=True)
    await housekeeping(db, tmp_path).once(later())
    await sign(db, tmp_path)
    assert (await alone(database_url, tmp_path)).is_intact
    await tamper(Forger(database_url))

    by_itself, together = await alone(database_url, tmp_path), await with_archive(database_url, tmp_path)

    assert [finding.code for finding in by_itself.findings] == ["nodes_wrong"]
    assert together.repair is not None
    await repairing.apply(db, together.repair, actor=ADA)
    await sign(db, tmp_path)
    assert (await alone(database_url, tmp_path)).is_intact
    assert (await with_archive(database_url, tmp_path)).is_intact


async def test_pruning_believes_no_node(db: Database, database_url: str, tmp_path: Path) -> None:
    """It once wrote what the nodes said over what is kept of the pruned records, and broke the log for good."""
    await fill(db, COUNT)
    await housekeeping(db, tmp_path).once(later(0), everything=True)
    await zero(Forger(database_url))

    done = await housekeeping(db, tmp_path).once(later())

    assert done.pruned >= COUNT
    report = await with_archive(database_url, tmp_path)
    assert [finding.code for finding in report.findings] == ["nodes_wrong"], report
    assert report.repair is not None
    assert report.repair.prefix is None


async def test_nothing_is_signed_that_the_nodes_say(db: Database, database_url: str, tmp_path: Path) -> None:
    await fill(db, 650)
    await housekeeping(db, tmp_path).once(later(0))
    await fill(db, 300)
    await sign(db, tmp_path)
    await zero(Forger(database_url))

    with pytest.raises(Unavailable, match="not what was archived"):
        await housekeeping(db, tmp_path).once(later(0))

    report = await alone(database_url, tmp_path)
    assert report.repair is not None
    await repairing.apply(db, report.repair, actor=ADA)
    assert (await housekeeping(db, tmp_path).once(later(0))).archived == 1


@pytest.mark.parametrize("seq", [5, 280, 299])
@pytest.mark.parametrize("is_signed", [True, False])
async def test_a_record_that_was_changed_is_not_signed_as_part_of_a_segment(
    sqlite_db: Database, sqlite_url: str, tmp_path: Path, seq: int, is_signed: bool
) -> None:
    """Wherever it lies: under a node, or behind the last of them."""
    await fill(sqlite_db, 320)
    if is_signed:
        await sign(sqlite_db, tmp_path)
    await change(sqlite_url, seq)

    with pytest.raises(Unavailable, match="Records 0 to 299 in the database are not what was signed"):
        await housekeeping(sqlite_db, tmp_path).once(later(0))


async def change(url: str, seq: int) -> None:
    forger = Forger(url)
    body = (await forger.records())[seq].replace(b"web01", b"web02")
    await forger.run("UPDATE audit_records SET body = ? WHERE seq = ?", body, seq)


async def test_records_that_are_not_those_in_the_archive_are_not_deleted(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    await fill(db, 320)
    await housekeeping(db, tmp_path).once(later(0))
    await change(database_url, 290)
    keeping = housekeeping(db, tmp_path)

    done = await keeping.once(later())

    assert done.pruned == 0
    assert "not what was archived and signed" in str(done.failure)
    assert keeping.failed is not None
    assert (await Forger(database_url).first()) == 0


async def test_what_is_kept_of_pruned_records_is_made_anew_from_the_archive(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    await fill(db, 650)
    await housekeeping(db, tmp_path).once(later(0))
    await housekeeping(db, tmp_path).once(later())
    await sign(db, tmp_path)
    forger = Forger(database_url)
    [(prefix,)] = await forger.run("SELECT prefix FROM audit_head")
    await forger.run("UPDATE audit_head SET prefix = ?", bytes(len(prefix)))

    report = await with_archive(database_url, tmp_path)

    assert [finding.code for finding in report.findings] == ["prefix_wrong"]
    assert report.repair is not None
    await repairing.apply(db, report.repair, actor=ADA)
    assert (await forger.run("SELECT prefix FROM audit_head")) == [(prefix,)]
    await sign(db, tmp_path)
    assert (await with_archive(database_url, tmp_path)).is_intact


async def test_nothing_is_made_from_records_that_are_not_whole(db: Database, database_url: str, tmp_path: Path) -> None:
    """What is wrong beside them may be all that shows what was done."""
    await fill(db, COUNT)
    await sign(db, tmp_path)
    await zero(Forger(database_url))
    await change(database_url, 700)

    report = await alone(database_url, tmp_path)

    assert report.verdicts[Aspect.INTEGRITY] is verify.Verdict.BROKEN
    assert report.repair is None


async def test_an_end_of_the_head_that_is_wrong_is_not_made_anew(
    sqlite_db: Database, sqlite_url: str, tmp_path: Path
) -> None:
    """It is what the newest records are held against that no checkpoint covers yet."""
    await fill(sqlite_db, 300)
    await sign(sqlite_db, tmp_path)
    await fill(sqlite_db, 5)
    await change(sqlite_url, 303)

    assert (await alone(sqlite_url, tmp_path)).repair is None
