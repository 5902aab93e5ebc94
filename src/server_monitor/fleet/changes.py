"""What people change about servers: add, edit, switch off, remove. Each is recorded in the same transaction."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import SECRET, AuditTarget, Change, Event
from server_monitor.auth.actor import Actor, GroupId, Permission, allows, audited, groups_allowing
from server_monitor.auth.users import UNCHANGED, Unchanged
from server_monitor.db.tables import group_members, groups, servers, ssh_credentials
from server_monitor.errors import Conflict, Denied, FieldError, Invalid, NotFound
from server_monitor.fleet.fields import JUMPS_MAX, quoted, server_mistakes, tidy, tidy_host
from server_monitor.fleet.servers import Server, get, insert_server, target_of
from server_monitor.ssh import vault as secrets
from server_monitor.ssh.pool import Target
from server_monitor.ssh.vault import Credential, Vault

AUTHS = ("agent", "key", "password")
SECRET_MAX = 16_384


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in: with the console's agent, with a key (one that is stored, or a new one), or with a password."""

    type: str = "agent"
    key_id: str | None = None
    private_key: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NewServer:
    """A server as a person describes it. `groups` are ids."""

    name: str
    host: str
    username: str
    port: int = 22
    login: Login = Login()
    jump_server_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    capability: str = "observe"
    groups: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Edit:
    """What to change about a server; the rest stays."""

    name: str | Unchanged = UNCHANGED
    host: str | Unchanged = UNCHANGED
    username: str | Unchanged = UNCHANGED
    port: int | Unchanged = UNCHANGED
    login: Login | Unchanged = UNCHANGED
    jump_server_id: str | Unchanged | None = UNCHANGED
    labels: Mapping[str, str] | Unchanged = UNCHANGED
    capability: str | Unchanged = UNCHANGED
    enabled: bool | Unchanged = UNCHANGED


async def add(conn: AsyncConnection, vault: Vault, new: NewServer, *, actor: Actor) -> Server:
    """Store a server, and its key or password when it brings one.

    Raises Invalid with every mistake, Conflict when the name is taken, Denied when the actor may not add servers to
    these groups. An actor who administers only some groups has to name one of them.
    """
    require_placing(actor, new.groups)
    new = _tidied_new(new)
    mistakes = [*_mistakes(new), *_login_mistakes(new.login)]
    mistakes += await _group_mistakes(conn, new.groups)
    mistakes += await _jump_mistakes(conn, None, new.jump_server_id, actor)
    mistakes += await _key_mistakes(conn, new.login, actor)
    if mistakes:
        raise Invalid(mistakes)
    await _require_free(conn, new.name)
    credential_id, events = await _credential(conn, vault, new.name, new.login, actor)
    try:
        server_id = await insert_server(
            conn,
            name=new.name,
            host=new.host,
            port=new.port,
            username=new.username,
            auth=new.login.type,
            credential_id=credential_id,
            jump_server_id=new.jump_server_id,
            labels=dict(new.labels),
            capability=new.capability,
        )
    except IntegrityError as error:
        raise _taken(new.name) from error
    if new.groups:
        rows = [{"group_id": group, "server_id": server_id} for group in dict.fromkeys(new.groups)]
        await conn.execute(insert(group_members), rows)
    created = await get(conn, server_id, actor=actor)
    await log.append(conn, *events, created_event(target_of_audit(created), _recorded(created), actor))
    return created


async def trial(conn: AsyncConnection, new: NewServer, *, actor: Actor) -> Target:
    """How to reach a server that is not added yet, for whoever may add it. Raises as `add` does."""
    require_placing(actor, new.groups)
    new = _tidied_new(new)
    mistakes = [*_mistakes(new), *await _jump_mistakes(conn, None, new.jump_server_id, actor)]
    if mistakes:
        raise Invalid(mistakes)
    jump = await target_of(conn, new.jump_server_id) if new.jump_server_id else None
    return Target("", new.name, new.host, new.port, new.username, new.login.type, jump=jump)


