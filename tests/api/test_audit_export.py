"""Exports and the list over HTTP, on both databases."""

import asyncio
import base64
import csv
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from server_monitor.audit import cells, log, note
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import Role, os_user
from server_monitor.auth.actor import audited as shown
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records
from tests.support.api import Person, Site, site_on

CSV = "/api/export/audit/csv"
JSON = "/api/export/audit/json"
LIST = "/api/audit-logs"
INJECTION = "x' OR '1'='1"


@pytest.fixture
async def site(db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(db, tmp_path) as site:
        yield site


@pytest.fixture
async def auditor(site: Site) -> Person:
    return await site.person(Role.AUDITOR)


async def records(db: Database, action: str) -> list[dict[str, Any]]:
    rows = select(audit_records.c.body).where(audit_records.c.action == action).order_by(audit_records.c.seq)
    async with db.reading() as conn:
        return [orjson.loads(body) for body in (await conn.execute(rows)).scalars()]


async def write(db: Database, count: int, **meta: Any) -> None:
    async with db.transaction() as conn:
        events = [
            Event("server.update", shown(os_user("writer")), AuditTarget("server", f"s{number}"), meta=meta)
            for number in range(count)
        ]
        await log.append(conn, *events)


async def test_csv_holds_every_record_of_the_snapshot(site: Site, auditor: Person, db: Database) -> None:
    await write(db, 2500, labels={"env": "prod"})

    answer = await auditor.send("GET", CSV)

    assert answer.status_code == 200
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert answer.text.startswith(",".join(cells.COLUMNS) + "\r\n")
    assert answer.text.count("\r\n") == answer.text.count("\n") == len(rows) + 1
    assert [int(row["seq"]) for row in rows] == list(range(len(rows)))
    assert int(answer.headers["X-Row-Count"]) == int(answer.headers["X-Snapshot-Size"]) == len(rows) > 2500
    assert answer.headers["X-Next-Cursor"] == ""
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="audit-')
    last = rows[-1]
    assert (last["username"], last["action"], last["target_id"]) == ("writer", "server.update", "s2499")
    assert orjson.loads(last["meta_json"]) == {"labels": {"env": "prod"}}


async def test_the_checkpoint_covers_the_snapshot(auditor: Person, db: Database) -> None:
    answer = await auditor.send("GET", JSON)

    text = base64.b64decode(answer.headers["X-Checkpoint"]).decode()
    checkpoint, _ = note.read(text)
    assert checkpoint.size >= int(answer.headers["X-Snapshot-Size"])
    assert answer.json()["checkpoint"] == text


async def test_json_is_one_object_that_says_what_it_holds(auditor: Person, db: Database) -> None:
    await write(db, 1100, labels={"env": "prod"})

    document = await auditor.get(JSON, limit=1050)

    assert document["count"] == len(document["items"]) == 1050
    assert list(document) == ["items", "count", "next", "checkpoint"]
    assert tuple(document["items"][0]) == cells.COLUMNS
    assert document["items"][-1]["meta_json"] == {"labels": {"env": "prod"}}
    assert document["next"]


async def test_every_hash_is_that_of_the_stored_bytes(auditor: Person, db: Database) -> None:
    document = await auditor.get(JSON)

    async with db.reading() as conn:
        rows = (await conn.execute(select(audit_records.c.seq, audit_records.c.body))).all()
    leaves = {row.seq: hashlib.sha256(b"\x00" + row.body).hexdigest() for row in rows}
    assert document["items"]
    assert all(item["hash"] == leaves[item["seq"]] for item in document["items"])


async def test_an_export_is_recorded_before_and_after(auditor: Person, db: Database) -> None:
    answer = await auditor.send("GET", CSV, action="user.*", limit=7)

    (begun,) = await records(db, "audit.export")
    (ended,) = await records(db, "audit.export_finished")
    assert begun["phase"] == "intent"
    assert begun["meta"]["format"] == "csv"
    assert begun["meta"]["filters"] == {"action": "user.*"}
    assert begun["meta"]["limit"] == 7
    assert begun["meta"]["snapshot"] == begun["seq"] == int(answer.headers["X-Snapshot-Size"])
    assert ended["outcome"] == "success"
    assert ended["cause"]["parent_seq"] == begun["seq"]
    assert ended["meta"] == {
        "rows": int(answer.headers["X-Row-Count"]),
        "bytes": len(answer.content),
        "sha256": hashlib.sha256(answer.content).hexdigest(),
    }


@pytest.mark.parametrize("path", [CSV, JSON, LIST])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("from", "2026-13-01"),
        ("from", INJECTION),
        ("to", "2026-02-30"),
        ("to", INJECTION),
        ("action", INJECTION),
        ("outcome", INJECTION),
        ("order", INJECTION),
        ("cursor", INJECTION),
        ("cursor", "AAAA.AAAA"),
        ("cursor", ""),
        ("limit", INJECTION),
        ("limit", "0"),
        ("limit", "-1"),
        ("limit", "50001"),
        ("limit", "1e9"),
        ("limit", "00000500001"),
        ("limit", "9" * 5000),
        ("limit", "x"),
        ("user_id", ""),
        ("ip", "a\x00b"),
        ("colour", "red"),
    ],
)
async def test_a_wrong_parameter_is_named(auditor: Person, path: str, name: str, text: str) -> None:
    problem = await auditor.ask("GET", path, status=422, **{name: text})

    assert [error["field"] for error in problem["errors"]] == [name]


