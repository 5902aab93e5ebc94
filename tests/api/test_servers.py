"""Servers over HTTP."""

import json
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from server_monitor.fleet import servers
from server_monitor.series.sample import Sample
from tests.support.api import Person, Site, site_on
from tests.support.fleet import actions, private_key
from tests.support.sshd import Sshd

WEB1 = {"name": "web1", "host": "10.0.0.1", "username": "deploy", "auth": {"type": "agent"}}


@pytest.fixture
async def site(db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(db, tmp_path) as running:
        yield running


@pytest.fixture
async def sqlite_site(sqlite_db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(sqlite_db, tmp_path) as running:
        yield running


@pytest.fixture
async def admin(site: Site) -> Person:
    return await site.person(Role.ADMIN)


@pytest.fixture
async def sqlite_admin(sqlite_site: Site) -> Person:
    return await sqlite_site.person(Role.ADMIN)


def login_of(sshd: Sshd, name: str = "real") -> dict[str, Any]:
    auth = {"type": "key", "private_key": sshd.private_key}
    return {"name": name, "host": sshd.host, "port": sshd.port, "username": sshd.username, "auth": auth}


def fields(problem: dict[str, Any]) -> set[str]:
    assert problem["code"] == "invalid"
    return {error["field"] for error in problem["errors"]}


async def test_a_server_has_the_shape_that_scripts_rely_on(site: Site, admin: Person) -> None:
    made = await admin.ask("POST", "/api/servers", WEB1 | {"labels": {"env": "live"}}, status=201)
    (item,) = (await admin.get("/api/servers"))["items"]
    assert (
        item.items()
        >= {
            "id": made["id"],
            "name": "web1",
            "host": "10.0.0.1",
            "port": 22,
            "username": "deploy",
            "status": "unknown",
            "status_reason": "host_key_unknown",
            "labels": {"env": "live"},
            "groups": [],
            "capability": "observe",
            "latest": None,
            "enabled": True,
            "auth": "agent",
            "jump_server_id": None,
            "probe": None,
        }.items()
    )
    assert item["reason"]["code"] == "host_key_unknown"
    assert "web1" in item["reason"]["sentence"]
    one = await admin.get(f"/api/servers/{made['id']}")
    assert {key: one[key] for key in item if key != "reason"} == {key: item[key] for key in item if key != "reason"}
    assert one["facts"] is None


async def test_the_newest_values_are_in_the_list(site: Site, admin: Person) -> None:
    made = await admin.ask("POST", "/api/servers", WEB1, status=201)
    at = time.time()
    site.history.append([Sample(made["id"], at, {"cpu_percent": 12.5, "probe_cpu_percent": 0.03, "swap_percent": 1.0})])
    (item,) = (await admin.get("/api/servers"))["items"]
    assert set(item["latest"]) == {
        "at",
        "cpu_percent",
        "memory_percent",
        "load1",
        "disk_percent",
        "net_rx_bytes_per_second",
        "net_tx_bytes_per_second",
        "uptime_seconds",
    }
    assert (item["latest"]["cpu_percent"], item["latest"]["load1"]) == (12.5, None)
    assert item["probe"] == {"cpu_percent_of_core": 0.03}


async def test_pages_hold_every_server_once(site: Site, admin: Person) -> None:
    for number in range(7):
        await admin.ask("POST", "/api/servers", WEB1 | {"name": f"Web {number}"}, status=201)
    names: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        found = await admin.get("/api/servers", **query)
        names += [item["name"] for item in found["items"]]
        assert len(found["items"]) <= 3
        cursor = found["next"]
        if cursor is None:
            break
    assert names == [f"Web {number}" for number in range(7)]
    for bad in ({"limit": 0}, {"limit": 1_001}, {"cursor": "nonsense!"}, {"cursor": "YQ"}):
        await admin.ask("GET", "/api/servers", status=422, **bad)


async def test_mistakes_are_all_named(sqlite_admin: Person) -> None:
    bad = {"name": "\u202ex", "host": "a b", "port": 0, "username": "", "labels": {"": ""}, "groups": ["x"]}
    assert fields(await sqlite_admin.ask("POST", "/api/servers", bad, status=422)) == {
        "name",
        "host",
        "port",
        "username",
        "labels",
        "groups",
    }
    for wrong in (
        WEB1 | {"is_admin": True},
        WEB1 | {"port": "x"},
        WEB1 | {"auth": {"type": "magic"}},
        [],
        "web1",
        None,
    ):
        await sqlite_admin.ask("POST", "/api/servers", wrong, status=422)
    assert (await sqlite_admin.ask("POST", "/api/servers", WEB1, status=201))["name"] == "web1"
    assert (await sqlite_admin.ask("POST", "/api/servers", WEB1, status=409))["code"] == "conflict"


async def test_a_name_of_ten_kilobytes_is_one_clear_mistake(sqlite_admin: Person) -> None:
    problem = await sqlite_admin.ask("POST", "/api/servers", WEB1 | {"name": "x" * 10_240}, status=422)
    assert problem["errors"] == [{"field": "name", "message": "At most 128 characters; this has 10240."}]


async def test_an_edit_changes_what_is_given_and_null_takes_the_jump_away(sqlite_admin: Person) -> None:
    gate = await sqlite_admin.ask("POST", "/api/servers", WEB1 | {"name": "gate"}, status=201)
    made = await sqlite_admin.ask("POST", "/api/servers", WEB1 | {"jump_server_id": gate["id"]}, status=201)
    path = f"/api/servers/{made['id']}"
    assert made["jump_name"] == "gate"
    changed = await sqlite_admin.ask("PATCH", path, {"port": 2222, "labels": {"a": "b"}})
    assert (changed["port"], changed["labels"], changed["jump_server_id"]) == (2222, {"a": "b"}, gate["id"])
    assert (await sqlite_admin.ask("PATCH", path, {"jump_server_id": None}))["jump_server_id"] is None
    off = await sqlite_admin.ask("PATCH", path, {"enabled": False})
    assert (off["enabled"], off["reason"]["code"]) == (False, "disabled")
    assert fields(await sqlite_admin.ask("PATCH", path, {"id": "x", "status": "online"}, status=422)) == {
        "id",
        "status",
    }
    await sqlite_admin.ask("DELETE", path, status=204)
    await sqlite_admin.ask("GET", path, status=404)
    await sqlite_admin.ask("PATCH", path, {"port": 1}, status=404)


async def two_teams(admin: Person) -> tuple[dict[str, str], dict[str, str]]:
    """The ids of the groups red and blue, and of the one server in each."""
    group_ids, server_ids = {}, {}
    for name in ("red", "blue"):
        group_ids[name] = (await admin.ask("POST", "/api/groups", {"name": name}, status=201))["id"]
        body = WEB1 | {"name": f"{name}-1", "groups": [group_ids[name]]}
        server_ids[name] = (await admin.ask("POST", "/api/servers", body, status=201))["id"]
    return group_ids, server_ids


async def test_two_teams_meet_nothing_of_each_other(site: Site, admin: Person) -> None:
    """Every route about one server, one group or many: a foreign id is one that does not exist."""
    group, ids = await two_teams(admin)
    red = await site.person(None, {group["red"]: Role.ADMIN})

    assert [item["name"] for item in (await red.get("/api/servers"))["items"]] == ["red-1"]
    assert [server["name"] for server in (await red.get("/api/servers/export"))["servers"]] == ["red-1"]
    assert [item["name"] for item in (await red.get("/api/groups"))["items"]] == ["red"]
    assert (await red.get("/api/stats/overview"))["servers"]["total"] == 1
    foreign = f"/api/servers/{ids['blue']}"
    fingerprint = {"fingerprint": "SHA256:x"}
    for method, path, body in (
        ("GET", foreign, None),
        ("PATCH", foreign, {"port": 99}),
        ("DELETE", foreign, None),
        ("POST", f"{foreign}/test", None),
        ("GET", f"{foreign}/host-key", None),
        ("POST", f"{foreign}/host-key", fingerprint),
        ("GET", f"{foreign}/metrics?metric=load1", None),
        ("GET", f"{foreign}/series", None),
        ("GET", f"/api/groups/{group['blue']}", None),
        ("GET", f"/api/groups/{group['blue']}/members", None),
        ("PUT", f"/api/groups/{group['blue']}/members", {"servers": []}),
        ("GET", f"/api/groups/{group['blue']}/grants", None),
        ("PUT", f"/api/groups/{group['blue']}/grants", {"grants": []}),
        ("PATCH", f"/api/groups/{group['blue']}", {"name": "x"}),
        ("DELETE", f"/api/groups/{group['blue']}", None),
    ):
        problem = await red.ask(method, path, body, status=404)
        assert "blue" not in json.dumps(problem).replace(group["blue"], "").replace(ids["blue"], ""), path
    trusted = await red.ask(
        "POST", "/api/servers/host-keys/trust", {"items": [{"server_id": ids["blue"], **fingerprint}]}
    )
    assert [one["code"] for one in trusted["failed"]] == ["not_found"]
    body = WEB1 | {"name": "x", "jump_server_id": ids["blue"], "groups": [group["red"]]}
    assert "blue-1" not in (await red.send("POST", "/api/servers", body)).text


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.AUDITOR])
async def test_those_who_only_look_change_nothing(sqlite_site: Site, sqlite_admin: Person, role: Role) -> None:
    made = await sqlite_admin.ask("POST", "/api/servers", WEB1, status=201)
    group = await sqlite_admin.ask("POST", "/api/groups", {"name": "web"}, status=201)
    person = await sqlite_site.person(role)
    before = await actions(sqlite_site.db)
    for method, path, body in (
        ("POST", "/api/servers", WEB1 | {"name": "x"}),
        ("POST", "/api/servers/test", WEB1 | {"name": "x"}),
        ("POST", "/api/servers/import", {"text": "Host a\n", "dry_run": False}),
        ("POST", "/api/servers/import", {"text": "Host a\n", "dry_run": True}),
        ("PATCH", f"/api/servers/{made['id']}", {"port": 99}),
        ("DELETE", f"/api/servers/{made['id']}", None),
        ("POST", f"/api/servers/{made['id']}/test", None),
        ("POST", f"/api/servers/{made['id']}/host-key", {"fingerprint": "SHA256:x"}),
        ("POST", "/api/groups", {"name": "x"}),
        ("PATCH", f"/api/groups/{group['id']}", {"name": "x"}),
        ("PUT", f"/api/groups/{group['id']}/members", {"servers": []}),
        ("PUT", f"/api/groups/{group['id']}/grants", {"grants": []}),
        ("DELETE", f"/api/groups/{group['id']}", None),
        ("POST", "/api/ssh-keys", {"name": "x", "private_key": private_key()}),
        ("DELETE", "/api/ssh-keys/x", None),
    ):
        await person.ask(method, path, body, status=403)
    assert await actions(sqlite_site.db) == before
    one = await person.get(f"/api/servers/{made['id']}")
    assert ("credential_id" in one) == (role is Role.OPERATOR)
    await person.ask("GET", "/api/ssh-keys", status=200 if role is Role.OPERATOR else 403)