async def edit(conn: AsyncConnection, vault: Vault, server_id: str, change: Edit, *, actor: Actor) -> Server:
    """Change a server. Its approved host keys stay: a new address has to show the same key, or be approved again.

    Raises Invalid with every mistake, Conflict when the name is taken, NotFound, Denied.
    """
    old = await get(conn, server_id, actor=actor)
    require(old, Permission.SERVER_WRITE, actor)
    wanted = _tidied(change)
    login = wanted.pop("login", None)
    if old.is_local:
        _require_local_keeps(wanted, login)
    new = replace(old, **wanted)
    mistakes = [] if old.is_local else [*_mistakes(new), *(_login_mistakes(login) if login else ())]
    mistakes += _password_mistakes(old, new, login)
    mistakes += await _behind_mistakes(conn, old, new, actor)
    if login is not None:
        mistakes += await _key_mistakes(conn, login, actor)
    if new.jump_server_id != old.jump_server_id:
        mistakes += await _jump_mistakes(conn, server_id, new.jump_server_id, actor)
    if mistakes:
        raise Invalid(mistakes)
    if new.name != old.name:
        await _require_free(conn, new.name)
    events: list[Event] = []
    if login is not None:
        credential_id, events = await _credential(conn, vault, new.name, login, actor)
        new = replace(new, auth=login.type, credential_id=credential_id)
    changes = [*_differences(old, new), *([Change("auth", SECRET, SECRET)] if login else ())]
    if not changes:
        return old
    await _store(conn, old, new)
    if new.credential_id != old.credential_id:
        await _forget_password(conn, old.credential_id)
    stored = await get(conn, server_id, actor=actor)
    await log.append(conn, *events, Event("server.update", audited(actor), target_of_audit(new), change=changes))
    return stored


async def remove(conn: AsyncConnection, server_id: str, *, actor: Actor) -> Server:
    """Forget a server, its host keys, facts and password. A key stays: others may use it.

    Raises Conflict when others are reached through it, or when it is the console's own machine.
    """
    gone = await get(conn, server_id, actor=actor)
    require(gone, Permission.SERVER_WRITE, actor)
    if gone.is_local:
        raise Conflict("This is the console's own machine, which cannot be removed. Switch it off instead.")
    behind = list(await conn.scalars(select(servers.c.name).where(servers.c.jump_server_id == server_id)))
    if behind:
        shown = ", ".join(sorted(behind)[:5]) + (f" and {len(behind) - 5} more" if len(behind) > 5 else "")
        raise Conflict(f"{gone.name} is the jump server of {shown}. Give them another way first.")
    await conn.execute(delete(servers).where(servers.c.id == server_id))
    await _forget_password(conn, gone.credential_id)
    await log.append(conn, Event("server.delete", audited(actor), target_of_audit(gone)))
    return gone


def require(server: Server, permission: Permission, actor: Actor) -> None:
    """Raise Denied unless the actor holds the permission for this server."""
    if not allows(actor, permission, server.group_ids):
        raise Denied(f"This takes the permission {permission.value} for {server.name}.")


def require_placing(actor: Actor, wanted: Sequence[str]) -> None:
    """Raise Denied unless the actor may add a server to these groups; to none, when they may add any."""
    allowed = groups_allowing(actor, Permission.SERVER_WRITE)
    if allowed is None or (wanted and allowed.issuperset(map(GroupId, wanted))):
        return
    raise Denied("Adding a server takes the permission server:write, everywhere or for each group it is put into.")


def created_event(target: AuditTarget, values: Mapping[str, Any], actor: Actor) -> Event:
    """The record of a new server, with what it was made of."""
    given = {name: value for name, value in values.items() if name not in ("id", "name") and value not in (None, {})}
    return Event("server.create", audited(actor), target, meta=given)


def target_of_audit(server: Server) -> AuditTarget:
    return AuditTarget("server", server.id, server.name, server.group_ids)


async def _require_free(conn: AsyncConnection, name: str) -> None:
    if await conn.scalar(select(servers.c.id).where(servers.c.name == name)):
        raise _taken(name)


def _taken(name: str) -> Conflict:
    return Conflict(f"There is a server {quoted(name)} already. Give this one another name.")


def _mistakes(server: NewServer | Server) -> list[FieldError]:
    return server_mistakes(
        name=server.name,
        host=server.host,
        port=server.port,
        username=server.username,
        labels=server.labels,
        capability=server.capability,
    )


