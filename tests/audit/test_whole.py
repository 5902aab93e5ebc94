"""What was pruned comes out of the archive again: exports and bundles of the whole log, as if nothing had ever left."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from server_monitor.audit import bundle, export, pages, search, whole
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.audit.search import Filters
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records, audit_segments
from server_monitor.errors import Gone, Unavailable
from tests.audit.test_verify_database import verdicts_of
from tests.support import forger as forging
from tests.support.keeping import ADA, fill, housekeeping, later, sign, signer_of

SECRET = SecretStr("a secret for tests that is long enough")
COUNT = 650


@pytest.fixture
async def log(db: Database, tmp_path: Path) -> list[bytes]:
    """The bodies of 651 records, of which all but the newest have been pruned into three segments."""
    for number in range(0, COUNT, 50):
        await fill(db, 49, f"web{number}")
        await forging.append(db, Event("user.create", ADA, AuditTarget("user", f"u{number}")))
    before = await bodies(db)
    await sign(db, tmp_path)
    await housekeeping(db, tmp_path).once(later())
    return before + await bodies(db)


async def bodies(db: Database) -> list[bytes]:
    async with db.reading() as conn:
        return list((await conn.execute(select(audit_records.c.body).order_by(audit_records.c.seq))).scalars())


def wanted(
    form: str = export.JSONL, order: str = pages.ASCENDING, limit: int | None = None, **given: str
) -> pages.Wanted:
    return pages.Wanted(search.parse(given), form, order, limit)


async def exported(db: Database, tmp_path: Path, what: pages.Wanted, url: str | None = None) -> bytes:
    async with whole.started(db, signer_of(tmp_path), what, url, actor=ADA) as running:
        data = b"".join([chunk async for chunk in running.chunks()])
        running.delivered()
    return data


async def test_archive_and_database_are_one_stream(db: Database, log: list[bytes], tmp_path: Path) -> None:
    ascending = (await exported(db, tmp_path, wanted())).splitlines()
    descending = (await exported(db, tmp_path, wanted(order=pages.DESCENDING))).splitlines()

    assert ascending[: len(log)] == log
    assert descending[-len(log) :] == log[::-1]
    assert (await exported(db, tmp_path, wanted(limit=10))).splitlines() == log[:10]


@pytest.mark.parametrize("form", [export.CSV, export.JSON, export.JSONL])
async def test_every_format_and_filter_gives_what_it_gave_before_pruning(
    db: Database, tmp_path: Path, form: str
) -> None:
    await fill(db, 300, "old")
    await forging.append(db, *[Event("user.create", ADA, AuditTarget("user", f"u{n}"), "denied") for n in range(50)])
    questions: list[dict[str, str]] = [
        {},
        {"action": "user.*"},
        {"action": "server.update"},
        {"target_id": "u7"},
        {"outcome": "denied", "user_id": ADA.id or ""},
        {"from": "2026-01-01", "to": "2100-01-01"},
        {"to": "2026-01-01"},
        {"ip": "192.0.2.1"},
        {"request_id": "x"},
        {"target_type": "server"},
    ]
    before = [await _from_database(db, tmp_path, wanted(form, limit=350, **question)) for question in questions]
    await sign(db, tmp_path)
    await housekeeping(db, tmp_path).once(later())

    after = [await exported(db, tmp_path, wanted(form, limit=350, **question)) for question in questions]

    if form == export.JSON:
        before, after = [[one.partition(b'],"count"')[0] for one in both] for both in (before, after)]
    assert after == before


async def _from_database(db: Database, tmp_path: Path, what: pages.Wanted) -> bytes:
    async with export.started(db, signer_of(tmp_path), SECRET, what, actor=ADA) as running:
        return b"".join([chunk async for chunk in running.chunks()])


async def test_a_whole_bundle_begins_with_the_first_record(db: Database, log: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"

    async with bundle.started(db, signer_of(tmp_path), actor=ADA, is_whole=True) as made:
        path.write_bytes(b"".join([chunk async for chunk in made.chunks()]))
        made.delivered()

    assert made.manifest.first_seq == 0
    assert made.rows == made.manifest.end_seq > COUNT
    for verdicts in verdicts_of(path, signer_of(tmp_path).verifier(1)):
        assert set(verdicts.values()) == {"intact"}


async def test_a_segment_that_was_changed_is_not_exported(db: Database, log: list[bytes], tmp_path: Path) -> None:
    (first, *_) = sorted((tmp_path / "archive").rglob("0*-0*.tar.gz"))
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)

    with pytest.raises(Unavailable, match="is not what was archived"):
        await exported(db, tmp_path, wanted())


async def test_a_segment_that_was_moved_is_read_where_it_is(db: Database, log: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "archive").rename(tmp_path / "elsewhere")

    with pytest.raises(Unavailable):
        await exported(db, tmp_path, wanted(limit=10))
    assert await exported(db, tmp_path, wanted(limit=3), (tmp_path / "elsewhere").as_uri())


async def test_records_that_no_segment_holds_are_not_passed_over(
    db: Database, log: list[bytes], tmp_path: Path
) -> None:
    async with db.transaction() as conn:
        await conn.execute(audit_segments.delete().where(audit_segments.c.first_seq == 300))

    with pytest.raises(Unavailable, match="no segment"):
        await exported(db, tmp_path, wanted())


# --- an export that may lack what was pruned says so ---


async def test_what_a_filter_may_have_chosen_is_told(db: Database, log: list[bytes], tmp_path: Path) -> None:
    async def told(**given: str) -> dict[str, str]:
        async with export.started(db, signer_of(tmp_path), SECRET, wanted(**given), actor=ADA) as running:
            return {name: text for name, text in running.headers.items() if name in {"X-First-Seq", "X-Pruned-Before"}}

    everything = await told()
    assert everything["X-First-Seq"] == str(COUNT)
    assert await told(action="user.*") == everything
    assert await told(**{"from": "2020-01-01"}) == everything
    assert await told(**{"from": "2100-01-01"}) == {}


async def test_nothing_is_told_while_nothing_was_pruned(db: Database) -> None:
    await fill(db, 10)
    async with db.reading() as conn:
        assert await pages.pruned(conn, Filters()) is None


async def test_pruning_between_the_record_and_the_first_byte_leaves_no_silent_gap(db: Database, tmp_path: Path) -> None:
    """A first page begins with what there is now; one that a cursor leads to is gone."""
    await fill(db, 400)
    fresh = wanted()
    async with db.reading() as conn:
        place = await pages.first_place(conn, fresh, ADA)
    await sign(db, tmp_path)
    await housekeeping(db, tmp_path).once(later())

    async with db.reading() as conn:
        settled = await pages.settled(conn, fresh, place)
        page = await pages.choose(conn, fresh, settled)
        with pytest.raises(Gone):
            await pages.settled(conn, pages.Wanted(Filters(), export.JSONL, pages.ASCENDING, None, place), place)

    assert (settled.oldest, settled.next_seq) == (400, 400)
    assert (settled.snapshot, page.count) == (400, 0)


async def test_what_is_exported_in_the_same_moment_as_it_is_pruned_is_whole(db: Database, tmp_path: Path) -> None:
    await fill(db, 900)
    await sign(db, tmp_path)
    before = await bodies(db)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(housekeeping(db, tmp_path).once(later()))
        exports = [(await exported(db, tmp_path, wanted(limit=900))).splitlines() for _ in range(6)]

    assert all(lines == before for lines in exports)