async def test_secrets_go_in_and_never_come_out(sqlite_site: Site, sqlite_admin: Person) -> None:
    key = private_key()
    canaries = (key.splitlines()[1], "correct horse battery")
    body = WEB1 | {"auth": {"type": "password", "password": canaries[1]}}
    made = await sqlite_admin.ask("POST", "/api/servers", body, status=201)
    stored = await sqlite_admin.ask("POST", "/api/ssh-keys", {"name": "deploy", "private_key": key}, status=201)
    assert stored["public_key"].startswith("ssh-ed25519 ")
    with_key = WEB1 | {"name": "web2", "auth": {"type": "key", "key_id": stored["id"]}}
    await sqlite_admin.ask("POST", "/api/servers", with_key, status=201)
    bad = await sqlite_admin.send("POST", "/api/servers", body | {"auth": {"type": "agent", "password": canaries[1]}})
    paths = ("/api/servers", f"/api/servers/{made['id']}", "/api/servers/export", "/api/ssh-keys")
    answers = [bad.text, *[json.dumps(await sqlite_admin.get(path)) for path in paths]]
    assert not any(canary in answer for canary in canaries for answer in answers)
    await sqlite_admin.ask("DELETE", f"/api/ssh-keys/{stored['id']}", status=409)


async def test_the_overview_counts_states_and_what_waits_for_a_person(sqlite_site: Site, sqlite_admin: Person) -> None:
    ids = [
        (await sqlite_admin.ask("POST", "/api/servers", WEB1 | {"name": f"w{n}"}, status=201))["id"] for n in range(3)
    ]
    await sqlite_admin.ask("PATCH", f"/api/servers/{ids[0]}", {"enabled": False})
    counted = (await sqlite_admin.get("/api/stats/overview"))["servers"]
    assert counted == {
        "total": 3,
        "online": 0,
        "offline": 0,
        "degraded": 0,
        "unknown": 3,
        "host_key_changed": 0,
        "auth_failed": 0,
        "host_key_unknown": 2,
        "disabled": 1,
    }


