"""What a kill leaves open, the next start completes: once, and only that."""

import os
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from server_monitor.audit import intents, log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import Actor, audited
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records

ABSENT = 2**22 + 1  # no process has this number


async def begin(db: Database, admin: Actor, identity: str, process: Mapping[str, int]) -> None:
    """As another process would have recorded it."""
    async with db.transaction() as conn:
        target = AuditTarget("audit_export", identity)
        await log.append(conn, Event("audit.export", audited(admin), target, None, phase="intent", meta=process))


async def outcomes(db: Database) -> list[dict[str, Any]]:
    rows = select(audit_records.c.body).where(audit_records.c.outcome.is_not(None)).order_by(audit_records.c.seq)
    async with db.reading() as conn:
        return [orjson.loads(body) for body in (await conn.execute(rows)).scalars()]


async def recovered(db: Database, node: str = "test-node", **options: str) -> int:
    async with db.transaction() as conn:
        return await intents.recover(conn, node, **options)


async def test_what_was_cut_off_is_recorded_once(db: Database, admin: Actor) -> None:
    await begin(db, admin, "cut off", {"pid": ABSENT})
    await begin(db, admin, "by our own number", {"pid": os.getpid(), "pid_started": 1})

    assert await recovered(db, "another node") == 0
    assert await recovered(db) == 2
    assert await recovered(db) == 0

    ended = await outcomes(db)
    assert [(one["action"], one["target"]["id"], one["outcome"], one["reason"]) for one in ended] == [
        ("audit.export_finished", "cut off", "failure", "export.recovered"),
        ("audit.export_finished", "by our own number", "failure", "export.recovered"),
    ]
    assert [one["cause"]["parent_seq"] for one in ended] == [0, 1]


@pytest.mark.parametrize("action", intents.OUTCOMES)
async def test_what_still_runs_is_left_alone(db: Database, admin: Actor, action: str) -> None:
    target = AuditTarget("deed", "1")
    await intents.begin(db, action, audited(admin), target, {"format": "csv"})

    assert await recovered(db) == 0

    await intents.end(db, action, audited(admin), target, outcome="success", meta={"rows": 1})
    assert await recovered(db, boot_id="another") == 0
    (ended,) = await outcomes(db)
    assert (ended["action"], ended["phase"], ended["cause"]) == (intents.OUTCOMES[action], "outcome", {"parent_seq": 0})


async def test_nothing_outlives_a_reboot(db: Database, admin: Actor) -> None:
    """The number of its process, and even the tick it started at, may be those of another by then."""
    await intents.begin(db, "audit.export", audited(admin), AuditTarget("audit_export", "1"), {})

    assert await recovered(db, boot_id="another") == 1
