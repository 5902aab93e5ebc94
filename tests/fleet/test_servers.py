"""Servers as rows: who sees them, what the collectors get, what the collectors say."""

from datetime import UTC, datetime, timedelta

import pytest

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from server_monitor.errors import NotFound
from server_monitor.fleet import servers
from server_monitor.ssh import hostkeys
from tests.support.fleet import ADMIN, NOBODY, VIEWER, actions, add, add_group, host_key, member

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


async def test_a_new_server_waits_for_its_host_key(db: Database) -> None:
    made = await add(db, "web1", port=2222, labels={"env": "live"})
    async with db.reading() as conn:
        found = await servers.get(conn, made.id, actor=VIEWER)
    assert found == made
    assert (found.status, found.status_reason, found.enabled, found.capability) == (
        "unknown",
        "host_key_unknown",
        True,
        "observe",
    )
    assert (found.host, found.port, found.labels, found.groups) == ("web1.example.com", 2222, {"env": "live"}, ())


async def test_two_teams_see_their_own_servers_and_nothing_of_the_other(db: Database) -> None:
    red, blue, shared, alone = [await add(db, name) for name in ("red", "blue", "shared", "alone")]
    reds = await add_group(db, "reds", [red, shared])
    blues = await add_group(db, "blues", [blue, shared])
    everybody = {server.id for server in (red, blue, shared, alone)}
    async with db.reading() as conn:
        for group, own in ((reds, {red.id, shared.id}), (blues, {blue.id, shared.id})):
            actor = member(group, Role.VIEWER)
            assert {server.id for server in await servers.listing(conn, actor=actor)} == own
            assert await servers.visible_ids(conn, actor=actor) == own
            assert await servers.which_visible(conn, everybody, actor=actor) == own
            assert sum((await servers.counts(conn, actor=actor)).values()) == len(own)
            for server_id in everybody - own:
                with pytest.raises(NotFound):
                    await servers.get(conn, server_id, actor=actor)
        for foreign in ("blue", blue.id, "alone"):
            with pytest.raises(NotFound):
                await servers.find(conn, foreign, actor=member(reds, Role.ADMIN))
        assert await servers.listing(conn, actor=NOBODY) == []
        assert await servers.visible_ids(conn, actor=VIEWER) is None
        assert len(await servers.listing(conn, actor=VIEWER)) == 4


async def test_a_server_names_its_groups_its_jump_and_its_key(db: Database) -> None:
    gate = await add(db, "gate")
    web = await add(db, "web", jump_server_id=gate.id)
    await add_group(db, "zoo", [web])
    await add_group(db, 'it\'s "a" group, really', [web])
    async with db.reading() as conn:
        (_, found) = await servers.listing(conn, actor=ADMIN)
    assert [group.name for group in found.groups] == ['it\'s "a" group, really', "zoo"]
    assert (found.jump_name, found.about(with_key=False).jump_name) == ("gate", "gate")


async def test_what_cannot_be_an_id_is_nobodys(db: Database) -> None:
    made = await add(db, "web1")
    async with db.reading() as conn:
        assert await servers.which_visible(conn, [made.id, "a\0b", "\ud800"], actor=ADMIN) == {made.id}
        with pytest.raises(NotFound):
            await servers.get(conn, "a\0b", actor=ADMIN)


async def test_servers_are_listed_by_name_whatever_the_case(db: Database) -> None:
    for name in ("beta", "Alpha", "ärger", "gamma"):
        await add(db, name, host="10.0.0.1")
    async with db.reading() as conn:
        assert [one.name for one in await servers.listing(conn, actor=ADMIN)] == ["Alpha", "beta", "gamma", "ärger"]


async def test_a_server_is_found_by_name_and_by_id(db: Database) -> None:
    made = await add(db, "web1")
    async with db.reading() as conn:
        assert (await servers.find(conn, "web1", actor=ADMIN)).id == made.id
        assert (await servers.find(conn, made.id, actor=ADMIN)).id == made.id
        with pytest.raises(NotFound):
            await servers.find(conn, "web2", actor=ADMIN)


async def test_the_consoles_own_machine_is_there_from_the_first_start(db: Database) -> None:
    async with db.transaction() as conn:
        first = await servers.ensure_local(conn)
    async with db.transaction() as conn:
        assert await servers.ensure_local(conn) == first
    async with db.reading() as conn:
        found = await servers.get(conn, first, actor=VIEWER)
        (watch,) = await servers.targets(conn)
    assert (found.host, found.auth, found.capability, found.is_local) == ("local", "local", "observe", True)
    assert (found.status, found.status_reason) == ("unknown", None)
    assert (watch.target, watch.enabled) == (None, True)
    assert await actions(db) == ["server.create"]