async def test_the_metrics_count_watched_servers_by_status(sqlite_site: Site, sqlite_admin: Person) -> None:
    made = [await sqlite_admin.ask("POST", "/api/servers", WEB1 | {"name": name}, status=201) for name in "abc"]
    await sqlite_admin.ask("PATCH", f"/api/servers/{made[0]['id']}", {"enabled": False})
    async with sqlite_site.db.transaction() as conn:
        await servers.set_status(conn, made[1]["id"], "online", None, None, datetime.now(UTC))

    text = (await sqlite_admin.send("GET", "/api/metrics")).text

    found = dict(re.findall(r'^server_monitor_servers\{status="(\w+)"\} (\S+)$', text, re.MULTILINE))
    assert {status: int(float(count)) for status, count in found.items()} == {
        "unknown": 1,
        "online": 1,
        "degraded": 0,
        "offline": 0,
        "host_key_changed": 0,
        "auth_failed": 0,
    }


async def test_an_import_is_previewed_then_made_and_again_adds_nothing(site: Site, admin: Person) -> None:
    text = "Host app\n HostName 10.0.0.5\n ProxyJump gate\nHost gate\n User ops\nHost *\n User me\n"
    seen = await admin.ask("POST", "/api/servers/import", {"text": text, "format": "auto", "dry_run": True})
    assert (seen["format"], seen["created"]) == ("ssh_config", 0)
    assert [(row["name"], row["jump"], row["username"], row["id"]) for row in seen["servers"]] == [
        ("gate", None, "ops", None),
        ("app", "gate", "me", None),
    ]
    assert (await admin.get("/api/servers"))["items"] == []
    made = await admin.ask("POST", "/api/servers/import", {"text": text})
    found = {item["name"]: item for item in (await admin.get("/api/servers"))["items"]}
    assert made["created"] == 2
    assert {row["name"]: row["id"] for row in made["servers"]} == {name: item["id"] for name, item in found.items()}
    assert found["app"]["jump_server_id"] == found["gate"]["id"]
    again = await admin.ask("POST", "/api/servers/import", {"text": text})
    assert (again["created"], [one["name"] for one in again["skipped"]]) == (0, ["app", "gate"])


