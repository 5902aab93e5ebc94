from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from server_monitor.audit import log
from server_monitor.audit.chain import Event
from server_monitor.auth.actor import SYSTEM, audited
from server_monitor.db.engine import Database
from server_monitor.db.tables import ssh_credentials
from server_monitor.errors import Conflict, Invalid, NotFound
from server_monitor.ssh import vault as vaults
from server_monitor.ssh.vault import Rewrapped, Sealed, Vault, VaultUnreadable
from tests.ssh.conftest import Fleet
from tests.support.sshd import make_key

LOST = SecretStr("a lost master key, long enough")
OLD, NEW = SecretStr("the old master key, long enough"), SecretStr("the new master key, long enough")


@pytest.fixture
def key_text(tmp_path: Path) -> str:
    return make_key(tmp_path / "key", "ed25519").read_text()


async def test_a_stored_key_is_opened_again_and_its_row_holds_no_trace_of_it(
    db: Database, vault: Vault, key_text: str
) -> None:
    async with db.transaction() as conn:
        added = await vaults.add_key(conn, vault, "deploy", key_text)

    async with db.reading() as conn:
        secret = await vaults.load(conn, vault, added.id)
        row = (await conn.execute(select(ssh_credentials))).one()
        listed = await vaults.list_keys(conn)
    assert secret.key is not None
    assert secret.key.get_fingerprint() == added.fingerprint
    assert listed == [added]
    assert b"OPENSSH" not in row.sealed
    assert row.wrapped_by == vault.key_id


async def test_a_stored_password_is_opened_again(db: Database, vault: Vault) -> None:
    async with db.transaction() as conn:
        added = await vaults.add_password(conn, vault, "root of web1", "pässword")

    async with db.reading() as conn:
        assert (await vaults.load(conn, vault, added.id)).password == "pässword"
        assert await vaults.list_keys(conn) == []


async def test_an_encrypted_key_needs_its_passphrase(db: Database, vault: Vault, tmp_path: Path) -> None:
    text = make_key(tmp_path / "locked", "ed25519", passphrase="open sesame").read_text()

    async with db.transaction() as conn:
        with pytest.raises(Invalid) as missing:
            await vaults.add_key(conn, vault, "locked", text)
        added = await vaults.add_key(conn, vault, "locked", text, "open sesame")
        opened = await vaults.load(conn, vault, added.id)

    assert [error.field for error in missing.value.errors] == ["passphrase"]
    assert opened.key is not None


@pytest.mark.parametrize("name", ["", " ", "x" * 129, "two\nlines"])
async def test_a_bad_name_is_refused(db: Database, vault: Vault, key_text: str, name: str) -> None:
    async with db.transaction() as conn:
        with pytest.raises(Invalid, match="name"):
            await vaults.add_key(conn, vault, name, key_text)


@pytest.mark.parametrize("password", ["", "x" * 1025, "a\0b"])
async def test_a_bad_password_is_refused(db: Database, vault: Vault, password: str) -> None:
    async with db.transaction() as conn:
        with pytest.raises(Invalid, match="password"):
            await vaults.add_password(conn, vault, "name", password)


async def test_the_secrets_of_two_rows_cannot_be_swapped(db: Database, vault: Vault) -> None:
    async with db.transaction() as conn:
        one = await vaults.add_password(conn, vault, "one", "first")
        two = await vaults.add_password(conn, vault, "two", "second")
        sealed = (await conn.execute(select(ssh_credentials.c.sealed).where(ssh_credentials.c.id == one.id))).scalar()
        await conn.execute(update(ssh_credentials).where(ssh_credentials.c.id == two.id).values(sealed=sealed))

    async with db.reading() as conn:
        with pytest.raises(VaultUnreadable):
            await vaults.load(conn, vault, two.id)
        assert (await vaults.load(conn, vault, one.id)).password == "first"


async def test_the_master_key_can_be_changed_without_losing_a_secret(db: Database) -> None:
    async with db.transaction() as conn:
        ids = [(await vaults.add_password(conn, Vault(OLD), f"p{n}", f"secret {n}")).id for n in range(5)]
    rotating = Vault(NEW, OLD)

    async with db.transaction() as conn:
        first = await vaults.rewrap_some(conn, rotating, at_most=3)
        assert first.done == 3
        # In between, every secret opens.
        assert [(await vaults.load(conn, rotating, each)).password for each in ids] == [f"secret {n}" for n in range(5)]
    async with db.transaction() as conn:
        assert first.next_id is not None
        assert await vaults.rewrap_some(conn, rotating, first.next_id) == Rewrapped(2, [], None)
        assert await vaults.rewrap_some(conn, rotating) == Rewrapped(0, [], None)

    async with db.reading() as conn:
        assert [(await vaults.load(conn, Vault(NEW), each)).password for each in ids] == [
            f"secret {n}" for n in range(5)
        ]


