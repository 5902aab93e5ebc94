"""People and servers for tests of the fleet."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr
from sqlalchemy import select

from server_monitor.auth.actor import Actor, ActorKind, GroupId, Role
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records
from server_monitor.fleet import changes, groups
from server_monitor.fleet.changes import Login, NewServer
from server_monitor.fleet.groups import Group, NewGroup
from server_monitor.fleet.servers import Server
from server_monitor.ssh.hostkeys import HostKey
from server_monitor.ssh.vault import Vault

VAULT = Vault(SecretStr("a master key for tests, long enough"))
ADMIN = Actor(ActorKind.USER, "00000000-0000-7000-8000-000000000001", "ada", Role.ADMIN)
VIEWER = Actor(ActorKind.USER, "00000000-0000-7000-8000-000000000002", "vera", Role.VIEWER)
NOBODY = Actor(ActorKind.USER, "00000000-0000-7000-8000-000000000003", "noah")


def member(group: Group, role: Role, name: str = "gus") -> Actor:
    """Somebody with a role in one group and none elsewhere."""
    return Actor(ActorKind.USER, "00000000-0000-7000-8000-000000000004", name, None, {group.id: role})


async def add(db: Database, name: str, *, actor: Actor = ADMIN, **given: Any) -> Server:
    """A server with an address of its own, and whatever else is given."""
    fields = {"host": f"{name}.example.com", "username": "monitor", **given}
    async with db.transaction() as conn:
        return await changes.add(conn, VAULT, NewServer(name, **fields), actor=actor)


async def add_group(db: Database, name: str, servers: Sequence[Server] = ()) -> Group:
    async with db.transaction() as conn:
        group = await groups.create(conn, NewGroup(name), actor=ADMIN)
        await groups.set_members(conn, group.id, [server.id for server in servers], actor=ADMIN)
    return group


async def records(db: Database) -> list[Mapping[str, Any]]:
    """The audit log, oldest record first."""
    async with db.reading() as conn:
        bodies = await conn.scalars(select(audit_records.c.body).order_by(audit_records.c.seq))
        return [orjson.loads(body) for body in bodies]


async def actions(db: Database) -> list[str]:
    return [record["action"] for record in await records(db)]


def host_key(number: int = 1, key_type: str = "ssh-ed25519") -> HostKey:
    return HostKey.of(key_type, f"host key number {number}".encode())


def in_group(group_id: GroupId | str) -> dict[str, Any]:
    return {"groups": [group_id], "login": Login("password", password="correct horse")}


def private_key() -> str:
    """A new OpenSSH private key."""
    made = Ed25519PrivateKey.generate()
    return made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
