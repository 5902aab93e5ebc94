"""A bundle can be checked by somebody who has nothing but Python and the public key."""

import asyncio
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from server_monitor.audit import bundle, log
from server_monitor.audit.chain import Event
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records
from tests.audit.test_verify_database import SIGNER, verdicts_of_bundle
from tests.support import forger as forging
from tests.support.console import Browser, ConsoleProcess
from tests.support.forger import ACTOR
from tests.support.patience import PATIENCE_S


async def written(db: Database, path: Path) -> bundle.Bundle:
    async with bundle.started(db, SIGNER, actor=ACTOR) as made:
        data = b"".join([chunk async for chunk in made.chunks()])
        made.delivered()
    await asyncio.to_thread(path.write_bytes, data)
    return made


async def actions(db: Database) -> list[tuple[str, str | None]]:
    async with db.reading() as conn:
        c = audit_records.c
        return [(row.action, row.outcome) for row in await conn.execute(select(c.action, c.outcome).order_by(c.seq))]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The verifier as an auditor starts it: alone, with nothing but the standard library."""
    return subprocess.run(
        [sys.executable, "-I", "-S", *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    path.write_text(f"# our console\n{SIGNER.verifier(1).vkey}\n")
    return path


async def test_a_bundle_is_intact_to_both_verifiers(db: Database, tmp_path: Path, key: Path) -> None:
    kept = (await forging.fill(db, SIGNER, [300, 1200]))[0]
    path = tmp_path / "bundle.tar.gz"
    (tmp_path / "checkpoint.txt").write_text(kept)

    made = await written(db, path)

    assert made.rows == 1501
    assert all(set(verdicts.values()) == {"intact"} for verdicts in verdicts_of_bundle(path, [kept]))
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    script = tmp_path / "unpacked" / "verify.py"
    checkpoint = tmp_path / "checkpoint.txt"
    for given in (path, tmp_path / "unpacked"):
        ended = run(script, given, "--public-key", key, "--checkpoint", checkpoint)
        assert (ended.returncode, ended.stdout.count("intact")) == (0, 3), ended
        assert "warning" not in ended.stdout


async def test_a_bundle_is_recorded_before_and_after(db: Database, tmp_path: Path) -> None:
    await written(db, tmp_path / "b.tar.gz")

    assert await actions(db) == [("audit.export", None), ("audit.export_finished", "success")]


async def test_a_bundle_that_was_cut_off_is_recorded_as_failed(db: Database) -> None:
    async with bundle.started(db, SIGNER, actor=ACTOR):
        pass

    assert await actions(db) == [("audit.export", None), ("audit.export_finished", "failure")]


async def test_a_bundle_that_cannot_be_signed_has_failed_at_once(sqlite_db: Database) -> None:
    """Its intent does not wait for the next start of the console to get an outcome."""
    async with sqlite_db.transaction() as conn:
        await conn.execute(
            text("CREATE TRIGGER full BEFORE INSERT ON audit_checkpoints BEGIN SELECT RAISE(ABORT, 'full'); END")
        )

    with pytest.raises(IntegrityError, match="full"):
        async with bundle.started(sqlite_db, SIGNER, actor=ACTOR):
            pass

    assert await actions(sqlite_db) == [("audit.export", None), ("audit.export_finished", "failure")]


async def test_records_made_meanwhile_are_left_for_the_next_bundle(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    async with bundle.started(db, SIGNER, actor=ACTOR) as made:
        chunks = [await anext(made.chunks())]
        async with db.transaction() as conn:
            await log.append(conn, Event("server.create", ACTOR))
        chunks = [chunk async for chunk in made.chunks()]
    path.write_bytes(b"".join(chunks))

    assert made.rows == 1
    assert all(set(verdicts.values()) == {"intact"} for verdicts in verdicts_of_bundle(path, []))


async def test_the_verifier_of_a_bundle_says_what_is_wrong_with_what_it_is_given(
    sqlite_db: Database, tmp_path: Path, key: Path
) -> None:
    path = tmp_path / "b.tar.gz"
    await written(sqlite_db, path)
    script = Path(bundle.standalone.__file__)
    (tmp_path / "noise").write_bytes(b"noise")

    assert run(script, path).returncode == 3  # no key
    assert run(script, path, "--public-key", tmp_path / "absent").returncode == 3
    assert run(script, tmp_path / "noise", "--public-key", key).returncode == 3
    assert run(script, tmp_path / "absent", "--public-key", key).returncode == 3
    assert run(script, "--nonsense").returncode == 3
    assert run(script, "--help").returncode == 0


async def test_the_console_hands_out_a_bundle(console: ConsoleProcess, browser: Browser, tmp_path: Path) -> None:
    answer = await browser.get("/api/audit/bundle")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/gzip"
    path, key = tmp_path / "bundle.tar.gz", tmp_path / "key.txt"
    path.write_bytes(answer.content)
    key.write_text((await browser.get("/api/audit/key")).json()["vkey"])

    ended = run(Path(bundle.standalone.__file__), path, "--public-key", key)

    assert ended.returncode == 0, ended
