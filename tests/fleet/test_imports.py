"""Whole inventories: all of it or nothing."""

import json
from collections.abc import Mapping

import pytest

from server_monitor.auth.actor import Actor, Role
from server_monitor.db.engine import Database
from server_monitor.errors import Denied, Invalid
from server_monitor.fleet import imports, servers
from server_monitor.fleet.changes import Login
from server_monitor.fleet.imports import KeyFile, Source
from server_monitor.fleet.inventory.formats import Format, read
from server_monitor.fleet.inventory.plan import Plan
from server_monitor.fleet.servers import Server
from tests.support.fleet import ADMIN, VAULT, VIEWER, actions, add, add_group, member, private_key, records

SSH_CONFIG = """\
Host app
    HostName 10.0.0.1
    ProxyJump gate
Host gate
    HostName gate.example.com
    User ops
    IdentityFile ~/.ssh/gate
"""


async def carry_out(
    db: Database,
    text: str,
    format_: Format,
    *,
    actor: Actor = ADMIN,
    keys: Mapping[str, KeyFile] | None = None,
) -> tuple[Plan, dict[str, str]]:
    parsed = read(text, format_)
    async with db.transaction() as conn:
        source = Source(format_, text)
        return await imports.carry_out(conn, parsed, "me", source=source, vault=VAULT, keys=keys, actor=actor)


async def everything(db: Database) -> dict[str, Server]:
    async with db.reading() as conn:
        return {server.name: server for server in await servers.listing(conn, actor=ADMIN)}


async def test_servers_are_added_with_their_ways_and_recorded_one_by_one(db: Database) -> None:
    plan, ids = await carry_out(db, SSH_CONFIG, Format.SSH_CONFIG)
    found = await everything(db)
    assert {name: server.id for name, server in found.items()} == ids
    assert [entry.name for entry in plan.create] == ["gate", "app"]
    assert found["app"].jump_name == "gate"
    assert (found["app"].username, found["gate"].username) == ("me", "ops")
    assert {server.status_reason for server in found.values()} == {"host_key_unknown"}
    assert await actions(db) == ["server.create", "server.create", "server.import"]
    record = (await records(db))[-1]
    assert record["meta"]["created"] == 2
    assert record["meta"]["format"] == "ssh_config"
    assert len(record["meta"]["sha256"]) == 64


async def test_the_same_text_again_adds_nothing_and_says_so(db: Database) -> None:
    await carry_out(db, SSH_CONFIG, Format.SSH_CONFIG)
    plan, ids = await carry_out(db, SSH_CONFIG, Format.SSH_CONFIG)
    assert ids == {}
    assert [one.name for one in plan.skipped] == ["app", "gate"]


async def test_one_mistake_and_nothing_is_added(db: Database) -> None:
    await add(db, "gate", host="10.9.9.9")
    before = await actions(db)
    with pytest.raises(Invalid) as refused:
        await carry_out(db, SSH_CONFIG, Format.SSH_CONFIG)
    assert [(mistake.line, mistake.field) for mistake in refused.value.errors] == [(4, "name")]
    assert list(await everything(db)) == ["gate"]
    assert await actions(db) == before


async def test_a_preview_changes_nothing(db: Database) -> None:
    async with db.reading() as conn:
        plan = await imports.preview(conn, read(SSH_CONFIG, Format.SSH_CONFIG), "me", actor=ADMIN)
    assert [imports.previewed(entry)["name"] for entry in plan.create] == ["gate", "app"]
    assert await everything(db) == {}


async def test_a_way_may_lead_through_a_server_that_is_here(db: Database) -> None:
    gate = await add(db, "gate")
    await carry_out(db, "name,username,jump\napp,root,gate\n", Format.CSV)
    assert (await everything(db))["app"].jump_server_id == gate.id


async def test_groups_are_used_when_they_exist_and_made_when_they_do_not(db: Database) -> None:
    old = await add_group(db, "web")
    await carry_out(db, "name,username,groups\na,root,web;new\nb,root,new\n", Format.CSV)
    found = await everything(db)
    assert [group.name for group in found["a"].groups] == ["new", "web"]
    assert old.id in found["a"].group_ids
    assert (await actions(db))[-4:] == ["group.create", "server.create", "server.create", "server.import"]
    created = (await records(db))[-3]
    assert set(created["target"]["group_ids"]) == set(found["a"].group_ids)


async def test_keys_that_the_text_names_are_stored_once_and_used(db: Database) -> None:
    text = private_key()
    files = {"~/.ssh/gate": KeyFile(text)}
    await carry_out(db, SSH_CONFIG, Format.SSH_CONFIG, keys=files)
    await carry_out(db, "Host other\n IdentityFile ~/.ssh/gate\n", Format.SSH_CONFIG, keys=files)
    found = await everything(db)
    assert (found["gate"].auth, found["app"].auth) == ("key", "agent")
    assert found["other"].credential_id == found["gate"].credential_id
    assert (await actions(db)).count("ssh_key.create") == 1
    assert text.splitlines()[1] not in json.dumps(await records(db))


async def test_an_export_comes_back_as_it_was_without_secrets(db: Database) -> None:
    gate = await add(db, "gate", login=Login("key", private_key=private_key()), labels={"env": "live"})
    await add(db, "web", jump_server_id=gate.id, login=Login("password", password="correct horse"), port=2222)
    await add_group(db, "team", [gate])
    before = await everything(db)
    text = json.dumps({"servers": [imports.exported(server) for server in before.values()]})
    assert "correct horse" not in text
    plan, _ = await carry_out(db, text, Format.JSON)
    assert [one.name for one in plan.skipped] == ["gate", "web"]

    renamed = text.replace('"web"', '"web-2"').replace('"gate"', '"gate-2"')
    await carry_out(db, renamed, Format.JSON)
    after = await everything(db)
    for name in ("gate", "web"):
        old, new = imports.exported(before[name]), imports.exported(after[f"{name}-2"])
        assert {**old, "name": None, "jump": None} == {**new, "name": None, "jump": None}
    assert after["gate-2"].credential_id == gate.credential_id, "the key was found again by its fingerprint"
    assert (after["web-2"].auth, after["web-2"].credential_id) == ("password", None), "a password has to be given anew"
    assert after["web-2"].jump_name == "gate-2"


async def test_an_import_is_for_those_who_may_add_servers_everywhere(db: Database) -> None:
    for actor in (VIEWER, member(await add_group(db, "own"), Role.ADMIN)):
        with pytest.raises(Denied):
            await carry_out(db, SSH_CONFIG, Format.SSH_CONFIG, actor=actor)


async def test_a_thousand_servers_are_added_at_once(db: Database) -> None:
    rows = "\n".join(f"h{n},10.{n // 65536}.{n // 256 % 256}.{n % 256},root,all" for n in range(1_000))
    _, ids = await carry_out(db, "name,host,username,groups\n" + rows, Format.CSV)
    assert len(ids) == 1_000
    async with db.reading() as conn:
        assert len(await servers.listing(conn, actor=ADMIN)) == 1_000
