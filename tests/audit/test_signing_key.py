"""A log goes on under the key that signed it, or not at all."""

from pathlib import Path

import pytest
from sqlalchemy import update

from server_monitor.audit import checkpoints
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_checkpoints
from server_monitor.errors import Unavailable
from tests.support.console import ConsoleProcess
from tests.support.keeping import fill, sign, signer_of


async def test_a_key_that_is_lost_or_another_is_refused_and_none_is_made(db: Database, tmp_path: Path) -> None:
    first = (await checkpoints.open_signer(db, tmp_path)).verifier(1)
    assert first == signer_of(tmp_path).verifier(1), "a log that nobody has signed gets a key"
    await fill(db, 5)
    await sign(db, tmp_path)
    assert (await checkpoints.open_signer(db, tmp_path)).verifier(1) == first

    key = tmp_path / "audit" / "signing_key"
    kept = key.read_text()
    key.unlink()
    with pytest.raises(Unavailable, match=r"is gone.*Restore"):
        await checkpoints.open_signer(db, tmp_path)
    assert not key.exists()
    signer_of(tmp_path)
    with pytest.raises(Unavailable, match=r"is not the one that signed.*Restore"):
        await checkpoints.open_signer(db, tmp_path)

    key.write_text(kept)
    assert (await checkpoints.open_signer(db, tmp_path)).verifier(1) == first


async def test_a_note_that_is_none_hides_no_other(db: Database, tmp_path: Path) -> None:
    """A key is not accepted because the newest checkpoint was made unreadable, and not refused for it either."""
    await fill(db, 5)
    await sign(db, tmp_path)
    await fill(db, 5)
    newest = await sign(db, tmp_path)
    async with db.transaction() as conn:
        await conn.execute(
            update(audit_checkpoints).where(audit_checkpoints.c.size == newest.size).values(note="nothing like a note")
        )

    await checkpoints.open_signer(db, tmp_path)
    (tmp_path / "audit" / "signing_key").unlink()
    with pytest.raises(Unavailable):
        await checkpoints.open_signer(db, tmp_path)


async def test_a_console_without_its_key_does_not_start_and_records_nothing(console: ConsoleProcess) -> None:
    await console.stop()
    key = console.data_dir / "audit" / "signing_key"
    kept = key.read_text()
    key.unlink()

    with pytest.raises(AssertionError, match="did not start"):
        await console.start()
    assert "The key that signed the audit log is gone" in console.log
    assert (await console.run("audit", "archive", "--now"))[0] == 1
    assert not key.exists()

    key.write_text(kept)
    key.chmod(0o600)
    await console.start()
    assert (await console.run("audit", "verify"))[0] == 0
