"""A change and its record share a transaction; the stored tree equals the recomputed one."""

from datetime import UTC, datetime

import orjson
import pytest
from sqlalchemy import insert, select, text

from server_monitor.audit import chain, log, tree
from server_monitor.audit.chain import AuditTarget, Change, Event
from server_monitor.auth.actor import Actor, audited
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_head, audit_records, login_failures
from server_monitor.errors import AuditUnavailable
from server_monitor.telemetry.logs import RequestContext, request_context


async def test_records_chain_into_the_tree_of_the_head(db: Database, admin: Actor) -> None:
    for number in range(5):
        async with db.transaction() as conn:
            event = Event("server.create", audited(admin), AuditTarget("server", f"s{number}"))
            await log.append(conn, event, event)

    async with db.reading() as conn:
        bodies = list((await conn.execute(select(audit_records.c.body).order_by(audit_records.c.seq))).scalars())
        stored = (await conn.execute(select(audit_head.c.frontier))).scalar_one()
    frontier: tuple[bytes, ...] = ()
    for seq, body in enumerate(bodies):
        assert orjson.loads(body)["seq"] == seq
        assert chain.canonical(orjson.loads(body)) == body
        frontier = tree.grow(frontier, seq, tree.leaf_hash(body))
    assert b"".join(frontier) == stored


async def test_a_record_says_where_the_request_came_from(db: Database, admin: Actor) -> None:
    context = RequestContext(
        "req-1", "web", "192.0.2.7", 4711, "Agent/1 smt_abcdefghijklmnop", "POST", "/api/servers/{id}"
    )
    token = request_context.set(context)
    try:
        async with db.transaction() as conn:
            await log.append(conn, Event("auth.login", audited(admin)))
    finally:
        request_context.reset(token)

    async with db.reading() as conn:
        row = (await conn.execute(select(audit_records))).one()
    record = orjson.loads(row.body)
    assert record["source"] == {"ip": "192.0.2.7", "port": 4711, "ua": "Agent/1 [redacted]", "via": "web"}
    assert record["request"] == {"id": "req-1", "method": "POST", "route": "/api/servers/{id}"}
    assert record["node"] == "test-node"
    assert (row.ip, row.request_id, row.actor_name) == ("192.0.2.7", "req-1", "ada")


async def test_a_secret_in_an_event_is_masked(db: Database, admin: Actor) -> None:
    async with db.transaction() as conn:
        meta = {"password": "hunter2-hunter2", "text": "postgresql://u:hunter2-hunter2@h/d"}
        await log.append(conn, Event("server.update", audited(admin), meta=meta))

    async with db.reading() as conn:
        body = (await conn.execute(select(audit_records.c.body))).scalar_one()
    assert b"hunter2" not in body


async def test_a_secret_in_a_name_or_a_change_is_masked(db: Database, admin: Actor) -> None:
    async with db.transaction() as conn:
        changes = [Change("labels.db_password", "hunter2", None), Change("command", None, "mysql -phunter2 -e 1")]
        target = AuditTarget("snippet", "1", "psql password=hunter2")
        await log.append(conn, Event("snippet.update", audited(admin), target, change=changes))

    async with db.reading() as conn:
        body = (await conn.execute(select(audit_records.c.body))).scalar_one()
    assert b"hunter2" not in body
    assert b"mysql -p[redacted] -e 1" in body


async def test_no_record_no_change(db: Database, admin: Actor) -> None:
    """When the log cannot be written, the change that it would have recorded is not made."""
    async with db.transaction() as conn:
        await conn.execute(text("DROP TABLE audit_records"))

    async def change() -> None:
        async with db.transaction() as conn:
            row = {"key": "k", "failures": 1, "last_failed_at": datetime.now(UTC)}
            await conn.execute(insert(login_failures).values(row))
            await log.append(conn, Event("auth.login", audited(admin)))

    with pytest.raises(AuditUnavailable):
        await change()

    async with db.reading() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM login_failures"))).scalar_one() == 0


async def test_search_columns_hold_what_the_record_holds(db: Database, admin: Actor) -> None:
    """Text that is not in its normal form is stored in it, in both places."""
    async with db.transaction() as conn:
        await log.append(conn, Event("server.update", audited(admin), AuditTarget("server", "e\u0301\ud800")))

    async with db.reading() as conn:
        row = (await conn.execute(select(audit_records))).one()
    assert row.target_id == orjson.loads(row.body)["target"]["id"] == "\u00e9\ufffd"
