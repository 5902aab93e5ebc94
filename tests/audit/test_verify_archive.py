"""An archive is judged from its objects alone, and together with the database that goes on from it."""

import asyncio
import base64
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server_monitor.audit import segment, sources, tree
from server_monitor.audit.chain import Event
from server_monitor.audit.segment import Manifest
from server_monitor.audit.verify import Aspect, Part, Report, StoredNote, Verdict, verify
from server_monitor.db.engine import Database
from server_monitor.errors import Unavailable
from tests.audit.test_verify_database import SIGNER, STRANGER
from tests.support import forger as forging
from tests.support.forger import ACTOR, Forger

INTEGRITY, COMPLETENESS, AUTHENTICITY = Aspect
ORIGIN = SIGNER.origin(1)


@pytest.fixture
async def forger(db: Database, database_url: str, tmp_path: Path) -> Forger:
    """A log of 301 records, of which the first 200 are in two segments and the first 100 pruned."""
    notes = await forging.fill(db, SIGNER, [100, 100, 100])
    forger = Forger(database_url)
    bodies = await forger.bodies()
    folder = tmp_path / "archive" / ORIGIN
    folder.mkdir(parents=True)
    for first, note in ((0, notes[0]), (100, notes[1])):
        end = first + 100
        root = tree.root(forging.frontier_of(bodies, end))
        manifest = Manifest(ORIGIN, first, end, forging.frontier_of(bodies, first), root)
        packed = b"".join(segment.pack(manifest, [note], bodies[first:end]))
        (folder / f"{first:012}-{end:012}-{root.hex()[:16]}.tar.gz").write_bytes(packed)
    await forging.append(db, Event("audit.cleanup", ACTOR, meta={"end_seq": 100}))
    newest = await forging.sign(db, SIGNER)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / f"{301:012}-0123456789abcdef.txt").write_text(newest)
    await forger.prune(100)
    return forger


@pytest.fixture
def archive(forger: Forger, tmp_path: Path) -> Path:
    return tmp_path / "archive"


def first_segment(archive: Path) -> Path:
    return min(archive.rglob("*.tar.gz"))


def second_segment(archive: Path) -> Path:
    return sorted(archive.rglob("*.tar.gz"))[1]


async def judge(archive: Path, database: str | None = None) -> Report:
    return await asyncio.to_thread(judged, archive, database)


def judged(archive: Path, database: str | None, *others: Path, kept: Sequence[str] = ()) -> Report:
    with sources.opened(database or "", [place.as_uri() for place in (archive, *others)]) as log:
        outside = [*log.outside, *(StoredNote(text, place="kept", is_outside=True) for text in kept)]
        trusted = [SIGNER.verifier(1)]
        return verify(log.parts, log.notes, outside=outside, trusted=trusted, kept=log.kept, now=datetime.now(UTC))


async def test_nothing_is_wrong_with_an_archive_by_itself(archive: Path) -> None:
    report = await judge(archive)

    assert report.is_only_open, report
    assert (report.first_seq, report.size, report.proven_size) == (0, 200, 200)


async def test_an_archive_and_the_database_make_one_log(archive: Path, forger: Forger) -> None:
    report = await judge(archive, forger.url)

    assert report.is_intact, report
    assert (report.first_seq, report.size, report.outside_size) == (0, 301, 301)


async def test_an_archive_by_itself_does_not_prove_where_it_ends(archive: Path) -> None:
    """An honest archive and one whose last segments were deleted look the same; both are told so."""
    whole = await judge(archive)
    second_segment(archive).unlink()
    cut = await judge(archive)

    assert whole.verdicts == cut.verdicts
    assert whole.verdicts[COMPLETENESS] is Verdict.UNPROVEN
    assert (whole.open_from, cut.open_from) == (200, 100)
    assert any("not proven beyond record 99" in one and "of 301 records" in one for one in cut.warnings)