@pytest.mark.parametrize("path", [CSV, JSON, LIST, "/api/audit/bundle"])
@pytest.mark.parametrize(
    ("name", "texts"), [("limit", ["50001", "5"]), ("action", ["auth.*"] * 2), ("archive", [1, 0])]
)
async def test_a_parameter_that_is_given_twice_is_named(
    auditor: Person, path: str, name: str, texts: list[object]
) -> None:
    """Whichever of the two counted, somebody would believe in the other."""
    problem = await auditor.ask("GET", path, status=422, **{name: texts})

    assert name in [error["field"] for error in problem["errors"]]


async def test_all_wrong_parameters_are_named_at_once(auditor: Person) -> None:
    problem = await auditor.ask("GET", CSV, status=422, limit="x", order="y", action="z")

    assert {error["field"] for error in problem["errors"]} == {"limit", "order", "action"}


@pytest.mark.parametrize("name", ["user_id", "target_type", "target_id", "ip", "request_id"])
async def test_sql_in_a_text_filter_finds_nothing(auditor: Person, name: str) -> None:
    assert (await auditor.get(JSON, **{name: INJECTION}))["items"] == []


@pytest.mark.parametrize("path", [CSV, JSON])
async def test_pages_hold_each_record_once_while_writers_go_on(auditor: Person, db: Database, path: str) -> None:
    """Eight writers append between and during the pages; the snapshot of the first page stands."""
    await write(db, 1500)
    stop = asyncio.Event()

    async def writer() -> None:
        while not stop.is_set():
            await write(db, 3)

    seqs: list[int] = []
    snapshots = set()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(writer())
        query: dict[str, Any] = {"limit": 400}
        while True:
            answer = await auditor.send("GET", path, **query)
            assert answer.status_code == 200, answer.text
            snapshots.add(answer.headers["X-Snapshot-Size"])
            seqs += seqs_of(answer.text, path)
            if not answer.headers["X-Next-Cursor"]:
                break
            query["cursor"] = answer.headers["X-Next-Cursor"]
        stop.set()

    assert len(snapshots) == 1
    assert seqs == list(range(int(snapshots.pop())))


def seqs_of(text: str, path: str) -> list[int]:
    if path == JSON:
        return [item["seq"] for item in orjson.loads(text)["items"]]
    return [int(row["seq"]) for row in csv.DictReader(io.StringIO(text, newline=""))]


async def test_pages_go_backwards_too(auditor: Person, db: Database) -> None:
    await write(db, 25)
    first = await auditor.get(LIST, limit=20)
    rest = await auditor.get(LIST, limit=1000, cursor=first["next"])

    seqs = [item["seq"] for item in first["items"] + rest["items"]]
    assert seqs == list(range(seqs[0], -1, -1))
    assert rest["next"] is None
    assert tuple(first["items"][0]) == cells.COLUMNS


