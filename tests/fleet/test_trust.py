"""What people decide about host keys, and the alarm."""

import asyncio

import pytest

from server_monitor.auth.actor import Actor, ActorKind, Role
from server_monitor.db.engine import Database
from server_monitor.errors import Conflict, Denied, NotFound
from server_monitor.fleet import servers, trust
from server_monitor.fleet.servers import Server
from server_monitor.ssh import hostkeys
from server_monitor.ssh.hostkeys import HostKey
from tests.support.fleet import ADMIN, NOBODY, VIEWER, actions, add, add_group, host_key, member, records


async def offer(db: Database, server: Server, key: HostKey) -> None:
    async with db.transaction() as conn:
        await hostkeys.record_offer(conn, server.id, key)


async def approve(db: Database, server: Server, key: HostKey, *, actor: Actor = ADMIN) -> None:
    async with db.transaction() as conn:
        await trust.trust_host_key(conn, server.id, key.fingerprint, actor=actor)


async def alarm(db: Database, server: Server, key: HostKey) -> bool:
    async with db.transaction() as conn:
        return await trust.record_host_key_changed(conn, server.id, key)


async def now(db: Database, server: Server) -> Server:
    async with db.reading() as conn:
        return await servers.get(conn, server.id, actor=ADMIN)


async def test_an_approved_key_is_pinned_recorded_and_ends_the_waiting(db: Database) -> None:
    made = await add(db, "web1")
    await offer(db, made, host_key())
    await approve(db, made, host_key())
    async with db.reading() as conn:
        known = await trust.host_keys(conn, made.id, actor=VIEWER)
    assert (known.pinned, known.offered) == ([host_key()], [])
    after = await now(db, made)
    assert (after.status, after.status_reason) == ("unknown", None)
    assert after.updated_at > made.updated_at
    record = (await records(db))[-1]
    assert record["action"] == "host_key.trust"
    assert record["meta"] == {"fingerprint": host_key().fingerprint, "replaced": []}


async def test_a_key_that_the_host_does_not_show_is_a_conflict(db: Database) -> None:
    made = await add(db, "web1")
    with pytest.raises(Conflict):
        await approve(db, made, host_key(1))
    await offer(db, made, host_key(2))
    with pytest.raises(Conflict, match="now offers"):
        await approve(db, made, host_key(1))
    assert await actions(db) == ["server.create"]


async def test_approving_takes_the_right_to_and_a_server_that_may_be_seen(db: Database) -> None:
    made = await add(db, "web1")
    group = await add_group(db, "web", [made])
    await offer(db, made, host_key())
    for actor in (VIEWER, member(group, Role.OPERATOR), Actor(ActorKind.USER, "o", "olga", Role.OPERATOR)):
        with pytest.raises(Denied):
            await approve(db, made, host_key(), actor=actor)
    with pytest.raises(NotFound):
        await approve(db, made, host_key(), actor=NOBODY)
    await approve(db, made, host_key(), actor=member(group, Role.ADMIN))


async def test_many_are_approved_at_once_whatever_becomes_of_the_others(db: Database) -> None:
    first, second, third = [await add(db, name) for name in ("first", "second", "third")]
    for server in (first, second, third):
        await offer(db, server, host_key())
    wanted = [
        (first.id, host_key().fingerprint),
        (second.id, "SHA256:another"),
        ("nowhere", host_key().fingerprint),
        (third.id, host_key().fingerprint),
    ]
    async with db.transaction() as conn:
        trusted, failed = await trust.trust_many(conn, wanted, actor=ADMIN)
    assert trusted == [first.id, third.id]
    assert [(one.server_id, one.code) for one in failed] == [(second.id, "conflict"), ("nowhere", "not_found")]
    assert (await actions(db))[-2:] == ["host_key.trust", "host_key.trust"]
    assert (await now(db, second)).status_reason == "host_key_unknown"


async def test_approvals_and_offers_of_the_same_servers_do_not_wait_for_each_other_for_ever(db: Database) -> None:
    made = [await add(db, f"web{number}") for number in range(4)]
    for server in made:
        await offer(db, server, host_key())
    wanted = [(server.id, host_key().fingerprint) for server in made]

    async def approve_all(order: list[tuple[str, str]]) -> list[str]:
        async with db.transaction() as conn:
            return (await trust.trust_many(conn, order, actor=ADMIN))[0]

    results = await asyncio.gather(
        *(approve_all(order) for order in (wanted, wanted[::-1]) * 4),
        *(offer(db, server, host_key()) for server in made * 4),
    )
    assert [sorted(ids) for ids in results[:8] if ids is not None] == [sorted(server.id for server in made)] * 8


async def test_a_changed_key_raises_the_alarm_once_for_each_key_until_somebody_decides(db: Database) -> None:
    made = await add(db, "web1")
    await offer(db, made, host_key(1))
    assert not await alarm(db, made, host_key(1)), "nothing was approved yet, so nothing has changed"
    await approve(db, made, host_key(1))
    assert not await alarm(db, made, host_key(1))

    assert await alarm(db, made, host_key(2))
    assert not await alarm(db, made, host_key(2))
    assert await alarm(db, made, host_key(3, "ecdsa-sha2-nistp256"))
    assert not await alarm(db, made, host_key(2))
    record = next(record for record in await records(db) if record["action"] == "host_key.changed")
    assert record["outcome"] == "denied"
    assert record["target"]["name"] == "web1"
    assert record["meta"] == {
        "offered": host_key(2).fingerprint,
        "key_type": "ssh-ed25519",
        "pinned": [host_key(1).fingerprint],
    }

    await offer(db, made, host_key(2))
    await approve(db, made, host_key(2))
    assert (await records(db))[-1]["meta"]["replaced"] == [host_key(1).fingerprint]
    assert await alarm(db, made, host_key(3)), "after a decision the next change is news again"