async def test_ten_thousand_lines_with_mistakes_are_answered_with_all_of_them(
    sqlite_site: Site, sqlite_admin: Person
) -> None:
    rows = ["name,host,port"] + [
        f"w{n},{'bad host' if n % 2 else '10.0.0.1'},{22 if n % 2 else 'x'}" for n in range(9_999)
    ]
    problem = await sqlite_admin.ask("POST", "/api/servers/import", {"text": "\n".join(rows)}, status=422)
    assert [error["line"] for error in problem["errors"]] == list(range(2, 10_001))
    assert problem["detail"].endswith("; and 9,994 more")
    assert len(problem["detail"]) < 2_000
    assert (await sqlite_admin.get("/api/servers"))["items"] == []


async def test_a_text_over_the_limit_is_refused(sqlite_admin: Person) -> None:
    problem = await sqlite_admin.ask("POST", "/api/servers/import", {"text": "x" * (8 * 1024 * 1024)}, status=413)
    assert problem["code"] == "body_too_large"


async def test_an_export_is_imported_elsewhere_as_it_was(sqlite_admin: Person) -> None:
    await sqlite_admin.ask("POST", "/api/servers", WEB1 | {"labels": {"env": "live"}}, status=201)
    exported = await sqlite_admin.get("/api/servers/export")
    again = await sqlite_admin.ask("POST", "/api/servers/import", {"text": json.dumps(exported)})
    assert (again["format"], again["created"], len(again["skipped"])) == ("json", 0, 1)


