"""A pool on an empty database, and servers in it that stand for real or fake hosts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import uvloop
from pydantic import SecretStr
from sqlalchemy import insert

from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import servers
from server_monitor.ssh import hostkeys
from server_monitor.ssh import vault as vaults
from server_monitor.ssh.hostkeys import HostKey
from server_monitor.ssh.pool import Limits, Pool, Target
from server_monitor.ssh.vault import Vault
from tests.support.patience import PATIENCE_S
from tests.support.sshd import PasswordUser, Sshd


@pytest.fixture
def vault() -> Vault:
    return Vault(SecretStr("a master key for tests, long enough"))


MakePool = Callable[..., Pool]
PATIENT = Limits(connect_timeout_s=PATIENCE_S)  # hosts that answer are not given up because the machine is busy


@pytest.fixture
async def make_pool(sqlite_db: Database, vault: Vault) -> AsyncIterator[MakePool]:
    """Makes pools with the limits of the test; all are closed after it."""
    pools: list[Pool] = []

    def make(limits: Limits = PATIENT, *, agent_socket: str | None = None) -> Pool:
        pools.append(Pool(sqlite_db, vault, limits, agent_socket=agent_socket))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.close()


@pytest.fixture
def pool(make_pool: MakePool) -> Pool:
    return make_pool()


class Fleet:
    """Writes the rows that make a host known to the console."""

    def __init__(self, db: Database, vault: Vault) -> None:
        self.db = db
        self.vault = vault

    async def add(
        self,
        host: str,
        port: int,
        *,
        username: str = "root",
        auth: str = "agent",
        jump: Target | None = None,
        credential_id: str | None = None,
    ) -> Target:
        server_id = new_id()
        now = datetime.now(UTC)
        async with self.db.transaction() as conn:
            await conn.execute(
                insert(servers).values(
                    id=server_id,
                    name=f"host-{server_id}",
                    host=host,
                    port=port,
                    username=username,
                    auth=auth,
                    credential_id=credential_id,
                    jump_server_id=jump.server_id if jump else None,
                    labels={},
                    capability="observe",
                    enabled=True,
                    status="unknown",
                    created_at=now,
                    updated_at=now,
                )
            )
        return Target(server_id, f"host-{server_id}", host, port, username, auth, credential_id, jump)

    async def add_sshd(self, sshd: Sshd, *, trusted: bool = True, jump: Target | None = None) -> Target:
        """A host that we log in to with its login key; its Ed25519 key is accepted unless `trusted` is False."""
        credential_id = await self.add_key(sshd.private_key)
        target = await self.add(
            sshd.host, sshd.port, username=sshd.username, auth="key", jump=jump, credential_id=credential_id
        )
        if trusted:
            await self.trust(target, key_of(sshd))
        return target

    async def add_key(self, text: str) -> str:
        async with self.db.transaction() as conn:
            return (await vaults.add_key(conn, self.vault, "login", text)).id

    async def add_password(self, user: PasswordUser) -> str:
        async with self.db.transaction() as conn:
            return (await vaults.add_password(conn, self.vault, user.name, user.password)).id

    async def trust(self, target: Target, key: HostKey) -> None:
        async with self.db.transaction() as conn:
            await hostkeys.record_offer(conn, target.server_id, key)
            await hostkeys.trust(conn, target.server_id, key.fingerprint, pinned_by="ada")

    async def offered(self, target: Target) -> list[HostKey]:
        async with self.db.reading() as conn:
            return await hostkeys.offered(conn, target.server_id)

    async def pinned(self, target: Target) -> list[HostKey]:
        async with self.db.reading() as conn:
            return await hostkeys.pinned(conn, target.server_id)


@pytest.fixture
def fleet(sqlite_db: Database, vault: Vault) -> Fleet:
    return Fleet(sqlite_db, vault)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """Production runs on uvloop. What hosts can do to a transport is tried on Python's own loop as well."""
    factories: dict[str, Callable[[], Any]] = {"uvloop": uvloop.new_event_loop}
    if item.path.name == "test_bad_hosts.py":
        factories["asyncio"] = asyncio.new_event_loop
    return factories


def key_of(sshd: Sshd, kind: str = "ed25519") -> HostKey:
    line = sshd.host_public_key(kind)
    return HostKey(line.split()[0], sshd.fingerprint(kind), line)
