"""Who may do what: one table and one function.

Roles are granted globally or for a group of servers. A permission about servers is held through the global role or
through the role in any group that the server belongs to; what concerns their own account by everybody who is logged in;
every other permission only through the global role. An API token further narrows its user by scope and never widens.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NewType

from server_monitor.audit.chain import AuditActor

UserId = NewType("UserId", str)
GroupId = NewType("GroupId", str)
ServerId = NewType("ServerId", str)


class Role(StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    VIEWER = "viewer"


class Permission(StrEnum):
    SERVER_READ = "server:read"
    SERVER_WRITE = "server:write"
    HOST_TRUST = "host:trust"
    GROUP_READ = "group:read"
    GROUP_WRITE = "group:write"
    USER_READ = "user:read"
    USER_WRITE = "user:write"
    KEY_READ = "key:read"
    KEY_WRITE = "key:write"
    AUDIT_READ = "audit:read"
    AUDIT_EXPORT = "audit:export"
    AUDIT_KEEP = "audit:keep"
    TASK_READ = "task:read"
    TASK_RUN = "task:run"
    TASK_APPROVE = "task:approve"
    SNIPPET_WRITE = "snippet:write"
    TERMINAL_OPEN = "terminal:open"
    TERMINAL_STOP = "terminal:stop"
    RECORDING_READ = "recording:read"
    FILE_COPY = "file:copy"
    METRICS_READ = "metrics:read"
    TOKEN_OWN = "token:own"  # noqa: S105  # A permission's name, not a secret.
    SESSION_OWN = "session:own"


class Scope(StrEnum):
    """What an API token may be used for at most."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"
    METRICS = "metrics"


_WORK = frozenset(
    {
        Permission.TASK_READ,
        Permission.TASK_RUN,
        Permission.TASK_APPROVE,
        Permission.SNIPPET_WRITE,
        Permission.KEY_READ,
        Permission.TERMINAL_OPEN,
        Permission.FILE_COPY,
    }
)
_LOOK = frozenset({Permission.SERVER_READ, Permission.GROUP_READ, Permission.TOKEN_OWN, Permission.SESSION_OWN})

ROLE_PERMISSIONS: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.ADMIN: frozenset(Permission),
        Role.OPERATOR: _LOOK | _WORK,
        Role.AUDITOR: _LOOK
        | {
            Permission.AUDIT_READ,
            Permission.AUDIT_EXPORT,
            Permission.USER_READ,
            Permission.TASK_READ,
            Permission.RECORDING_READ,
        },
        Role.VIEWER: _LOOK,
    }
)

ROLE_MEANINGS: Mapping[Role, str] = MappingProxyType(
    {
        Role.ADMIN: "everything",
        Role.OPERATOR: "works on servers where granted",
        Role.AUDITOR: "reads everything about the past and changes nothing",
        Role.VIEWER: "looks",
    }
)

_READS = frozenset(
    {
        Permission.SERVER_READ,
        Permission.GROUP_READ,
        Permission.USER_READ,
        Permission.KEY_READ,
        Permission.AUDIT_READ,
        Permission.AUDIT_EXPORT,
        Permission.TASK_READ,
        Permission.RECORDING_READ,
    }
)

SCOPE_PERMISSIONS: Mapping[Scope, frozenset[Permission]] = MappingProxyType(
    {
        Scope.READ: _READS,
        Scope.OPERATE: _READS
        | {Permission.TASK_RUN, Permission.SNIPPET_WRITE, Permission.TERMINAL_OPEN, Permission.FILE_COPY},
        # A token can never mint tokens, end sessions of people or be the second person: that takes a person.
        Scope.ADMIN: frozenset(Permission) - {Permission.TOKEN_OWN, Permission.SESSION_OWN, Permission.TASK_APPROVE},
        Scope.METRICS: frozenset({Permission.METRICS_READ}),
    }
)

# What people do with their own account: whoever is logged in may, even with no role at all.
OWN = frozenset({Permission.TOKEN_OWN, Permission.SESSION_OWN})
PER_GROUP = frozenset(
    {
        Permission.SERVER_READ,
        Permission.SERVER_WRITE,
        Permission.HOST_TRUST,
        Permission.GROUP_READ,
        Permission.TASK_READ,
        Permission.TASK_RUN,
        Permission.TASK_APPROVE,
        Permission.TERMINAL_OPEN,
        Permission.TERMINAL_STOP,
        Permission.RECORDING_READ,
        Permission.FILE_COPY,
    }
)


class ActorKind(StrEnum):
    USER = "user"
    TOKEN = "token"  # noqa: S105  # A kind of actor, not a secret.
    SYSTEM = "system"
    ANONYMOUS = "anonymous"
    OS_USER = "os_user"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is asking. `scopes` is None for a person and the token's scopes for a token."""

    kind: ActorKind
    id: str | None
    name: str
    role: Role | None = None
    group_roles: Mapping[GroupId, Role] = field(default_factory=dict)
    scopes: frozenset[Scope] | None = None
    token_id: str | None = None
    session_id: str | None = None


SYSTEM = Actor(ActorKind.SYSTEM, None, "system", Role.ADMIN)
ANONYMOUS = Actor(ActorKind.ANONYMOUS, None, "anonymous")


def os_user(name: str) -> Actor:
    """Whoever runs an administrative command on the console's machine: they hold its files, so they are admin."""
    return Actor(ActorKind.OS_USER, None, name, Role.ADMIN)


def audited(actor: Actor) -> AuditActor:
    """The actor as the audit log stores it: plain strings that outlive the account."""
    roles = (actor.role.value,) if actor.role else ()
    return AuditActor(actor.kind.value, actor.id, actor.name, roles, actor.session_id, actor.token_id)


def allows(actor: Actor, permission: Permission, groups: Collection[GroupId] = ()) -> bool:
    """May `actor` do this, to something that belongs to `groups`?"""
    if permission in OWN:
        return actor.kind is ActorKind.USER
    if not scopes_allow(actor, permission):
        return False
    if _role_allows(actor.role, permission):
        return True
    if permission not in PER_GROUP:
        return False
    return any(_role_allows(actor.group_roles.get(group), permission) for group in groups)


def groups_allowing(actor: Actor, permission: Permission) -> frozenset[GroupId] | None:
    """The groups through which `actor` holds `permission`; None when they hold it everywhere."""
    if permission in OWN:
        return None if actor.kind is ActorKind.USER else frozenset()
    if not scopes_allow(actor, permission):
        return frozenset()
    if _role_allows(actor.role, permission):
        return None
    if permission not in PER_GROUP:
        return frozenset()
    return frozenset(group for group, role in actor.group_roles.items() if _role_allows(role, permission))


def scopes_allow(actor: Actor, permission: Permission) -> bool:
    """Is this not beyond the scopes of the token that asks? Nothing is beyond a person."""
    return actor.scopes is None or any(permission in SCOPE_PERMISSIONS[scope] for scope in actor.scopes)


def _role_allows(role: Role | None, permission: Permission) -> bool:
    return role is not None and permission in ROLE_PERMISSIONS[role]
