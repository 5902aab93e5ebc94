"""Nothing that an owner of the database does to its records goes unseen, and nothing makes the verifier fall over."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from server_monitor.audit import checkpoints, sources
from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.verify import Report, StoredNote, verify
from server_monitor.db.engine import Database
from tests.support.forger import Forger, fill

COUNTS = (100, 150, 50)
SIZE = sum(COUNTS)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return checkpoints.load_signer(tmp_path, "test-node")


@pytest.fixture
async def forger(db: Database, database_url: str, signer: Signer) -> Forger:
    """A log of SIZE records with a checkpoint after each of COUNTS, in the hands of an attacker."""
    await fill(db, signer, COUNTS)
    return Forger(database_url)


async def judge(url: str, signer: Signer, outside: list[str] | None = None) -> Report:
    import asyncio

    return await asyncio.to_thread(judged, url, signer, outside)


def judged(url: str, signer: Signer, outside: list[str] | None = None) -> Report:
    kept = [StoredNote(text, place="kept", is_outside=True) for text in outside or ()]
    with sources.database(url) as log:
        now = datetime.now(UTC)
        return verify([log.part], log.notes, outside=kept, trusted=[signer.verifier(1)], now=now)


async def test_an_untouched_log_is_intact(forger: Forger, database_url: str, signer: Signer) -> None:
    report = await judge(database_url, signer)

    assert report.is_intact, report
    assert (report.first_seq, report.size, report.proven_size) == (0, SIZE, SIZE)
    assert report.findings == ()