async def test_a_name_that_is_taken_does_not_keep_the_own_machine_out(db: Database) -> None:
    name = servers.local_name(servers.socket.gethostname())
    await add(db, name, host="10.0.0.1")
    async with db.transaction() as conn:
        local = await servers.ensure_local(conn)
    async with db.reading() as conn:
        assert (await servers.get(conn, local, actor=ADMIN)).name == f"{name} (2)"


@pytest.mark.parametrize(("hostname", "name"), [("web1", "web1"), ("", "this machine"), ("a\nb", "this machine")])
def test_the_own_machine_is_called_what_it_calls_itself(hostname: str, name: str) -> None:
    assert servers.local_name(hostname) == name


async def test_the_collectors_get_every_server_with_the_way_to_it(db: Database) -> None:
    gate = await add(db, "gate")
    inner = await add(db, "inner", jump_server_id=gate.id)
    web = await add(db, "web", jump_server_id=inner.id, port=2222)
    async with db.transaction() as conn:
        await hostkeys.record_offer(conn, gate.id, host_key())
        await hostkeys.trust(conn, gate.id, host_key().fingerprint, pinned_by="ada")
        await hostkeys.record_offer(conn, web.id, host_key())
    async with db.reading() as conn:
        watches = {watch.server_id: watch for watch in await servers.targets(conn)}
        alone = await servers.target_of(conn, web.id)
    target = watches[web.id].target
    assert target is not None
    assert target == alone
    assert (target.host, target.port, target.username, target.auth) == ("web.example.com", 2222, "monitor", "agent")
    assert target.jump is not None
    assert target.jump.jump is not None
    assert target.jump.jump.server_id == gate.id
    assert {watch.name: watch.pinned for watch in watches.values()} == {"gate": True, "inner": False, "web": False}


async def test_a_status_is_news_once(db: Database) -> None:
    made = await add(db, "web1")

    async def say(status: str, reason: str | None, detail: str | None, at: datetime) -> bool:
        async with db.transaction() as conn:
            return await servers.set_status(conn, made.id, status, reason, detail, at)

    assert await say("offline", "connect_timeout", "it took 10 s", NOW)
    assert not await say("offline", "connect_timeout", "it took 10 s", NOW + timedelta(seconds=9))
    assert await say("online", None, None, NOW + timedelta(seconds=60))
    async with db.reading() as conn:
        found = await servers.get(conn, made.id, actor=ADMIN)
    assert (found.status, found.status_reason, found.status_detail) == ("online", None, None)
    assert found.status_at == NOW + timedelta(seconds=60)
    assert await actions(db) == ["server.create"], "what a machine says about another is no decision"


async def test_what_a_hostile_host_says_is_kept_short_and_without_controls(db: Database) -> None:
    made = await add(db, "web1")
    async with db.transaction() as conn:
        await servers.set_status(conn, made.id, "offline", "not_ssh", "\x1b]0;owned\x07\u202e" + "x" * 5_000, NOW)
    async with db.reading() as conn:
        detail = (await servers.get(conn, made.id, actor=ADMIN)).status_detail
    assert detail is not None
    assert len(detail) <= servers.DETAIL_MAX + 1
    assert not any(letter in detail for letter in "\x1b\x07\u202e")


async def test_facts_are_kept_and_replaced(db: Database) -> None:
    made = await add(db, "web1")
    for kernel in ("6.1", "6.2"):
        async with db.transaction() as conn:
            await servers.set_facts(conn, made.id, {"kernel": kernel})
    async with db.transaction() as conn:
        await servers.set_facts(conn, made.id, {"kernel": "x" * 20_000})
        await servers.set_facts(conn, "00000000-0000-7000-8000-00000000dead", {"kernel": "6.2"})
    async with db.reading() as conn:
        assert await servers.found_facts(conn, made.id) == {"kernel": "6.2"}


async def test_counts_are_by_status_and_reason(db: Database) -> None:
    first, _ = await add(db, "a"), await add(db, "b")
    async with db.transaction() as conn:
        await servers.set_status(conn, first.id, "online", None, None, NOW)
    async with db.reading() as conn:
        assert await servers.counts(conn, actor=VIEWER) == {("online", None): 1, ("unknown", "host_key_unknown"): 1}
