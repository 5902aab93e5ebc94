import asyncio
import hashlib

import pytest

from server_monitor.db.engine import Database
from server_monitor.errors import Conflict
from server_monitor.ssh import hostkeys
from server_monitor.ssh.hostkeys import HostKey, HostKeyChanged, HostKeyUnknown
from server_monitor.ssh.pool import Target
from server_monitor.ssh.vault import Vault
from tests.ssh.conftest import Fleet


def made_key(seed: str, key_type: str = "ssh-ed25519") -> HostKey:
    return HostKey.of(key_type, hashlib.sha256(seed.encode()).digest())


ONE, TWO, RSA = made_key("one"), made_key("two"), made_key("rsa", "ssh-rsa")


@pytest.fixture
async def target(db: Database, vault: Vault) -> Target:
    return await Fleet(db, vault).add("127.0.0.1", 22)


async def test_an_offer_is_kept_and_not_accepted(db: Database, target: Target) -> None:
    async with db.transaction() as conn:
        assert await hostkeys.record_offer(conn, target.server_id, ONE) is True
        assert await hostkeys.record_offer(conn, target.server_id, ONE) is False

        assert await hostkeys.offered(conn, target.server_id) == [ONE]
        assert await hostkeys.pinned(conn, target.server_id) == []


async def test_a_newer_offer_of_a_type_replaces_the_older_one(db: Database, target: Target) -> None:
    async with db.transaction() as conn:
        for key in (ONE, RSA, TWO):
            await hostkeys.record_offer(conn, target.server_id, key)

        assert await hostkeys.offered(conn, target.server_id) == [TWO, RSA]


async def test_connections_that_see_a_key_first_at_the_same_moment_all_go_on(db: Database, target: Target) -> None:
    async def offer(key: HostKey) -> bool:
        async with db.transaction() as conn:
            return await hostkeys.record_offer(conn, target.server_id, key)

    news = await asyncio.gather(*(offer(ONE) for _ in range(8)))
    await asyncio.gather(*(offer(key) for key in (TWO, ONE, RSA, TWO, ONE, RSA)))

    assert sorted(news) == [False] * 7 + [True]
    async with db.reading() as conn:
        kept = await hostkeys.offered(conn, target.server_id)
    assert sorted(key.key_type for key in kept) == ["ssh-ed25519", "ssh-rsa"]


async def test_only_what_was_offered_can_be_accepted(db: Database, target: Target) -> None:
    async with db.transaction() as conn:
        with pytest.raises(Conflict, match="has not offered"):
            await hostkeys.trust(conn, target.server_id, ONE.fingerprint, pinned_by="ada")
        await hostkeys.record_offer(conn, target.server_id, TWO)
        with pytest.raises(Conflict, match=r"now offers .* not ") as conflict:
            await hostkeys.trust(conn, target.server_id, ONE.fingerprint, pinned_by="ada")

        assert TWO.fingerprint in str(conflict.value)
        assert await hostkeys.pinned(conn, target.server_id) == []


async def test_an_accepted_key_takes_the_place_of_the_one_before(db: Database, target: Target) -> None:
    async with db.transaction() as conn:
        for key in (ONE, TWO):
            await hostkeys.record_offer(conn, target.server_id, key)
            assert await hostkeys.trust(conn, target.server_id, key.fingerprint, pinned_by="ada") == key

        assert await hostkeys.pinned(conn, target.server_id) == [TWO]
        assert await hostkeys.offered(conn, target.server_id) == []


async def test_accepting_the_accepted_key_again_changes_nothing(db: Database, target: Target) -> None:
    async with db.transaction() as conn:
        await hostkeys.record_offer(conn, target.server_id, ONE)
        for _ in range(2):
            assert await hostkeys.trust(conn, target.server_id, ONE.fingerprint, pinned_by="ada") == ONE
        assert await hostkeys.record_offer(conn, target.server_id, ONE) is False

        assert await hostkeys.pinned(conn, target.server_id) == [ONE]


async def test_the_old_key_cannot_be_accepted_again_while_the_host_shows_another(db: Database, target: Target) -> None:
    async with db.transaction() as conn:
        await hostkeys.record_offer(conn, target.server_id, ONE)
        await hostkeys.trust(conn, target.server_id, ONE.fingerprint, pinned_by="ada")
        await hostkeys.record_offer(conn, target.server_id, TWO)

        with pytest.raises(Conflict):
            await hostkeys.trust(conn, target.server_id, ONE.fingerprint, pinned_by="ada")


async def test_an_offer_of_a_server_that_is_gone_is_forgotten(db: Database) -> None:
    async with db.transaction() as conn:
        assert await hostkeys.record_offer(conn, "00000000-0000-7000-8000-000000000000", ONE) is False


def test_the_refusals_say_what_to_compare() -> None:
    assert ONE.fingerprint in str(HostKeyUnknown(ONE))
    changed = HostKeyChanged(TWO, [ONE])
    assert ONE.fingerprint in str(changed)
    assert TWO.fingerprint in str(changed)
    assert ONE.blob == hashlib.sha256(b"one").digest()
