"""Private keys that several servers share."""

import pytest

from server_monitor.auth.actor import Actor, ActorKind, Role
from server_monitor.db.engine import Database
from server_monitor.errors import Conflict, Denied, Invalid, NotFound
from server_monitor.fleet import keys
from server_monitor.fleet.changes import Login
from server_monitor.ssh.vault import Credential
from tests.support.fleet import ADMIN, NOBODY, VAULT, VIEWER, actions, add, private_key, records

OPERATOR = Actor(ActorKind.USER, "o", "olga", Role.OPERATOR)


async def store(db: Database, name: str = "deploy", text: str | None = None, *, actor: Actor = ADMIN) -> Credential:
    async with db.transaction() as conn:
        return await keys.add(conn, VAULT, name, text or private_key(), None, actor=actor)


async def test_a_key_is_stored_listed_without_its_secret_used_and_forgotten(db: Database) -> None:
    text = private_key()
    made = await store(db, text=text)
    async with db.reading() as conn:
        assert await keys.listing(conn, actor=OPERATOR) == [made]
    assert text.splitlines()[1] not in repr(made)
    await add(db, "web1", login=Login("key", key_id=made.id))
    with pytest.raises(Conflict, match="web1 log in with this key"):
        async with db.transaction() as conn:
            await keys.remove(conn, made.id, actor=ADMIN)
    spare = await store(db, "spare")
    async with db.transaction() as conn:
        await keys.remove(conn, spare.id, actor=ADMIN)
    assert await actions(db) == ["ssh_key.create", "server.create", "ssh_key.create", "ssh_key.delete"]
    assert (await records(db))[0]["meta"] == {"fingerprint": made.fingerprint}


async def test_what_is_no_key_is_refused(db: Database) -> None:
    with pytest.raises(Invalid):
        await store(db, text="-----BEGIN NONSENSE-----")
    with pytest.raises(Invalid):
        await store(db, name="a\nb")
    with pytest.raises(NotFound):
        async with db.transaction() as conn:
            await keys.remove(conn, "nowhere", actor=ADMIN)


async def test_a_password_is_no_key_to_be_removed_or_shared(db: Database) -> None:
    made = await add(db, "web1", login=Login("password", password="correct horse"))
    with pytest.raises(NotFound):
        async with db.transaction() as conn:
            await keys.remove(conn, str(made.credential_id), actor=ADMIN)
    with pytest.raises(Invalid, match="no stored key"):
        await add(db, "web2", login=Login("key", key_id=made.credential_id))


async def test_who_may_do_what_with_keys(db: Database) -> None:
    made = await store(db)
    for actor in (VIEWER, OPERATOR, NOBODY):
        with pytest.raises(Denied):
            await store(db, actor=actor)
        with pytest.raises(Denied):
            async with db.transaction() as conn:
                await keys.remove(conn, made.id, actor=actor)
    for actor in (VIEWER, NOBODY):
        with pytest.raises(Denied):
            async with db.reading() as conn:
                await keys.listing(conn, actor=actor)
