"""What people change about servers."""

import json

import pytest
from sqlalchemy import select

from server_monitor.audit.chain import SECRET
from server_monitor.auth.actor import Actor, ActorKind, Role, Scope
from server_monitor.db.engine import Database
from server_monitor.db.tables import ssh_credentials
from server_monitor.errors import Conflict, Denied, Invalid, NotFound
from server_monitor.fleet import changes, groups, servers
from server_monitor.fleet.changes import Edit, Login
from server_monitor.fleet.servers import Server
from server_monitor.ssh import vault as secrets
from tests.support.fleet import (
    ADMIN,
    NOBODY,
    VAULT,
    VIEWER,
    actions,
    add,
    add_group,
    in_group,
    member,
    private_key,
    records,
)

PASSWORD = Login("password", password="correct horse")


async def edit(db: Database, server: Server, *, actor: Actor = ADMIN, **change: object) -> Server:
    async with db.transaction() as conn:
        return await changes.edit(conn, VAULT, server.id, Edit(**change), actor=actor)


async def remove(db: Database, server: Server, *, actor: Actor = ADMIN) -> None:
    async with db.transaction() as conn:
        await changes.remove(conn, server.id, actor=actor)


async def listed(db: Database) -> list[str]:
    async with db.reading() as conn:
        return [server.name for server in await servers.listing(conn, actor=ADMIN)]


async def credentials(db: Database) -> int:
    async with db.reading() as conn:
        return len((await conn.scalars(select(ssh_credentials.c.id))).all())


async def test_adding_is_recorded_with_what_was_added(db: Database) -> None:
    made = await add(db, "web1", labels={"env": "live"})
    (record,) = await records(db)
    assert (record["action"], record["target"]["id"], record["target"]["name"]) == ("server.create", made.id, "web1")
    assert record["actor"]["name"] == "ada"
    assert record["meta"]["host"] == "web1.example.com"
    assert record["meta"]["labels"] == {"env": "live"}


async def test_every_mistake_is_listed_and_nothing_is_kept(db: Database) -> None:
    with pytest.raises(Invalid) as refused:
        await add(
            db,
            "\u202eweb",
            host="not a host",
            port=0,
            username="-x",
            login=Login("key"),
            jump_server_id="nowhere",
            labels={"": "x"},
            capability="fly",
            groups=["no group"],
        )
    assert {mistake.field for mistake in refused.value.errors} == {
        *("name", "host", "port", "username", "labels", "capability"),
        *("auth.key_id", "jump_server_id", "groups"),
    }
    assert await listed(db) == []
    assert await actions(db) == []


async def test_a_name_is_taken_once(db: Database) -> None:
    await add(db, "Café", host="10.0.0.1")
    with pytest.raises(Conflict, match="already"):
        await add(db, "Cafe\u0301", host="10.0.0.1")


@pytest.mark.parametrize("name", ["it's", 'say "hi"', "'; drop table servers; --", "<b>", "שרת", "a" * 128, "%_\\"])
async def test_names_hold_whatever_can_be_seen(db: Database, name: str) -> None:
    made = await add(db, name, host="10.0.0.1")
    async with db.reading() as conn:
        assert (await servers.find(conn, name, actor=ADMIN)).id == made.id


@pytest.mark.parametrize("actor", [VIEWER, NOBODY, Actor(ActorKind.USER, "x", "olga", Role.OPERATOR)])
async def test_only_an_administrator_adds_changes_and_removes(db: Database, actor: Actor) -> None:
    made = await add(db, "web1")
    expected = NotFound if actor is NOBODY else Denied
    with pytest.raises(Denied):
        await add(db, "web2", actor=actor)
    with pytest.raises(expected):
        await edit(db, made, actor=actor, port=99)
    with pytest.raises(expected):
        await remove(db, made, actor=actor)


async def test_a_token_for_reading_changes_nothing(db: Database) -> None:
    reader = Actor(ActorKind.TOKEN, ADMIN.id, "ada", Role.ADMIN, scopes=frozenset({Scope.READ}), token_id="t")
    with pytest.raises(Denied):
        await add(db, "web1", actor=reader)


async def test_a_groups_administrator_adds_servers_to_that_group_and_to_no_other(db: Database) -> None:
    own, foreign = await add_group(db, "own"), await add_group(db, "foreign")
    actor = member(own, Role.ADMIN)
    made = await add(db, "web1", actor=actor, **in_group(own.id))
    assert made.group_ids == (own.id,)
    for wanted in ((), (foreign.id,), (own.id, foreign.id)):
        with pytest.raises(Denied):
            await add(db, "web2", actor=actor, login=PASSWORD, groups=wanted)
    assert (await edit(db, made, actor=actor, labels={"a": "b"})).labels == {"a": "b"}
    await remove(db, made, actor=actor)


