"""Keys and passwords for logging in to servers: sealed in the database, open only in memory, never shown again.

`envelope.py` says how a secret is sealed. The master key comes from the settings (KEY_VAULT_MASTER_KEY) and is never
in the database; the previous one may stay readable (KEY_VAULT_PREVIOUS_KEY) until `rewrap_some` has been round. Why:
docs/decisions/key-vault.md.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import asyncssh
import orjson
from pydantic import SecretStr
from sqlalchemy import delete as delete_from
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.db.ids import new_id
from server_monitor.db.tables import audit_records, servers, ssh_credentials
from server_monitor.errors import Conflict, Invalid, NotFound, Unavailable
from server_monitor.ssh import envelope
from server_monitor.ssh.envelope import MasterKey, Place
from server_monitor.ssh.private_keys import PrivateKey, parse_stored_key, read_private_key

LONGEST_PASSWORD = 1024
LONGEST_NAME = 128

_NAMES = ("id", "name", "kind", "key_type", "fingerprint", "public_key", "created_at")
_KNOWN = tuple(ssh_credentials.c[name] for name in _NAMES)


class VaultUnreadable(Unavailable):
    """A secret cannot be opened with the master keys at hand, or is not what was sealed."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is stored of a secret. `key_id` names the master key that wraps it."""

    data: bytes = field(repr=False)
    key_id: str


@dataclass(frozen=True, slots=True)
class Credential:
    """What may be known about a stored secret. The key fields are None for a password."""

    id: str
    name: str
    kind: str
    key_type: str | None
    fingerprint: str | None
    public_key: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Secret:
    """An opened secret: one of the two is there. It lives in memory only."""

    key: asyncssh.SSHKey | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """A part of the round: what was wrapped anew, what did not open, and where the next part begins (None: the end)."""

    done: int
    unreadable: Sequence[str]
    next_id: str | None


class Vault:
    """Seals with the master key; opens with it or a previous one."""

    def __init__(self, master_key: SecretStr, previous: SecretStr | Sequence[SecretStr] = ()) -> None:
        older = [previous] if isinstance(previous, SecretStr) else previous
        self._current = MasterKey.derive(master_key.get_secret_value())
        known = [self._current, *(MasterKey.derive(key.get_secret_value()) for key in older if key.get_secret_value())]
        self._by_id = {key.key_id: key for key in known}

    @property
    def key_id(self) -> str:
        """The id of the master key that seals from now on."""
        return self._current.key_id

    @property
    def key_ids(self) -> frozenset[str]:
        """The ids of all the master keys that open."""
        return frozenset(self._by_id)

    def seal(self, plain: bytes, *, table: str, row_id: str, column: str) -> Sealed:
        return Sealed(envelope.seal(plain, Place(table, row_id, column), self._current), self._current.key_id)

    def open(self, sealed: Sealed, *, table: str, row_id: str, column: str) -> bytes:
        """Raises VaultUnreadable when the master key is missing or the bytes were changed or moved."""
        place = Place(table, row_id, column)
        try:
            return envelope.unseal(sealed.data, place, self._master(sealed.key_id))
        except envelope.TamperedError:
            raise _changed(place) from None

    def rewrap(self, sealed: Sealed, *, table: str, row_id: str, column: str) -> Sealed:
        """The same secret, wrapped by the current master key."""
        place = Place(table, row_id, column)
        try:
            data = envelope.rewrap(sealed.data, place, self._master(sealed.key_id), self._current)
        except envelope.TamperedError:
            raise _changed(place) from None
        return Sealed(data, self._current.key_id)

    def _master(self, key_id: str) -> MasterKey:
        master = self._by_id.get(key_id)
        if master is None:
            raise VaultUnreadable(
                f"A stored secret was sealed under the master key {key_id}, which is not configured. "
                "Set KEY_VAULT_PREVIOUS_KEY to the old KEY_VAULT_MASTER_KEY and restart."
            )
        return master


async def add_key(
    conn: AsyncConnection, vault: Vault, name: str, private_key_text: str, passphrase: str | None = None
) -> Credential:
    """Store a private key that several servers may share. The caller authorises and records it.

    Raises Invalid naming `name`, `private_key` or `passphrase`.
    """
    _refuse_bad_name(name)
    key = await asyncio.to_thread(read_private_key, private_key_text, passphrase)
    return await _add(conn, vault, name, key.text, key)


async def add_password(conn: AsyncConnection, vault: Vault, name: str, password: str) -> Credential:
    """Store the password of an account. The caller authorises and records it. Raises Invalid."""
    _refuse_bad_name(name)
    if not password or len(password) > LONGEST_PASSWORD or "\0" in password:
        raise Invalid.one("password", f"must have 1 to {LONGEST_PASSWORD} characters and no NUL")
    return await _add(conn, vault, name, password.encode(), None)


async def load(conn: AsyncConnection, vault: Vault, credential_id: str) -> Secret:
    """Open a stored secret for logging in. Raises NotFound, and VaultUnreadable when it does not open."""
    opened = (await load_many(conn, vault, [credential_id])).get(credential_id)
    if opened is None:
        raise NotFound("credential", credential_id)
    if isinstance(opened, VaultUnreadable):
        raise opened
    return opened