def _login_mistakes(login: Login) -> Iterator[FieldError]:
    if login.type not in AUTHS:
        yield FieldError("auth.type", f"Choose one of {', '.join(AUTHS)}.")
        return
    allowed = {"agent": (), "key": ("key_id", "private_key", "passphrase"), "password": ("password",)}[login.type]
    given = {name for name in ("key_id", "private_key", "passphrase", "password") if getattr(login, name) is not None}
    for name in sorted(given - set(allowed)):
        yield FieldError(f"auth.{name}", f"This does not go with the type {login.type!r}. Leave it out.")
    if login.type == "key" and len(given & {"key_id", "private_key"}) != 1:
        yield FieldError("auth.key_id", "Give either the id of a stored key or a private key.")
    if login.type == "password" and not login.password:
        yield FieldError("auth.password", "Give the password.")
    for name in ("private_key", "passphrase", "password"):
        if len(getattr(login, name) or "") > SECRET_MAX:
            yield FieldError(f"auth.{name}", f"At most {SECRET_MAX:,} characters.")


async def _group_mistakes(conn: AsyncConnection, wanted: Collection[str]) -> list[FieldError]:
    known = set(await conn.scalars(select(groups.c.id).where(groups.c.id.in_(wanted)))) if wanted else set()
    return [FieldError("groups", f"There is no group {quoted(group)}.") for group in wanted if group not in known]


async def _jump_mistakes(
    conn: AsyncConnection, server_id: str | None, jump_server_id: str | None, actor: Actor
) -> list[FieldError]:
    """A jump server is one that the actor administers: through it, the console reaches into its network."""
    if jump_server_id is None:
        return []
    try:
        jump = await get(conn, jump_server_id, actor=actor)
    except NotFound:
        return [FieldError("jump_server_id", f"There is no server {quoted(jump_server_id)}.")]
    if not allows(actor, Permission.SERVER_WRITE, jump.group_ids):
        message = f"Going through {jump.name} takes the permission server:write for it."
    elif jump.is_local:
        message = "The console's own machine needs no jump: leave the field empty."
    else:
        message = await _way_mistake(conn, server_id, jump)
    return [FieldError("jump_server_id", message)] if message else []


async def _way_mistake(conn: AsyncConnection, server_id: str | None, jump: Server) -> str:
    """What is wrong with the way that `jump` begins, if anything."""
    next_id: str | None = jump.id
    for _ in range(JUMPS_MAX):
        if next_id == server_id:
            return f"The way through {jump.name} leads back to this server."
        next_id = await conn.scalar(select(servers.c.jump_server_id).where(servers.c.id == next_id))
        if next_id is None:
            return ""
    return f"At most {JUMPS_MAX} servers on the way to another."


async def _key_mistakes(conn: AsyncConnection, login: Login, actor: Actor) -> list[FieldError]:
    """Shared keys and the console's agent open other servers too, so they take more than a group's administrator."""
    if login.type == "password" or (login.type == "key" and login.private_key is not None):
        return []
    if not allows(actor, Permission.KEY_READ):
        raise Denied("Using a stored key or the console's agent takes the permission key:read. Bring a key of its own.")
    if login.key_id is None:
        return []
    usable = select(ssh_credentials.c.id).where(ssh_credentials.c.id == login.key_id, ssh_credentials.c.kind == "key")
    if await conn.scalar(usable) is None:
        return [FieldError("auth.key_id", f"There is no stored key {quoted(login.key_id)}.")]
    return []


def _password_mistakes(old: Server, new: Server, login: Login | None) -> list[FieldError]:
    """A stored password is sent only where it was meant for; whoever moves the server has to know it."""
    if old.auth == "password" and _is_moved(old, new) and login is None:
        message = "Give the password again: the stored one was meant for the old way there and is not sent elsewhere."
        return [FieldError("auth.password", message)]
    return []


def _is_moved(old: Server, new: Server) -> bool:
    """Does what is sent to the server go elsewhere, or through other hands?"""
    return (old.host, old.port, old.jump_server_id) != (new.host, new.port, new.jump_server_id)