async def test_the_consoles_agent_and_shared_keys_are_not_for_a_groups_administrator(db: Database) -> None:
    """Otherwise they could make the console log in to any host that one of its keys opens."""
    own = await add_group(db, "own")
    actor = member(own, Role.ADMIN)
    shared = (await add(db, "ours", login=Login("key", private_key=private_key()))).credential_id
    for login in (Login("agent"), Login("key", key_id=shared)):
        with pytest.raises(Denied, match="key:read"):
            await add(db, "web1", actor=actor, login=login, groups=[own.id])
    made = await add(db, "web1", actor=actor, login=Login("key", private_key=private_key()), groups=[own.id])
    with pytest.raises(Denied, match="key:read"):
        await edit(db, made, actor=actor, login=Login("key", key_id=shared))


async def test_a_jump_server_is_one_that_the_actor_administers(db: Database) -> None:
    own, foreign = await add_group(db, "own"), await add_group(db, "foreign")
    gate = await add(db, "gate")
    theirs = await add(db, "theirs")
    async with db.transaction() as conn:
        await groups.set_members(conn, own.id, [gate.id], actor=ADMIN)
        await groups.set_members(conn, foreign.id, [theirs.id], actor=ADMIN)
    actor = Actor(ActorKind.USER, "x", "gus", None, {own.id: Role.ADMIN, foreign.id: Role.VIEWER})
    made = await add(db, "web1", actor=actor, jump_server_id=gate.id, **in_group(own.id))
    assert made.jump_name == "gate"
    with pytest.raises(Invalid, match="server:write"):
        await add(db, "web2", actor=actor, jump_server_id=theirs.id, **in_group(own.id))


async def test_a_private_key_is_stored_sealed_and_never_told(db: Database) -> None:
    text = private_key()
    made = await add(db, "web1", login=Login("key", private_key=text))
    assert made.auth == "key"
    assert made.key_fingerprint is not None
    assert made.public_key is not None
    assert await actions(db) == ["ssh_key.create", "server.create"]
    body = text.splitlines()[1]
    assert body not in json.dumps(await records(db))
    assert body not in repr(Login("key", private_key=text))


async def test_a_key_that_cannot_be_read_is_a_mistake_of_its_field(db: Database) -> None:
    with pytest.raises(Invalid) as refused:
        await add(db, "web1", login=Login("key", private_key="no key"))
    assert [mistake.field for mistake in refused.value.errors] == ["auth.private_key"]
    assert await credentials(db) == 0


async def test_a_password_leaves_with_its_server_and_a_key_stays(db: Database) -> None:
    with_password = await add(db, "a", login=PASSWORD)
    with_key = await add(db, "b", login=Login("key", private_key=private_key()))
    await remove(db, with_password)
    await remove(db, with_key)
    assert await credentials(db) == 1
    assert "correct horse" not in json.dumps(await records(db))


async def test_another_login_replaces_the_password(db: Database) -> None:
    made = await add(db, "a", login=PASSWORD)
    changed = await edit(db, made, login=Login("password", password="new one"))
    assert changed.credential_id != made.credential_id
    assert await credentials(db) == 1
    async with db.reading() as conn:
        assert changed.credential_id is not None
        assert (await secrets.load(conn, VAULT, changed.credential_id)).password == "new one"
    assert (await edit(db, changed, login=Login("agent"))).credential_id is None
    assert await credentials(db) == 0
    change = (await records(db))[1]["change"]["paths"]
    assert {one["p"]: one["new"] for one in change}["auth"] == SECRET


async def test_a_stored_password_is_never_sent_to_a_new_address_or_through_other_hands(db: Database) -> None:
    made, gate = await add(db, "a", login=PASSWORD), await add(db, "gate")
    for moved in ({"host": "evil.example.com"}, {"port": 2222}, {"jump_server_id": gate.id}):
        with pytest.raises(Invalid, match="password again"):
            await edit(db, made, **moved)
    assert (await edit(db, made, host="10.0.0.9", login=PASSWORD)).host == "10.0.0.9"
    assert (await edit(db, made, username="other", name="b")).username == "other"


async def test_a_jump_server_for_stored_passwords_is_moved_by_nobody_but_who_keeps_keys(db: Database) -> None:
    """A group's administrator could lead them past a host of their own."""
    outer = await add(db, "outer")
    inner = await add(db, "inner", jump_server_id=outer.id)
    admin_of_group = member(await add_group(db, "web", [outer, inner]), Role.ADMIN)
    assert (await edit(db, outer, actor=admin_of_group, port=2022)).port == 2022
    await add(db, "behind", login=PASSWORD, jump_server_id=inner.id)
    for server in (outer, inner):
        with pytest.raises(Invalid, match="Stored passwords go through this server"):
            await edit(db, server, actor=admin_of_group, host="evil.example.com")
        assert (await edit(db, server, actor=admin_of_group, labels={"a": "b"})).labels == {"a": "b"}
        assert (await edit(db, server, host=f"new-{server.name}")).host == f"new-{server.name}"