async def test_a_secret_that_does_not_open_keeps_no_other_from_the_new_key(db: Database) -> None:
    async with db.transaction() as conn:
        lost = (await vaults.add_password(conn, Vault(LOST), "lost", "secret")).id
        broken, good = [(await vaults.add_password(conn, Vault(OLD, LOST), name, "secret")).id for name in "bg"]
        sealed = (await conn.execute(select(ssh_credentials.c.sealed).where(ssh_credentials.c.id == good))).scalar()
        await conn.execute(update(ssh_credentials).where(ssh_credentials.c.id == broken).values(sealed=sealed))

    done, unreadable, next_id = 0, set[str](), ""
    async with db.transaction() as conn:
        while next_id is not None:
            part = await vaults.rewrap_some(conn, Vault(NEW, OLD), next_id, at_most=1)
            done, unreadable, next_id = done + part.done, unreadable.union(part.unreadable), part.next_id

    assert (done, unreadable) == (1, {lost, broken})
    async with db.reading() as conn:
        assert (await vaults.load(conn, Vault(NEW), good)).password == "secret"


async def test_nothing_is_sealed_under_another_key_than_what_is_stored(db: Database) -> None:
    async with db.transaction() as conn:
        await vaults.add_password(conn, Vault(OLD), "p", "secret")
        with pytest.raises(Conflict, match="KEY_VAULT_MASTER_KEY"):
            await vaults.add_password(conn, Vault(NEW), "q", "secret")
        await vaults.add_password(conn, Vault(NEW, OLD), "r", "secret")


async def test_the_key_of_the_console_that_started_last_is_the_one(db: Database) -> None:
    """Also before anything is stored, and while what is stored is still under the previous key."""
    async with db.transaction() as conn:
        meta = {"clean": True, "vault_key": Vault(NEW).key_id}
        await log.append(conn, Event("system.start", audited(SYSTEM), meta=meta))
    async with db.transaction() as conn:
        for other in (Vault(OLD), Vault(OLD, NEW)):
            with pytest.raises(Conflict, match="restart the console"):
                await vaults.add_password(conn, other, "p", "secret")
        await vaults.add_password(conn, Vault(NEW, OLD), "p", "secret")


async def test_a_missing_master_key_is_named_with_its_remedy(db: Database) -> None:
    async with db.transaction() as conn:
        added = await vaults.add_password(conn, Vault(OLD), "p", "secret")

    async with db.reading() as conn:
        with pytest.raises(VaultUnreadable, match="KEY_VAULT_PREVIOUS_KEY") as unreadable:
            await vaults.load(conn, Vault(NEW), added.id)
    assert Vault(OLD).key_id in str(unreadable.value)
    assert OLD.get_secret_value() not in str(unreadable.value)


async def test_a_credential_in_use_cannot_be_deleted(sqlite_db: Database, vault: Vault, fleet: Fleet) -> None:
    async with sqlite_db.transaction() as conn:
        used = await vaults.add_password(conn, vault, "used", "secret")
        spare = await vaults.add_password(conn, vault, "spare", "secret")
    await fleet.add("127.0.0.1", 22, auth="password", credential_id=used.id)

    async with sqlite_db.transaction() as conn:
        with pytest.raises(Conflict, match="1 server"):
            await vaults.delete(conn, used.id)
        await vaults.delete(conn, spare.id)
        for gone in (vaults.load(conn, vault, spare.id), vaults.get(conn, spare.id), vaults.delete(conn, spare.id)):
            with pytest.raises(NotFound):
                await gone


def test_secrets_are_never_printed(vault: Vault) -> None:
    sealed = vault.seal(b"secret", table="t", row_id="r", column="c")
    texts = [repr(sealed), repr(vaults.Secret(password="secret")), repr(vault), repr(Vault(OLD, [NEW]))]

    assert not any("secret" in text or "master" in text for text in texts)
    assert vault.open(Sealed(sealed.data, sealed.key_id), table="t", row_id="r", column="c") == b"secret"


def test_empty_previous_keys_are_no_keys() -> None:
    assert Vault(NEW, SecretStr("")).key_id == Vault(NEW, [SecretStr("")]).key_id == Vault(NEW).key_id
