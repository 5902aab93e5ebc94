"""The log knows what was exported from it: a file from which lines were taken afterwards is not that any more."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from server_monitor.audit import export, lines, pages, sources, standalone, verify
from server_monitor.audit.lines import Compared
from server_monitor.db.engine import Database
from tests.audit.test_verify_database import SIGNER
from tests.support import forger as forging
from tests.support.forger import ACTOR, Forger

SECRET = SecretStr("a secret for tests that is long enough")
COUNT = 100


async def exported(db: Database, form: str, *, arrives: bool = True, **given: str) -> bytes:
    wanted = pages.parse(given, form, secret=SECRET, actor=ACTOR)
    async with export.started(db, SIGNER, SECRET, wanted, actor=ACTOR) as running:
        data = b"".join([chunk async for chunk in running.chunks()])
        if arrives:
            running.delivered()
    return data


def compared(bundle: Path, data: bytes, form: str) -> tuple[Compared, standalone.Verification]:
    """What the console's verifier finds of an export, and the one that travels in bundles."""
    path = bundle.with_name("export")
    path.write_bytes(data)
    trusted = SIGNER.verifier(1)
    with lines.opened(path, form) as given:
        log = sources.bundle(bundle)
        report = verify.verify(given.passing(log.parts), log.notes, trusted=[trusted], now=datetime.now(UTC))
        assert report.is_intact, report
        found = given.compared()
    theirs = standalone.Export(data, is_csv=form == "csv")
    return found, standalone.verify(str(bundle), [standalone.parse_key(trusted.vkey)], [], theirs)


async def bundled(url: str, db: Database, tmp_path: Path) -> Path:
    await forging.sign(db, SIGNER)
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(await Forger(url).bundle())
    return path


CUTS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "lines in the middle": lambda all_: all_[:50] + all_[60:],
    "the tail": lambda all_: all_[:-5],
    "the beginning": lambda all_: all_[:1] + all_[3:],
    "everything": lambda all_: all_[:1],
    "everything and the header": lambda _: [],
}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("cut", CUTS)
async def test_lines_that_were_taken_out_are_missed(
    sqlite_db: Database, sqlite_url: str, tmp_path: Path, form: str, cut: str
) -> None:
    await forging.fill(sqlite_db, SIGNER, [COUNT])
    data = await exported(sqlite_db, form)
    bundle = await bundled(sqlite_url, sqlite_db, tmp_path)

    whole, theirs = await asyncio.to_thread(compared, bundle, data, form)
    forged = b"".join(CUTS[cut](data.splitlines(keepends=True)))
    less, their_less = await asyncio.to_thread(compared, bundle, forged, form)

    assert (whole.is_proven, whole.is_complete) == (True, True)
    assert standalone.is_complete(theirs)
    assert whole.exported is not None
    assert (whole.exported.by, whole.exported.rows) == ("ada", COUNT)
    assert whole.exported.words == "no filter, at most 10000 records"
    assert "no filter, at most 10000 records" in str(theirs.export and theirs.export.exported)
    assert not less.is_complete
    assert not standalone.is_complete(their_less)
    if cut == "lines in the middle":
        assert less.missing == ((49, 58) if form == "csv" else (50, 59),)
        assert their_less.export is not None
        assert their_less.export.gaps == ["49 to 58" if form == "csv" else "50 to 59"]


async def test_what_was_asked_for_is_said(sqlite_db: Database, sqlite_url: str, tmp_path: Path) -> None:
    await forging.fill(sqlite_db, SIGNER, [COUNT])
    data = await exported(sqlite_db, "csv", action="server.*", target_id="s7", order="desc", limit="50")
    bundle = await bundled(sqlite_url, sqlite_db, tmp_path)

    found, theirs = await asyncio.to_thread(compared, bundle, data, "csv")

    words = "filters action=server.* target_id=s7, at most 50 records"
    assert found.is_complete
    assert found.exported is not None
    assert found.exported.words == words
    assert words in str(theirs.export and theirs.export.exported)


async def test_an_export_that_was_cut_off_is_no_whole_one(sqlite_db: Database, sqlite_url: str, tmp_path: Path) -> None:
    """Its end is in the log too, with the digest of what had been sent."""
    await forging.fill(sqlite_db, SIGNER, [COUNT])
    data = await exported(sqlite_db, "csv", arrives=False)
    bundle = await bundled(sqlite_url, sqlite_db, tmp_path)

    found, theirs = await asyncio.to_thread(compared, bundle, data, "csv")

    assert (found.is_proven, found.is_complete) == (True, False)
    assert not standalone.is_complete(theirs)