async def test_a_newer_checkpoint_that_somebody_kept_leaves_the_end_of_an_archive_unproven(
    archive: Path, forger: Forger
) -> None:
    """It proves that there was more, which an honest archive does not hold yet; together with the database it must."""
    [(kept,)] = await forger.run("SELECT note FROM audit_checkpoints WHERE size = 301")

    alone = await asyncio.to_thread(judged, archive, None, kept=[kept])
    together = await asyncio.to_thread(judged, archive, forger.url, kept=[kept])
    await forger.run("DELETE FROM audit_records WHERE seq >= 290")
    await forger.run("DELETE FROM audit_checkpoints WHERE size > 290")
    await forger.fix_head()
    cut = await asyncio.to_thread(judged, archive, forger.url, kept=[kept])

    assert (alone.verdicts[COMPLETENESS], alone.is_broken) == (Verdict.UNPROVEN, False)
    assert together.is_intact
    assert cut.verdicts[COMPLETENESS] is Verdict.BROKEN


async def test_a_database_that_was_pruned_needs_its_archive(archive: Path, forger: Forger) -> None:
    """An archive that has nothing of what was pruned is not the archive of this log."""
    delete_first(archive)
    delete_first(archive)

    report = await judge(archive, forger.url)

    assert report.verdicts[COMPLETENESS] is Verdict.BROKEN
    assert report.first_bad == (0, 99)