@pytest.mark.sshd
async def test_a_real_host_is_tried_approved_and_let_in(sqlite_site: Site, sqlite_admin: Person, sshd: Sshd) -> None:
    """Nothing of the account reaches the host before its key is approved."""
    tried = await sqlite_admin.ask("POST", "/api/servers/test", login_of(sshd))
    assert (tried["reachable"], tried["logged_in"], tried["reason"]) == (True, False, None)
    assert sshd.fingerprint() in [key["fingerprint"] for key in tried["offered"]]

    made = await sqlite_admin.ask("POST", "/api/servers", login_of(sshd), status=201)
    path = f"/api/servers/{made['id']}"
    first = await sqlite_admin.ask("POST", f"{path}/test")
    assert (first["reachable"], first["logged_in"], first["reason"]) == (True, False, "host_key_unknown")
    assert (await sqlite_admin.get(f"{path}/host-key"))["pinned"] == []
    assert "Accepted publickey" not in sshd.log

    await sqlite_admin.ask("POST", f"{path}/host-key", {"fingerprint": "SHA256:another"}, status=409)
    keys = await sqlite_admin.ask("POST", f"{path}/host-key", {"fingerprint": sshd.fingerprint()})
    assert keys == {"pinned": [{"type": "ssh-ed25519", "fingerprint": sshd.fingerprint()}], "offered": []}
    second = await sqlite_admin.ask("POST", f"{path}/test")
    assert (second["reachable"], second["logged_in"], second["reason"]) == (True, True, None)
    assert second["latency_ms"] > 0
    assert await actions(sqlite_site.db) == [
        *("token.create", "ssh_key.create", "server.create", "host_key.trust"),
    ]


@pytest.mark.sshd
async def test_a_key_may_be_approved_before_anybody_has_seen_it(sqlite_admin: Person, sshd: Sshd) -> None:
    """A script that knows the fingerprint needs no second call: the host is asked then."""
    made = await sqlite_admin.ask("POST", "/api/servers", login_of(sshd), status=201)
    body = {"fingerprint": sshd.fingerprint()}
    keys = await sqlite_admin.ask("POST", f"/api/servers/{made['id']}/host-key", body)
    assert [key["fingerprint"] for key in keys["pinned"]] == [sshd.fingerprint()]


@pytest.mark.sshd
async def test_a_changed_key_is_told_and_never_accepted_by_trying(
    sqlite_site: Site, sqlite_admin: Person, sshd: Sshd
) -> None:
    made = await sqlite_admin.ask("POST", "/api/servers", login_of(sshd), status=201)
    path = f"/api/servers/{made['id']}"
    old = sshd.fingerprint()
    await sqlite_admin.ask("POST", f"{path}/host-key", {"fingerprint": old})
    sshd.swap_host_key()
    tried = await sqlite_admin.ask("POST", f"{path}/test")
    assert (tried["logged_in"], tried["reason"]) == (False, "host_key_changed")
    assert "do not approve" in tried["remedy"]
    keys = await sqlite_admin.get(f"{path}/host-key")
    assert [key["fingerprint"] for key in keys["pinned"]] == [old]
    assert [key["fingerprint"] for key in keys["offered"]] == [sshd.fingerprint()]


