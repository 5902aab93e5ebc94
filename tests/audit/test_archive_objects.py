"""What lies in an archive is what the log says was put there: no object more, and none in the place of another."""

import asyncio
import shutil
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server_monitor.audit import sources, verify
from server_monitor.audit.verify import Aspect, Report, StoredNote, Verdict
from server_monitor.db.engine import Database
from tests.support.keeping import fill, housekeeping, later, sign, signer_of

COMPLETENESS = Aspect.COMPLETENESS


@pytest.fixture
async def archive(db: Database, tmp_path: Path) -> Path:
    """The archive of a log of 650 records, the first 600 of which are in two segments and nowhere else."""
    await fill(db, 650)
    await housekeeping(db, tmp_path).once(later(0))
    await housekeeping(db, tmp_path).once(later())
    await fill(db, 50)
    await sign(db, tmp_path)
    return tmp_path / "archive"


def first_of(archive: Path) -> Path:
    return min(archive.rglob("*.tar.gz"))


def again(path: Path, attempt: int = 2) -> Path:
    return path.with_name(path.name.replace(".tar.gz", f"-{attempt}.tar.gz"))


async def judge(archive: Path, url: str = "", kept: str | None = None) -> Report:
    return await asyncio.to_thread(judged, archive, url, kept)


def judged(archive: Path, url: str, kept: str | None) -> Report:
    with sources.opened(url, [archive.as_uri()]) as log:
        outside = [*log.outside, *([StoredNote(kept, place="kept", is_outside=True)] if kept else [])]
        trusted = [signer_of(archive.parent).verifier(1)]
        return verify.verify(
            log.parts, log.notes, outside=outside, trusted=trusted, kept=log.kept, now=datetime.now(UTC)
        )


async def test_an_untouched_archive_and_its_database_are_intact(archive: Path, database_url: str) -> None:
    assert (await judge(archive, database_url)).is_intact


def alter_beside_a_copy(archive: Path) -> None:
    """What is read is the copy: it has the name of a further attempt."""
    path = first_of(archive)
    shutil.copy(path, again(path))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def put_a_copy(archive: Path) -> None:
    shutil.copy(first_of(archive), again(first_of(archive)))


def put_junk(archive: Path) -> None:
    (first_of(archive).parent / "junk.tar.gz").write_bytes(b"junk")


def put_a_note(archive: Path) -> None:
    (archive / "README.txt").write_text("read me")


def write_otherwise(archive: Path) -> None:
    """The same content, packed by somebody else: only its digest tells."""
    path = first_of(archive)
    packed = path.read_bytes()
    plain = zlib.decompress(packed, wbits=zlib.MAX_WBITS | 16)
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(packed[:10] + deflate.compress(plain) + deflate.flush() + packed[-8:])


TOUCHED: dict[str, tuple[Callable[[Path], None], str]] = {
    "an altered object beside a copy": (alter_beside_a_copy, "object_altered"),
    "a copy under another name": (put_a_copy, "object_extra"),
    "an object that is nothing": (put_junk, "object_unknown"),
    "a file that somebody left": (put_a_note, "object_unknown"),
    "an object that was packed anew": (write_otherwise, "object_altered"),
}


@pytest.mark.parametrize("name", TOUCHED)
async def test_what_does_not_belong_there_is_named(archive: Path, database_url: str, name: str) -> None:
    touch, code = TOUCHED[name]
    await asyncio.to_thread(touch, archive)

    report = await judge(archive, database_url)

    assert report.is_broken
    assert code in [finding.code for finding in report.findings], report


async def test_an_archive_whose_end_is_missing_is_not_called_complete(archive: Path, db: Database) -> None:
    whole = await judge(archive)
    await asyncio.to_thread(lambda: max(archive.rglob("*.tar.gz")).unlink())
    cut = await judge(archive)

    for report in (whole, cut):
        assert report.verdicts[COMPLETENESS] is Verdict.UNPROVEN, report
        assert (report.is_intact, report.is_broken, report.is_only_open) == (False, False, True)


async def test_a_checkpoint_that_somebody_kept_says_how_far_an_archive_has_to_reach(
    db: Database, tmp_path: Path
) -> None:
    await fill(db, 599)
    made = await sign(db, tmp_path)
    await housekeeping(db, tmp_path).once(later(0), everything=True)
    archive = tmp_path / "archive"

    whole = await judge(archive, kept=made.note)
    await asyncio.to_thread(lambda: max(archive.rglob("*.tar.gz")).unlink())
    cut = await judge(archive, kept=made.note)

    assert whole.is_intact, whole
    assert cut.verdicts[COMPLETENESS] is Verdict.UNPROVEN
    assert any("of 599 records" in warning for warning in cut.warnings)


async def test_an_object_that_the_log_does_not_speak_of_yet_is_a_doubt(archive: Path) -> None:
    """Of the last segment only the database says under which name it was archived."""
    last = await asyncio.to_thread(lambda: max(archive.rglob("*.tar.gz")))
    await asyncio.to_thread(shutil.copy, last, again(last))

    report = await judge(archive)

    assert report.is_only_open
    assert any("lies beside" in warning for warning in report.warnings)
