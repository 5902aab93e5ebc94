"""A record, hold or segment that somebody has damaged is shown as damaged, and everything else as ever."""

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from server_monitor.audit import intents, log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import Role, audited, os_user
from server_monitor.db.engine import Database
from tests.support.api import Person, Site, site_on
from tests.support.forger import Forger
from tests.support.keeping import housekeeping, later

PATHS = (
    "/api/audit-logs",
    "/api/audit-logs/5",
    "/api/export/audit/csv",
    "/api/export/audit/json",
    "/api/audit/checkpoint",
    "/api/audit/key",
    "/api/audit/proof/5",
    "/api/audit/consistency",
    "/api/audit/bundle",
    "/api/audit/segments",
    "/api/audit/holds",
    "/api/audit/verify",
)
DAMAGE = {
    "a record is text": "UPDATE audit_records SET body = CAST(body AS text) WHERE seq = 5",
    "a record is a number": "UPDATE audit_records SET body = 7 WHERE seq = 5",
    "a record is noise": "UPDATE audit_records SET body = x'00ff' WHERE seq = 5",
    "a record is another JSON": "UPDATE audit_records SET body = CAST('[1]' AS blob) WHERE seq = 5",
    "a hold is a list": "UPDATE audit_holds SET filters = '[1]'",
    "a hold is no JSON": "UPDATE audit_holds SET filters = '{'",
    "a hold has a filter that there is none of": 'UPDATE audit_holds SET filters = \'{"zzz":"1"}\'',
    "a segment has a word for its root": "UPDATE audit_segments SET root = 'text'",
    "a segment has a word for its size": "UPDATE audit_segments SET size_bytes = 'text'",
    "a checkpoint is no note": "UPDATE audit_checkpoints SET note = 'garbage'",
    "a checkpoint has a word for its root": "UPDATE audit_checkpoints SET root = 'garbage'",
    "the head has half a frontier": "UPDATE audit_head SET frontier = x'00'",
    "a verdict is noise": "UPDATE audit_records SET body = x'00ff', action = 'audit.verify', outcome = 'success'",
}


@pytest.fixture
async def site(sqlite_db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    """A log of some records with a hold and an archived segment."""
    async with site_on(sqlite_db, tmp_path) as site:
        await write(sqlite_db)
        admin = await site.person(Role.ADMIN)
        await admin.ask("POST", "/api/audit/holds", {"name": "h", "reason": "r", "filters": {}}, status=201)
        await housekeeping(sqlite_db, tmp_path).once(later(0), everything=True)
        yield site


async def write(db: Database) -> None:
    async with db.transaction() as conn:
        target = AuditTarget("server", "web01", "web01")
        await log.append(conn, *[Event("server.update", audited(os_user("ada")), target) for _ in range(20)])


@pytest.fixture
async def auditor(site: Site) -> Person:
    return await site.person(Role.AUDITOR)


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=DAMAGE.keys())
async def test_no_page_falls_over(auditor: Person, sqlite_url: str, statement: str) -> None:
    """What cannot be shown is 503 with a sentence that says what is damaged."""
    await Forger(sqlite_url).run(statement)

    for path in PATHS:
        answer = await auditor.send("GET", path, **({"from": 1, "to": 9} if path.endswith("consistency") else {}))
        if answer.status_code != 200:
            assert answer.status_code == 503, (path, answer.text)
            assert answer.json()["code"] in {"unavailable", "audit_unavailable"}, (path, answer.text)


@pytest.mark.parametrize("body", [b"\x00ff", "text", 7, b'{"action":"user.create"}', b"[]\n"])
async def test_a_damaged_record_leaves_the_others_readable(auditor: Person, sqlite_url: str, body: object) -> None:
    await Forger(sqlite_url).run("UPDATE audit_records SET body = ? WHERE seq = 5", body)

    rows = list(csv.DictReader(io.StringIO((await auditor.send("GET", "/api/export/audit/csv")).text, newline="")))
    items = (await auditor.get("/api/export/audit/json"))["items"]
    listed = (await auditor.get("/api/audit-logs", order="asc"))["items"]
    one = await auditor.get("/api/audit-logs/5")

    assert [row["seq"] for row in rows][:10] == [str(number) for number in range(10)]
    assert (rows[5]["action"], rows[5]["meta_json"]) == ("", '{"unreadable":true}')
    assert rows[6]["action"]
    assert items[5]["meta_json"] == listed[5]["meta_json"] == one["record"] == {"unreadable": True}
    assert items[5]["hash"] == one["hash"] == rows[5]["hash"]
    assert (await ended(sqlite_url))["unreadable"] == 1


async def ended(url: str) -> dict[str, Any]:
    [(body,)] = await Forger(url).run(
        "SELECT body FROM audit_records WHERE action = 'audit.export_finished' ORDER BY seq DESC LIMIT 1"
    )
    return dict(orjson.loads(body)["meta"])


async def test_a_damaged_hold_holds_everything_and_is_shown_as_damaged(auditor: Person, sqlite_url: str) -> None:
    await Forger(sqlite_url).run("UPDATE audit_holds SET filters = '[1]'")

    [hold] = (await auditor.get("/api/audit/holds"))["items"]

    assert (hold["name"], hold["filters"], hold["damaged"]) == ("h", {}, True)


async def test_a_damaged_intent_does_not_stop_the_start(sqlite_db: Database, sqlite_url: str) -> None:
    actor, target = audited(os_user("ada")), AuditTarget("audit_export", "x")
    await intents.begin(sqlite_db, "audit.export", actor, target, {})
    await Forger(sqlite_url).run("UPDATE audit_records SET body = x'00ff' WHERE seq = 0")

    async with sqlite_db.transaction() as conn:
        assert await intents.recover(conn, "test-node", "another boot") == 0
