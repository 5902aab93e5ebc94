"""kill -9 of the console itself while it archives, verifies, prunes and shrinks: the next start finishes it."""

import asyncio
import random
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.audit_seed import seed
from server_monitor.audit import sealing
from server_monitor.audit.archive import Archive
from server_monitor.audit.checkpoints import load_signer
from server_monitor.audit.retention import State
from server_monitor.db.engine import Database
from tests.support.console import ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.s3 import locked_bucket

pytestmark = pytest.mark.long

OLD, YOUNG = 40_000, 2_000  # two segments that are full and old
PHASES = ("seal", "archive", "prune", "prune", "shrink")


async def test_on_a_directory(tmp_path: Path) -> None:
    await _killed_again_and_again(tmp_path, {}, (tmp_path / "data" / "archive").as_uri(), seed_of_kills=1)


async def test_on_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked_bucket() as bucket:
        url = f"s3://{bucket.name}/console"
        environment = {**bucket.environment, "AUDIT_ARCHIVE_URL": url, "AUDIT_ARCHIVE_LOCK_DAYS": "360"}
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        await _killed_again_and_again(tmp_path, environment, url, seed_of_kills=2)
        keys = [key for key in await asyncio.to_thread(bucket.keys) if key.endswith(".tar.gz")]
        for key in keys:
            assert len(await asyncio.to_thread(bucket.versions, key)) == 1


async def _killed_again_and_again(
    tmp_path: Path, environment: Mapping[str, str], url: str, *, seed_of_kills: int
) -> None:
    console = ConsoleProcess(tmp_path / "data", environment)
    console.data_dir.mkdir()
    assert (await console.run("migrate"))[0] == 0
    node = (console.data_dir / "instance_id").read_text().strip()
    database = console.data_dir / "server-monitor.sqlite3"
    await asyncio.to_thread(seed, database, node, OLD, datetime.now(UTC) - timedelta(days=100))
    await asyncio.to_thread(seed, database, node, YOUNG)
    size = database.stat().st_size
    chance = random.Random(seed_of_kills)
    for phase in PHASES:
        await _started_until(database, console, phase)
        await asyncio.to_thread(time.sleep, chance.uniform(0, 0.4))  # The moment is the point, not the wait for it.
        await console.kill()
        await _require_nothing_lost(console.data_dir, node, url)

    await _started_until(database, console, "done")
    assert await console.stop() == 0
    await _require_nothing_lost(console.data_dir, node, url)
    assert _asked(database, "SELECT min_index FROM audit_head") >= OLD
    assert _asked(database, "PRAGMA freelist_count") == 0
    assert database.stat().st_size < size / 3
    code, out, said = await console.run("audit", "verify", "--archive", url, "--database", f"sqlite:///{database}")
    assert code == 0, out + said
    code, out, said = await console.run("audit", "verify")
    assert code == 0, out + said


async def _started_until(database: Path, console: ConsoleProcess, phase: str) -> None:
    """Start it, and return when it has come to this phase or has ended its run, which may be before it says `ready`.

    However long the run takes: what ends the wait is that nothing moves any more.
    """
    runs = console.log.count("audit_housekeeping_done")
    before = _asked(database, "SELECT min_index FROM audit_head")
    await console.start()
    loop, moved = asyncio.get_running_loop(), None
    async with asyncio.timeout(PATIENCE_S) as patience:
        while not _is_in(database, phase, before) and console.log.count("audit_housekeeping_done") == runs:
            assert "audit_housekeeping_failed" not in console.log, console.log
            if moved != (moved := _progress(database)):
                patience.reschedule(loop.time() + PATIENCE_S)
            await asyncio.sleep(0.02)


def _progress(database: Path) -> tuple[int, ...]:
    """What changes as housekeeping goes on."""
    return (
        _asked(database, "SELECT count(*) FROM audit_segments"),
        _asked(database, "SELECT count(*) FROM audit_segments WHERE verified_at IS NOT NULL"),
        _asked(database, "SELECT min_index FROM audit_head"),
        _asked(database, "PRAGMA freelist_count"),
    )


def _is_in(database: Path, phase: str, before: int) -> bool:
    pruned = _asked(database, "SELECT min_index FROM audit_head")
    return {
        "seal": True,
        "archive": _asked(database, "SELECT count(*) FROM audit_segments") > 1,
        "prune": before < pruned < OLD,
        "shrink": pruned >= OLD and _asked(database, "PRAGMA freelist_count") > 0,
        "done": False,
    }[phase]


def _asked(database: Path, question: str) -> int:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=PATIENCE_S)) as connection:
        return int(connection.execute(question).fetchone()[0])


async def _require_nothing_lost(data_dir: Path, node: str, url: str) -> None:
    """Every record is in the database, or in a segment that is verified, locked if it can be, and right now."""
    database = data_dir / "server-monitor.sqlite3"
    db = await Database.open(f"sqlite:///{database}", node=node)
    try:
        async with db.reading() as conn:
            segments = await sealing.listing(conn)
    finally:
        await db.close()
    first, size = (_asked(database, f"SELECT {column} FROM audit_head") for column in ("min_index", "size"))
    assert _asked(database, "SELECT count(*) FROM audit_records") == size - first
    assert _asked(database, "SELECT coalesce(min(seq), 0) FROM audit_records") == first
    archived = [row for row in segments if row.first_seq < first]
    assert [row.first_seq for row in archived] == [0, *(row.end_seq for row in archived)][: len(archived)]
    for row in archived:
        assert row.state in {State.VERIFIED, State.PRUNED}
        stored = await Archive(url).get(row.key, row.version)
        assert sealing.what_is_wrong(stored.data, row, load_signer(data_dir, node), 1) is None
        assert row.locked_until is not None or url.startswith("file:")