async def load_many(
    conn: AsyncConnection, vault: Vault, credential_ids: Collection[str]
) -> dict[str, Secret | VaultUnreadable]:
    """Those of the secrets that there are, each opened, or why it does not open."""
    if not credential_ids:
        return {}
    c = ssh_credentials.c
    found = await conn.execute(select(c.id, c.kind, c.sealed, c.wrapped_by).where(c.id.in_(credential_ids)))
    return {row.id: _opened(vault, row.id, row.kind, Sealed(row.sealed, row.wrapped_by)) for row in found}


def _opened(vault: Vault, credential_id: str, kind: str, sealed: Sealed) -> Secret | VaultUnreadable:
    try:
        plain = vault.open(sealed, **_place(credential_id))
    except VaultUnreadable as error:
        return error
    return Secret(password=plain.decode()) if kind == "password" else Secret(key=parse_stored_key(plain))


async def list_keys(conn: AsyncConnection) -> list[Credential]:
    """The stored private keys, without their secrets, by name."""
    keys = select(*_KNOWN).where(ssh_credentials.c.kind == "key")
    found = await conn.execute(keys.order_by(ssh_credentials.c.name, ssh_credentials.c.id))
    return [Credential(*row) for row in found]


async def get(conn: AsyncConnection, credential_id: str) -> Credential:
    """What may be known about one stored secret. Raises NotFound."""
    found = (await conn.execute(select(*_KNOWN).where(ssh_credentials.c.id == credential_id))).first()
    if found is None:
        raise NotFound("credential", credential_id)
    return Credential(*found)


async def delete(conn: AsyncConnection, credential_id: str) -> None:
    """Forget a stored secret. Raises NotFound, and Conflict while a server logs in with it."""
    uses = await conn.execute(select(func.count()).select_from(servers).where(servers.c.credential_id == credential_id))
    count = uses.scalar_one()
    if count:
        raise Conflict(f"{count} server(s) still log in with it. Give them another credential first.")
    gone = await conn.execute(delete_from(ssh_credentials).where(ssh_credentials.c.id == credential_id))
    if gone.rowcount == 0:
        raise NotFound("credential", credential_id)


async def rewrap_some(conn: AsyncConnection, vault: Vault, after_id: str = "", at_most: int = 1000) -> Rewrapped:
    """Wrap what an older master key wraps with the current one, beginning after this row.

    Go on until there is no next part, each in a transaction of its own: a crash leaves every row readable under one of
    the two keys. A row that does not open stays as it is, and keeps nobody else's from being wrapped.
    """
    c = ssh_credentials.c
    stale = select(c.id, c.sealed, c.wrapped_by).where(c.wrapped_by != vault.key_id, c.id > after_id)
    rows = (await conn.execute(stale.order_by(c.id).limit(at_most))).all()
    unreadable: list[str] = []
    for row in rows:
        try:
            sealed = vault.rewrap(Sealed(row.sealed, row.wrapped_by), **_place(row.id))
        except VaultUnreadable:
            unreadable.append(row.id)
            continue
        await conn.execute(
            update(ssh_credentials).where(c.id == row.id).values(sealed=sealed.data, wrapped_by=sealed.key_id)
        )
    return Rewrapped(len(rows) - len(unreadable), unreadable, rows[-1].id if len(rows) == at_most else None)


async def require_consoles_key(conn: AsyncConnection, vault: Vault) -> None:
    """Raise Conflict when this master key is not the one that the console opens secrets with.

    A command on the console's machine that lacks its settings would otherwise seal what the console can never open.
    Each start of a console records the id of its key. Before the first one, what is stored already has to open.
    """
    newest = select(audit_records.c.body).where(audit_records.c.action == "system.start")
    body = await conn.scalar(newest.order_by(audit_records.c.seq.desc()).limit(1))
    named = _vault_key(body)
    if named is not None:
        fits = named == vault.key_id
    else:
        used = set(await conn.scalars(select(ssh_credentials.c.wrapped_by).distinct()))
        fits = not used or bool(used & vault.key_ids)
    if not fits:
        raise Conflict(
            "KEY_VAULT_MASTER_KEY here is not the one that the console opens its secrets with; nothing was stored. "
            "Give this command the console's own settings, KEY_VAULT_MASTER_KEY or KEY_VAULT_MASTER_KEY_FILE among "
            "them. If the key was changed, restart the console first."
        )


def _vault_key(body: bytes | None) -> object:
    """What the record of a start names; None when there is none, or none that can be read any more."""
    try:
        return None if body is None else orjson.loads(body)["meta"].get("vault_key")
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


async def _add(conn: AsyncConnection, vault: Vault, name: str, plain: bytes, key: PrivateKey | None) -> Credential:
    await require_consoles_key(conn, vault)
    added = Credential(
        id=new_id(),
        name=name,
        kind="key" if key else "password",
        key_type=key.key_type if key else None,
        fingerprint=key.fingerprint if key else None,
        public_key=key.public_key if key else None,
        created_at=datetime.now(UTC),
    )
    sealed = vault.seal(plain, **_place(added.id))
    await conn.execute(insert(ssh_credentials).values(**asdict(added), sealed=sealed.data, wrapped_by=sealed.key_id))
    return added


def _place(credential_id: str) -> dict[str, str]:
    return {"table": "ssh_credentials", "row_id": credential_id, "column": "sealed"}


def _refuse_bad_name(name: str) -> None:
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise Invalid.one("name", f"must have 1 to {LONGEST_NAME} printable characters")


def _changed(place: Place) -> VaultUnreadable:
    return VaultUnreadable(
        f"The secret of {place.table} {place.row_id} is not what was sealed there. "
        "Delete it and store it again, and find out who changed the database."
    )