@pytest.mark.sshd
async def test_what_a_host_shows_now_decides_and_not_what_it_showed_once(
    sqlite_site: Site, sqlite_admin: Person, sshd: Sshd
) -> None:
    made = await sqlite_admin.ask("POST", "/api/servers", login_of(sshd), status=201)
    path = f"/api/servers/{made['id']}"
    first = sshd.fingerprint()
    await sqlite_admin.ask("POST", f"{path}/test")
    sshd.swap_host_key()

    await sqlite_admin.ask("POST", f"{path}/host-key", {"fingerprint": first}, status=409)
    for _ in range(2):
        keys = await sqlite_admin.ask("POST", f"{path}/host-key", {"fingerprint": sshd.fingerprint()})
        assert [key["fingerprint"] for key in keys["pinned"]] == [sshd.fingerprint()]
        assert keys["offered"] == []

    sshd.set_host_keys(["ed25519", "rsa"])
    await sqlite_admin.ask("POST", f"{path}/host-key", {"fingerprint": sshd.fingerprint()})
    second = sshd.fingerprint()
    sshd.set_host_keys(["rsa"])
    await sqlite_admin.ask("POST", f"{path}/host-key", {"fingerprint": second}, status=409)


@pytest.mark.sshd
async def test_a_host_that_cannot_be_asked_is_trusted_with_what_it_showed_last(
    sqlite_admin: Person, sshd: Sshd
) -> None:
    made = await sqlite_admin.ask("POST", "/api/servers", login_of(sshd), status=201)
    path = f"/api/servers/{made['id']}"
    await sqlite_admin.ask("POST", f"{path}/test")
    sshd.stop()

    keys = await sqlite_admin.ask("POST", f"{path}/host-key", {"fingerprint": sshd.fingerprint()})
    assert [key["fingerprint"] for key in keys["pinned"]] == [sshd.fingerprint()]


@pytest.mark.sshd
@pytest.mark.parametrize("reason", ["auth_failed", "connect_timeout", "host_key_changed", "no_awk"])
async def test_a_test_that_gets_in_ends_what_kept_the_console_out(
    sqlite_site: Site, sqlite_admin: Person, sshd: Sshd, reason: str
) -> None:
    made = await sqlite_admin.ask("POST", "/api/servers", login_of(sshd), status=201)
    path = f"/api/servers/{made['id']}"
    await sqlite_admin.ask("POST", f"{path}/host-key", {"fingerprint": sshd.fingerprint()})
    async with sqlite_site.db.transaction() as conn:
        await servers.set_status(conn, made["id"], "offline", reason, "as it was", datetime.now(UTC))

    await sqlite_admin.ask("POST", f"{path}/test")

    after = await sqlite_admin.get(path)
    assert (after["status"], after["status_reason"], after["status_detail"]) == ("unknown", None, None)
    assert after["updated_at"] > made["updated_at"], "which makes the collector begin anew"
    assert (await actions(sqlite_site.db))[-1] == "server.update"


async def test_a_host_that_is_not_there_is_explained(sqlite_admin: Person) -> None:
    nowhere = WEB1 | {"host": "127.0.0.1", "port": 1}
    tried = await sqlite_admin.ask("POST", "/api/servers/test", nowhere)
    assert (tried["reachable"], tried["reason"], tried["offered"]) == (False, "connect_refused", [])
    assert "127.0.0.1:1" in tried["sentence"]
    made = await sqlite_admin.ask("POST", "/api/servers", nowhere, status=201)
    tried = await sqlite_admin.ask("POST", f"/api/servers/{made['id']}/test")
    assert (tried["reachable"], tried["reason"]) == (False, "connect_refused")
    problem = await sqlite_admin.ask(
        "POST", f"/api/servers/{made['id']}/host-key", {"fingerprint": "SHA256:x"}, status=502
    )
    assert problem["code"] == "unreachable"


async def test_the_own_machine_needs_no_host_key(sqlite_site: Site, sqlite_admin: Person) -> None:
    async with sqlite_site.db.transaction() as conn:
        local = await servers.ensure_local(conn)
    tried = await sqlite_admin.ask("POST", f"/api/servers/{local}/test")
    assert (tried["reason"], tried["offered"]) == (None, [])
    body = {"fingerprint": "SHA256:x"}
    await sqlite_admin.ask("POST", f"/api/servers/{local}/host-key", body, status=409)
    await sqlite_admin.ask("DELETE", f"/api/servers/{local}", status=409)