@pytest.fixture
def moved(archive: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The archive was moved: what was pruned stayed in the old place, what was not is in both."""
    new = tmp_path / "new"
    copied = new / second_segment(archive).relative_to(archive)
    copied.parent.mkdir(parents=True)
    copied.write_bytes(second_segment(archive).read_bytes())
    return archive, new


async def test_an_archive_that_was_moved_is_one_with_the_place_it_came_from(
    moved: tuple[Path, Path], forger: Forger
) -> None:
    old, new = moved

    both = await asyncio.to_thread(judged, new, forger.url, old)
    only_new = await judge(new, forger.url)

    assert both.is_intact, both
    assert (both.first_seq, both.size) == (0, 301)
    assert only_new.verdicts[COMPLETENESS] is Verdict.BROKEN


async def test_a_copy_that_differs_is_seen(moved: tuple[Path, Path], forger: Forger) -> None:
    old, new = moved
    path = first_segment(new)
    opened = segment.open_segment("x", lambda: path.open("rb"))
    bodies = [row[1].replace(b'"ada"', b'"eve"') for rows in opened.records() for row in rows]
    path.write_bytes(b"".join(segment.pack(opened.manifest, [], bodies)))

    report = await asyncio.to_thread(judged, new, forger.url, old)

    assert report.verdicts[INTEGRITY] is Verdict.BROKEN
    assert report.first_bad is not None
    assert report.first_bad[0] >= 100


def test_a_store_that_falls_silent_is_neither_intact_nor_broken(archive: Path) -> None:
    with sources.archive(archive.as_uri()) as archived:
        silent = chain(islice(archived.parts, 1), silence())
        report = verify(silent, archived.notes, trusted=[SIGNER.verifier(1)], now=datetime.now(UTC))

    assert set(report.verdicts.values()) == {Verdict.UNPROVEN}
    assert report.unreached == "The store does not answer."
    assert report.findings == ()


def silence() -> Iterator[Part]:
    raise Unavailable("The store does not answer.")
    yield


def delete_first(archive: Path) -> None:
    first_segment(archive).unlink()


def alter(archive: Path) -> None:
    data = bytearray(first_segment(archive).read_bytes())
    data[len(data) // 2] ^= 1
    first_segment(archive).write_bytes(bytes(data))


def cut(archive: Path) -> None:
    first_segment(archive).write_bytes(first_segment(archive).read_bytes()[:-1])


def empty(archive: Path) -> None:
    first_segment(archive).write_bytes(b"")


def exchange(archive: Path) -> None:
    first, second = first_segment(archive), second_segment(archive)
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def copy(archive: Path) -> None:
    second = second_segment(archive)
    (second.parent / second.name.replace("-0000000", "-0000001", 1)).write_bytes(second.read_bytes())


def repack(archive: Path) -> None:
    """Another history, packed as ours would be, under a checkpoint of a stranger."""
    path = first_segment(archive)
    opened = segment.open_segment("x", lambda: path.open("rb"))
    bodies = [row[1].replace(b'"ada"', b'"eve"') for rows in opened.records() for row in rows]
    root = tree.root(forging.frontier_of(bodies, 100))
    text = f"{ORIGIN}\n100\n{base64.b64encode(root).decode()}\n"
    signature = STRANGER.verifier(1).key_id + STRANGER.key.sign(text.encode())
    note = f"{text}\n— {ORIGIN} {base64.b64encode(signature).decode()}\n"
    path.write_bytes(b"".join(segment.pack(Manifest(ORIGIN, 0, 100, (), root), [note], bodies)))


def without_its_checkpoint(archive: Path) -> None:
    path = second_segment(archive)
    opened = segment.open_segment("x", lambda: path.open("rb"))
    bodies = [row[1] for rows in opened.records() for row in rows]
    path.write_bytes(b"".join(segment.pack(opened.manifest, [], bodies)))


@pytest.mark.parametrize("attack", [delete_first, alter, cut, empty, exchange, copy, repack, without_its_checkpoint])
async def test_an_archive_that_was_touched_is_not_intact(archive: Path, attack: Callable[[Path], None]) -> None:
    attack(archive)

    report = await judge(archive)

    assert not report.is_only_open, report


def delete_last(archive: Path) -> None:
    second_segment(archive).unlink()


def alter_last(archive: Path) -> None:
    second_segment(archive).write_bytes(second_segment(archive).read_bytes()[:-9] + bytes(9))


def delete_all(archive: Path) -> None:
    delete_last(archive)
    delete_first(archive)


@pytest.fixture
async def all_pruned(forger: Forger, db: Database) -> Forger:
    """The same log after everything that is archived was pruned."""
    await forging.append(db, Event("audit.cleanup", ACTOR, meta={"end_seq": 200}))
    await forging.sign(db, SIGNER)
    await forger.prune(200)
    return forger


ATTACKS = [delete_first, delete_last, delete_all, alter, alter_last, cut, empty, exchange, copy, repack]


@pytest.mark.parametrize("attack", ATTACKS)
async def test_what_is_only_in_the_archive_cannot_be_touched(
    archive: Path, all_pruned: Forger, attack: Callable[[Path], None]
) -> None:
    assert (await judge(archive, all_pruned.url)).is_intact
    attack(archive)

    report = await judge(archive, all_pruned.url)

    assert report.is_broken, report
    assert report.first_bad is not None
    assert report.first_bad[0] < 200


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(data=st.data())
def test_no_byte_of_a_segment_can_be_changed(archive: Path, all_pruned: Forger, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(archive.rglob("*.tar.gz"))))
    honest = path.read_bytes()
    forged = bytearray(honest)
    forged[data.draw(st.integers(0, len(honest) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(forged)
    try:
        report = judged(archive, all_pruned.url)
    finally:
        path.write_bytes(honest)

    # A few bits only choose between two spellings of the same content for gzip.
    assert report.is_broken or report.root == judged(archive, all_pruned.url).root


async def test_a_missing_segment_is_named(archive: Path, forger: Forger) -> None:
    delete_first(archive)

    report = await judge(archive, forger.url)

    assert report.verdicts[COMPLETENESS] is Verdict.BROKEN
    assert report.first_bad == (0, 99)


async def test_a_missing_last_segment_is_seen_with_the_database(archive: Path, forger: Forger) -> None:
    """While the database still holds its records nothing is lost; when they are pruned, they are missing."""
    second_segment(archive).unlink()
    assert (await judge(archive, forger.url)).is_intact
    await forger.prune(150)

    report = await judge(archive, forger.url)

    assert report.verdicts[COMPLETENESS] is Verdict.BROKEN
    assert report.first_bad == (100, 149)


async def test_records_that_differ_from_those_archived_are_seen(archive: Path, forger: Forger) -> None:
    body = (await forger.bodies())[20].replace(b"web 20", b"web 99")
    await forger.run("UPDATE audit_records SET body = ? WHERE seq = 120", body)

    report = await judge(archive, forger.url)

    assert report.verdicts[INTEGRITY] is Verdict.BROKEN
    assert report.first_bad is not None
    assert 100 <= report.first_bad[0] <= 120 <= report.first_bad[1] <= 199


async def test_a_database_that_is_shorter_than_its_archive_is_seen(archive: Path, forger: Forger) -> None:
    await forger.run("DELETE FROM audit_records WHERE seq >= 150")
    await forger.run("DELETE FROM audit_checkpoints WHERE size >= 150")
    await forger.fix_head()

    report = await judge(archive, forger.url)

    assert report.verdicts[COMPLETENESS] is Verdict.BROKEN


async def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await judge(tmp_path / "absent")
    with pytest.raises(Unavailable):
        await judge(tmp_path)
    assert not (tmp_path / "absent").exists()
