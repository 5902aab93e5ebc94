"""A hold that somebody takes out of the database by hand goes on holding: the log states it."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson
import pytest

from server_monitor.audit import holds
from server_monitor.audit.retention import Obstacle
from server_monitor.audit.verify import Aspect, Verdict
from server_monitor.db.engine import Database
from tests.support.forger import Forger
from tests.support.keeping import ADA, fill, housekeeping, judged, later, sign, signer_of


async def delete(f: Forger) -> None:
    await f.run("DELETE FROM audit_holds")


async def release(f: Forger) -> None:
    moment = "'2026-01-01T00:00:00.000000Z'" if f.is_sqlite else "now()"
    await f.run(f"UPDATE audit_holds SET released_at = {moment}")


async def narrow(f: Forger) -> None:
    await f.run("""UPDATE audit_holds SET filters = '{"target_id": "nothing has this"}'""")


async def spoil(f: Forger) -> None:
    await f.run("UPDATE audit_holds SET filters = '[1]'")


@pytest.mark.parametrize("change", [delete, release, narrow, spoil])
async def test_a_hold_that_was_changed_by_hand_deletes_nothing(
    db: Database, database_url: str, tmp_path: Path, change: Callable[[Forger], Coroutine[Any, Any, None]]
) -> None:
    await fill(db, 400)
    async with db.transaction() as conn:
        await holds.add(conn, "case 7", "court order", {"target_id": "web01", "user_id": "eyJhbGci"}, actor=ADA)
    await sign(db, tmp_path)
    assert (await asyncio.to_thread(judged, database_url, signer_of(tmp_path))).is_intact
    await change(Forger(database_url))
    keeping = housekeeping(db, tmp_path)

    report = await asyncio.to_thread(judged, database_url, signer_of(tmp_path))
    done = await keeping.once(later())

    assert report.verdicts[Aspect.INTEGRITY] is Verdict.BROKEN
    assert any("'case 7'" in finding.message for finding in report.findings)
    assert (done.pruned, done.verdict.obstacle, done.verdict.hold) == (0, Obstacle.HOLD_CHANGED, "case 7")
    assert "'case 7'" in str(done.failure)
    assert keeping.failed is not None

    async with db.transaction() as conn:
        await holds.release(conn, "case 7", actor=ADA)
    await sign(db, tmp_path)
    assert (await asyncio.to_thread(judged, database_url, signer_of(tmp_path))).is_intact
    assert (await keeping.once(later())).failure is None
    assert (await Forger(database_url).first()) > 0


async def test_a_hold_outlives_the_record_that_stated_it(db: Database, database_url: str, tmp_path: Path) -> None:
    async with db.transaction() as conn:
        await holds.add(conn, "case 7", "court order", {"target_id": "nothing has this yet"}, actor=ADA)
    await fill(db, 350)
    await housekeeping(db, tmp_path).once(later(0), everything=True)
    assert (await housekeeping(db, tmp_path).once(later())).pruned > 300
    stated = [orjson.loads(body) for body in await Forger(database_url).bodies() if b'"action":"audit.hold"' in body]
    await delete(Forger(database_url))
    await fill(db, 350)

    done = await housekeeping(db, tmp_path).once(later(200))

    assert [record["meta"]["change"] for record in stated] == ["keep"]
    assert (done.pruned, done.verdict.hold) == (0, "case 7")