async def test_an_edit_records_what_was_and_what_is(db: Database) -> None:
    made = await add(db, "web1", labels={"env": "test"})
    await edit(db, made, name="web2", port=2222, labels={"env": "live"})
    record = (await records(db))[-1]
    assert record["action"] == "server.update"
    assert {one["p"]: (one["old"], one["new"]) for one in record["change"]["paths"]} == {
        "name": ("web1", "web2"),
        "port": (22, 2222),
        "labels": ({"env": "test"}, {"env": "live"}),
    }


async def test_climbing_the_ladder_is_recorded(db: Database) -> None:
    made = await add(db, "web1")
    assert (await edit(db, made, capability="run")).capability == "run"
    (change,) = (await records(db))[-1]["change"]["paths"]
    assert change == {"p": "capability", "old": "observe", "new": "run"}


async def test_an_edit_that_changes_nothing_records_nothing(db: Database) -> None:
    made = await add(db, "web1")
    assert await edit(db, made, name=" web1 ", port=22) == made
    assert await actions(db) == ["server.create"]


async def test_an_edit_lists_every_mistake_and_keeps_what_was(db: Database) -> None:
    made = await add(db, "web1")
    with pytest.raises(Invalid) as refused:
        await edit(db, made, name="", port=70_000, jump_server_id="nowhere")
    assert {mistake.field for mistake in refused.value.errors} == {"name", "port", "jump_server_id"}
    async with db.reading() as conn:
        assert await servers.get(conn, made.id, actor=ADMIN) == made


async def test_a_renamed_server_cannot_take_a_name_that_is_used(db: Database) -> None:
    await add(db, "web1")
    with pytest.raises(Conflict):
        await edit(db, await add(db, "web2"), name="web1")


async def test_switched_off_and_on_it_says_so(db: Database) -> None:
    made = await add(db, "web1")
    off = await edit(db, made, enabled=False)
    assert (off.enabled, off.status, off.status_reason) == (False, "unknown", "disabled")
    async with db.transaction() as conn:
        assert not await servers.set_status(conn, made.id, "online", None, None, made.created_at)
    on = await edit(db, made, enabled=True)
    assert (on.enabled, on.status, on.status_reason) == (True, "unknown", None)
    assert on.updated_at > made.updated_at


async def test_a_way_cannot_lead_back(db: Database) -> None:
    first = await add(db, "first")
    second = await add(db, "second", jump_server_id=first.id)
    third = await add(db, "third", jump_server_id=second.id)
    for way in (first, second, third):
        with pytest.raises(Invalid, match="leads back"):
            await edit(db, first, jump_server_id=way.id)
    assert (await edit(db, third, jump_server_id=None)).jump_server_id is None


async def test_a_way_has_at_most_eight_servers(db: Database) -> None:
    last = await add(db, "s0")
    for number in range(1, 9):
        last = await add(db, f"s{number}", jump_server_id=last.id)
    with pytest.raises(Invalid, match="At most 8"):
        await add(db, "s9", jump_server_id=last.id)


async def test_a_jump_server_is_not_removed_while_others_need_it(db: Database) -> None:
    gate = await add(db, "gate")
    behind = await add(db, "behind", jump_server_id=gate.id)
    with pytest.raises(Conflict, match="jump server of behind"):
        await remove(db, gate)
    await remove(db, behind)
    await remove(db, gate)
    assert await listed(db) == []
    assert (await actions(db))[-2:] == ["server.delete", "server.delete"]


async def test_the_own_machine_stays_and_can_be_switched_off_renamed_and_labelled(db: Database) -> None:
    async with db.transaction() as conn:
        local_id = await servers.ensure_local(conn)
    async with db.reading() as conn:
        local = await servers.get(conn, local_id, actor=ADMIN)
    with pytest.raises(Conflict, match="Switch it off"):
        await remove(db, local)
    for change in ({"host": "10.0.0.1"}, {"username": "root"}, {"login": PASSWORD}, {"port": 99}):
        with pytest.raises(Invalid, match="without SSH"):
            await edit(db, local, **change)
    changed = await edit(db, local, name="console", enabled=False, labels={"a": "b"}, capability="run")
    assert (changed.name, changed.enabled, changed.labels, changed.host) == ("console", False, {"a": "b"}, "local")


async def test_nobody_else_can_be_local_or_go_through_it(db: Database) -> None:
    async with db.transaction() as conn:
        local = await servers.ensure_local(conn)
    with pytest.raises(Invalid, match="own machine"):
        await add(db, "web1", host="local")
    with pytest.raises(Invalid, match="needs no jump"):
        await add(db, "web1", jump_server_id=local)


async def test_a_foreign_server_does_not_exist_for_those_who_may_not_see_it(db: Database) -> None:
    theirs = await add(db, "theirs")
    actor = member(await add_group(db, "own"), Role.ADMIN)
    for attempt in (edit(db, theirs, actor=actor, port=99), remove(db, theirs, actor=actor)):
        with pytest.raises(NotFound):
            await attempt