async def test_a_page_follows_its_filters(auditor: Person, db: Database) -> None:
    await write(db, 5)
    first = await auditor.get(JSON, action="server.update", limit=2, order="desc")

    alone = await auditor.get(JSON, cursor=first["next"])
    repeated = await auditor.get(JSON, cursor=first["next"], action="server.update", order="desc")

    assert [item["target_id"] for item in first["items"]] == ["s4", "s3"]
    assert [item["target_id"] for item in alone["items"]] == ["s2", "s1", "s0"]
    assert repeated["items"] == alone["items"]


async def test_a_cursor_of_somebody_or_something_else_is_refused(site: Site, auditor: Person, db: Database) -> None:
    await write(db, 5)
    cursor = (await auditor.get(JSON, limit=1, action="server.*"))["next"]
    other = await site.person(Role.AUDITOR)
    payload, _, signature = cursor.partition(".")
    altered = ("B" if payload[0] == "A" else "A") + payload[1:]

    for person, path, query in [
        (other, JSON, {"cursor": cursor}),
        (auditor, CSV, {"cursor": cursor}),
        (auditor, LIST, {"cursor": cursor}),
        (auditor, JSON, {"cursor": cursor, "action": "user.*"}),
        (auditor, JSON, {"cursor": cursor, "order": "desc"}),
        (auditor, JSON, {"cursor": f"{altered}.{signature}"}),
        (auditor, JSON, {"cursor": f"{payload}.{signature[:-1]}"}),
        (auditor, JSON, {"cursor": cursor + "="}),
        (auditor, JSON, {"cursor": payload}),
    ]:
        problem = await person.ask("GET", path, status=422, **query)
        assert [error["field"] for error in problem["errors"]] == ["cursor"]


async def test_one_record_is_shown_whole(auditor: Person, db: Database) -> None:
    await write(db, 1, long="x" * 3000)
    newest = (await auditor.get(LIST, limit=1, action="server.update"))["items"][0]

    shown_whole = await auditor.get(f"{LIST}/{newest['seq']}")

    assert newest["meta_json"]["truncated"] is True
    assert shown_whole["record"]["meta"] == {"long": "x" * 3000}
    assert shown_whole["hash"] == newest["hash"]
    await auditor.ask("GET", f"{LIST}/99999999", status=404)


@pytest.mark.parametrize("path", [CSV, JSON, LIST, f"{LIST}/0"])
@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, None])
async def test_others_may_not(site: Site, path: str, role: Role | None) -> None:
    person = await site.person(role)

    assert (await person.send("GET", path)).status_code == 403


async def test_an_auditor_of_one_group_may_not(site: Site, auditor: Person, db: Database) -> None:
    """The log is about the whole console; a role within a group does not open it."""
    admin = await site.person(Role.ADMIN)
    group = await admin.ask("POST", "/api/groups", {"name": "web"}, status=201)
    person = await site.person(None, {group["id"]: Role.AUDITOR})

    assert (await person.send("GET", CSV)).status_code == 403


@pytest.mark.parametrize("number", ["-1", "x", "1.5", str(2**53), str(2**63), "1" + "0" * 30, "9" * 5000])
async def test_a_number_that_no_record_has_is_refused(auditor: Person, number: str) -> None:
    answers = [
        await auditor.send("GET", f"/api/audit/proof/{number}"),
        await auditor.send("GET", f"/api/audit-logs/{number}"),
        await auditor.send("GET", "/api/audit/consistency", **{"from": number, "to": "1"}),
        await auditor.send("GET", "/api/audit/consistency", **{"from": "0", "to": number}),
    ]

    assert {answer.status_code for answer in answers} == {422}


@pytest.mark.parametrize("number", ["1000000", str(2**53 - 1)])
async def test_a_record_that_is_not_there_is_not_found(auditor: Person, number: str) -> None:
    assert (await auditor.send("GET", f"/api/audit/proof/{number}")).status_code == 404
    answer = await auditor.send("GET", "/api/audit/consistency", **{"from": "1", "to": number})
    assert answer.status_code == 404
