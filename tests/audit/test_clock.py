"""A clock that jumps is written down, decides nothing, and holds no checkpoint up."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from sqlalchemy import select

from server_monitor.audit import checkpoints, keeper
from server_monitor.audit.clock import Step, Watch, is_doubtful
from server_monitor.audit.keeper import Keeper
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records
from server_monitor.errors import AuditUnavailable
from tests.support.keeping import fill, signer_of

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


async def test_a_clock_that_is_put_back_holds_no_checkpoint_up(db: Database, tmp_path: Path) -> None:
    """The newest checkpoint is that of the largest log, and one from the future is as old as can be."""
    signing = Keeper(db, signer_of(tmp_path))
    await fill(db, 5)
    await signing.sign("grown", NOW + DAY)
    await fill(db, 5)

    made = await signing.look(NOW)

    assert made is not None
    assert made.size == 10
    async with db.reading() as conn:
        assert await checkpoints.newest(conn) == made


async def test_a_quiet_log_is_signed_once_after_its_clock_was_put_back(db: Database, tmp_path: Path) -> None:
    signing = Keeper(db, signer_of(tmp_path))
    await fill(db, 5)
    await signing.sign("grown", NOW + DAY)

    assert await signing.look(NOW) is not None
    assert await signing.look(NOW + timedelta(seconds=1)) is None


async def test_a_step_of_the_clock_is_recorded(db: Database, tmp_path: Path) -> None:
    keeping = Keeper(db, signer_of(tmp_path))
    for ran_s, wall in ((0, NOW), (60, NOW + timedelta(seconds=61)), (62, NOW + HOUR), (63, NOW)):
        await keeping.watch_clock(wall, ran_s)

    async with db.reading() as conn:
        found = select(audit_records.c.body).where(audit_records.c.action == "system.clock_step")
        metas = [orjson.loads(body)["meta"] for body in (await conn.execute(found)).scalars()]
        assert [round(step.moved.total_seconds()) for step in await keeper.clock_steps(conn)] == [-3601, 3538]
    assert [meta["moved_ms"] for meta in metas] == [3_538_000, -3_601_000]
    assert metas[0]["clock"] == "2026-11-25T13:00:00.000000Z"


async def test_a_step_that_cannot_be_recorded_is_recorded_later(sqlite_db: Database, tmp_path: Path) -> None:
    keeping = Keeper(sqlite_db, signer_of(tmp_path))
    await keeping.watch_clock(NOW, 0)
    async with sqlite_db.transaction() as conn:
        await conn.exec_driver_sql("ALTER TABLE audit_head RENAME TO away")
    with pytest.raises(AuditUnavailable):
        await keeping.watch_clock(NOW + HOUR, 1)
    async with sqlite_db.transaction() as conn:
        await conn.exec_driver_sql("ALTER TABLE away RENAME TO audit_head")

    await keeping.watch_clock(NOW + HOUR + timedelta(seconds=1), 2)

    async with sqlite_db.reading() as conn:
        assert len(await keeper.clock_steps(conn)) == 1


def test_a_clock_that_moved_far_is_doubted_until_it_is_back_or_a_day_has_passed() -> None:
    forward = Step(NOW + DAY, DAY)
    back = Step(NOW + HOUR, -DAY)

    assert not is_doubtful([], NOW)
    assert is_doubtful([forward], NOW + DAY + HOUR)
    assert not is_doubtful([back, forward], NOW + 2 * HOUR)
    assert not is_doubtful([forward], NOW + 2 * DAY)
    assert not is_doubtful([Step(NOW, timedelta(minutes=5))], NOW + HOUR)
    assert is_doubtful([Step(NOW + n * HOUR, timedelta(minutes=25)) for n in (3, 2, 1)], NOW + 3 * HOUR)


def test_slow_corrections_of_the_clock_add_up() -> None:
    watch = Watch()
    steps = [watch.look(NOW + timedelta(seconds=10 * n + 7 * n), 10.0 * n) for n in range(10)]

    assert [step.moved.total_seconds() for step in steps if step is not None] == [63]