async def _behind_mistakes(conn: AsyncConnection, old: Server, new: Server, actor: Actor) -> list[FieldError]:
    """Whoever moves a jump server could stand in the way of the passwords that go through it."""
    if not _is_moved(old, new) or allows(actor, Permission.KEY_WRITE):
        return []
    behind, asked = set[str](), {old.id}
    while asked:
        through = (servers.c.jump_server_id.in_(asked), servers.c.id.not_in(behind))
        asked = set(await conn.scalars(select(servers.c.id).where(*through)))
        behind |= asked
    with_password = select(servers.c.id).where(servers.c.id.in_(behind), servers.c.auth == "password").limit(1)
    if await conn.scalar(with_password) is None:
        return []
    message = "Stored passwords go through this server. Moving it takes the permission key:write."
    return [FieldError("host", message)]


async def _credential(
    conn: AsyncConnection, vault: Vault, name: str, login: Login, actor: Actor
) -> tuple[str | None, list[Event]]:
    """The stored credential that a login uses, and what there is to record about it."""
    try:
        if login.private_key is not None:
            made = await secrets.add_key(conn, vault, name, login.private_key, login.passphrase)
            return made.id, [key_event(made, actor)]
        if login.password is not None:
            return (await secrets.add_password(conn, vault, name, login.password)).id, []
    except Invalid as refused:
        raise Invalid([replace(one, field=f"auth.{one.field}") for one in refused.errors]) from None
    return login.key_id, []


def key_event(made: Credential, actor: Actor) -> Event:
    """The record of a stored key."""
    target = AuditTarget("ssh_key", made.id, made.name)
    return Event("ssh_key.create", audited(actor), target, meta={"fingerprint": made.fingerprint})


async def _forget_password(conn: AsyncConnection, credential_id: str | None) -> None:
    kept = select(ssh_credentials.c.id).where(
        ssh_credentials.c.id == credential_id, ssh_credentials.c.kind == "password"
    )
    if credential_id is not None and await conn.scalar(kept):
        await secrets.delete(conn, credential_id)


def _tidied_new(new: NewServer) -> NewServer:
    return replace(new, name=tidy(new.name), host=tidy_host(new.host), username=tidy(new.username))


def _tidied(change: Edit) -> dict[str, Any]:
    given = {one.name: getattr(change, one.name) for one in fields(change)}
    wanted = {name: value for name, value in given.items() if value is not UNCHANGED}
    for name, make in (("name", tidy), ("host", tidy_host), ("username", tidy), ("labels", dict)):
        if name in wanted:
            wanted[name] = make(wanted[name])
    return wanted


def _require_local_keeps(wanted: Mapping[str, Any], login: Login | None) -> None:
    fixed = [name for name in ("host", "port", "username", "jump_server_id") if name in wanted]
    if login is not None:
        fixed.append("auth")
    if fixed:
        message = "The console's own machine is reached without SSH; this cannot be changed."
        raise Invalid([FieldError(name, message) for name in fixed])


def _recorded(server: Server) -> dict[str, Any]:
    """What the audit log keeps of a server."""
    names = ("name", "host", "port", "username", "auth", "credential_id", "jump_server_id", "capability", "enabled")
    values = {name: getattr(server, name) for name in names}
    return {**values, "labels": dict(server.labels)}


def _differences(old: Server, new: Server) -> list[Change]:
    before, after = _recorded(old), _recorded(new)
    return [Change(name, before[name], after[name]) for name in before if before[name] != after[name]]


async def _store(conn: AsyncConnection, old: Server, new: Server) -> None:
    values = {**_recorded(new), "updated_at": datetime.now(UTC), **_status_after(old, new)}
    try:
        await conn.execute(update(servers).where(servers.c.id == old.id).values(**values))
    except IntegrityError as error:
        raise _taken(new.name) from error


def _status_after(old: Server, new: Server) -> dict[str, Any]:
    """Switched off it says so; switched on, nothing is known yet."""
    if old.enabled == new.enabled:
        return {}
    reason = None if new.enabled else "disabled"
    return {"status": "unknown", "status_reason": reason, "status_detail": None, "status_at": datetime.now(UTC)}
