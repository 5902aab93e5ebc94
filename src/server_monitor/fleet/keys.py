"""Private keys that several servers may share: stored sealed, listed without their secret, never shown again."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import Actor, Permission, allows, audited
from server_monitor.db.tables import servers
from server_monitor.errors import Conflict, Denied, NotFound
from server_monitor.fleet.changes import key_event
from server_monitor.fleet.fields import tidy
from server_monitor.ssh import vault as secrets
from server_monitor.ssh.vault import Credential, Vault


async def listing(conn: AsyncConnection, *, actor: Actor) -> list[Credential]:
    _require(Permission.KEY_READ, actor)
    return await secrets.list_keys(conn)


async def add(
    conn: AsyncConnection, vault: Vault, name: str, private_key: str, passphrase: str | None, *, actor: Actor
) -> Credential:
    """Raises Invalid when the key cannot be read, or not with this passphrase."""
    _require(Permission.KEY_WRITE, actor)
    made = await secrets.add_key(conn, vault, tidy(name), private_key, passphrase)
    await log.append(conn, key_event(made, actor))
    return made


async def remove(conn: AsyncConnection, key_id: str, *, actor: Actor) -> None:
    """Raises Conflict, naming them, while servers log in with the key."""
    _require(Permission.KEY_WRITE, actor)
    gone = next((key for key in await secrets.list_keys(conn) if key.id == key_id), None)
    if gone is None:
        raise NotFound("SSH key", key_id)
    users = sorted(await conn.scalars(select(servers.c.name).where(servers.c.credential_id == key_id)))
    if users:
        shown = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
        raise Conflict(f"{shown} log in with this key. Give them another way to log in first.")
    await secrets.delete(conn, key_id)
    meta = {"fingerprint": gone.fingerprint}
    await log.append(
        conn, Event("ssh_key.delete", audited(actor), AuditTarget("ssh_key", key_id, gone.name), meta=meta)
    )


def _require(permission: Permission, actor: Actor) -> None:
    if not allows(actor, permission):
        raise Denied(f"This takes the permission {permission.value}.")
