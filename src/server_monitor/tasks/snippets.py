"""Saved commands: `systemctl restart {{unit}}`, with what may be put in place of `{{unit}}`.

A snippet is text for people. Whoever fills one puts each value into single quotes, and what comes out is asked for and
judged like any other command.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Change, Event
from server_monitor.auth.actor import Actor, Permission, audited, groups_allowing
from server_monitor.auth.users import UNCHANGED, Unchanged, require
from server_monitor.db.ids import MENTIONED, is_id, new_id
from server_monitor.db.tables import snippets
from server_monitor.errors import Conflict, Denied, FieldError, Invalid, NotFound
from server_monitor.fleet.fields import description_mistake, name_mistake, quoted, tidy
from server_monitor.tasks.run import command_mistake

SNIPPETS_MAX: Final = 500
PARAMETERS_MAX: Final = 20
DEFAULT_MAX: Final = 1_000  # characters
PATTERN_MAX: Final = 200

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}", re.ASCII)
_PLACEHOLDER = re.compile(r"\{\{([A-Za-z][A-Za-z0-9_]{0,31})\}\}", re.ASCII)
_READERS = (Permission.TASK_READ, Permission.TASK_RUN)


@dataclass(frozen=True, slots=True)
class Parameter:
    """What goes in place of `{{name}}`: a value that matches the pattern as a whole, where there is one."""

    name: str
    label: str = ""
    default: str | None = None
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class NewSnippet:
    name: str
    command: str
    description: str = ""
    parameters: Sequence[Parameter] = ()


@dataclass(frozen=True, slots=True)
class Snippet:
    id: str
    name: str
    description: str
    command: str
    parameters: Sequence[Parameter]
    created_at: datetime
    created_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Edit:
    """What to change about a snippet; the rest stays."""

    name: str | Unchanged = UNCHANGED
    description: str | Unchanged = UNCHANGED
    command: str | Unchanged = UNCHANGED
    parameters: Sequence[Parameter] | Unchanged = UNCHANGED


async def listing(conn: AsyncConnection, *, actor: Actor) -> list[Snippet]:
    """All snippets, by name, for whoever may see or run tasks anywhere. Raises Denied."""
    _require_reader(actor)
    found = map(_snippet, await conn.execute(select(snippets)))
    return sorted(found, key=lambda one: (one.name.casefold(), one.id))


async def get(conn: AsyncConnection, snippet_id: str, *, actor: Actor) -> Snippet:
    """Raises NotFound, and Denied as `listing` does."""
    _require_reader(actor)
    if not is_id(snippet_id):
        raise NotFound("snippet", snippet_id[:MENTIONED])
    found = (await conn.execute(select(snippets).where(snippets.c.id == snippet_id))).one_or_none()
    if found is None:
        raise NotFound("snippet", snippet_id)
    return _snippet(found)


async def create(conn: AsyncConnection, new: NewSnippet, *, actor: Actor) -> Snippet:
    """Appends `snippet.create`. Raises Invalid with every mistake, Conflict when the name is taken, Denied."""
    require(actor, Permission.SNIPPET_WRITE)
    now = datetime.now(UTC)
    made = _checked(
        Snippet(new_id(), new.name, new.description, new.command, tuple(new.parameters), now, actor.name, now)
    )
    if (await conn.execute(select(func.count()).select_from(snippets))).scalar_one() >= SNIPPETS_MAX:
        raise Conflict(f"There are {SNIPPETS_MAX} snippets already; delete one that nobody needs.")
    await _require_free(conn, made.name)
    try:
        await conn.execute(insert(snippets).values(**_values(made)))
    except IntegrityError as error:
        raise _taken(made.name) from error
    changes = [Change(name, None, value) for name, value in _recorded(made).items()]
    await log.append(conn, Event("snippet.create", audited(actor), _target(made), change=changes))
    return made


async def edit(conn: AsyncConnection, snippet_id: str, change: Edit, *, actor: Actor) -> Snippet:
    """Appends `snippet.update`, unless nothing changes. Raises as `create` does, and NotFound."""
    require(actor, Permission.SNIPPET_WRITE)
    old = await get(conn, snippet_id, actor=actor)
    wanted = {name: getattr(change, name) for name in ("name", "description", "command", "parameters")}
    new = _checked(replace(old, **{name: value for name, value in wanted.items() if value is not UNCHANGED}))
    before, after = _recorded(old), _recorded(new)
    changes = [Change(name, before[name], after[name]) for name in before if before[name] != after[name]]
    if not changes:
        return old
    if new.name != old.name:
        await _require_free(conn, new.name)
    new = replace(new, updated_at=datetime.now(UTC))
    try:
        await conn.execute(update(snippets).where(snippets.c.id == snippet_id).values(**_values(new)))
    except IntegrityError as error:
        raise _taken(new.name) from error
    await log.append(conn, Event("snippet.update", audited(actor), _target(new), change=changes))
    return new


async def remove(conn: AsyncConnection, snippet_id: str, *, actor: Actor) -> None:
    """Forget a snippet; what was run with it stays. Appends `snippet.delete`. Raises NotFound, Denied."""
    require(actor, Permission.SNIPPET_WRITE)
    gone = await get(conn, snippet_id, actor=actor)
    await conn.execute(delete(snippets).where(snippets.c.id == snippet_id))
    changes = [Change(name, value, None) for name, value in _recorded(gone).items()]
    await log.append(conn, Event("snippet.delete", audited(actor), _target(gone), change=changes))


# --- what a snippet may hold ------------------------------------------------------------------------------------------


def mistakes(snippet: Snippet) -> list[FieldError]:
    """Everything that is wrong with a tidied snippet, each with the name of its field."""
    found = [
        ("name", name_mistake(snippet.name)),
        ("description", description_mistake(snippet.description)),
        ("command", command_mistake(snippet.command)),
    ]
    if len(snippet.parameters) > PARAMETERS_MAX:
        found.append(("parameters", f"At most {PARAMETERS_MAX} parameters; these are {len(snippet.parameters)}."))
    else:
        found += _parameters_mistakes(snippet)
    return [FieldError(field, mistake) for field, mistake in found if mistake]


def _parameters_mistakes(snippet: Snippet) -> Iterator[tuple[str, str | None]]:
    used = list(dict.fromkeys(_PLACEHOLDER.findall(snippet.command)))
    known = [parameter.name for parameter in snippet.parameters]
    for name in used:
        if name not in known:
            yield "command", f"{{{{{name}}}}} has no parameter of this name; add one, or take it out."
    for index, parameter in enumerate(snippet.parameters):
        at = f"parameters.{index}"
        yield f"{at}.name", _parameter_name_mistake(parameter.name, known[:index], used)
        yield f"{at}.label", name_mistake(parameter.label) if parameter.label else None
        yield f"{at}.default", _default_mistake(parameter.default)
        yield f"{at}.pattern", _pattern_mistake(parameter.pattern)


def _parameter_name_mistake(name: str, earlier: Sequence[str], used: Sequence[str]) -> str | None:
    if not _NAME.fullmatch(name):
        return f"{quoted(name)} will not do: 1 to 32 letters, digits and _, beginning with a letter."
    if name in earlier:
        return f"There is a parameter {name} already."
    return None if name in used else f"The command has no {{{{{name}}}}}; put it there, or take the parameter out."


def _default_mistake(default: str | None) -> str | None:
    if default is None:
        return None
    if len(default) > DEFAULT_MAX:
        return f"At most {DEFAULT_MAX:,} characters; this has {len(default):,}."
    return "It holds a NUL, which no shell can be given." if "\0" in default else None


def _pattern_mistake(pattern: str | None) -> str | None:
    if pattern is None:
        return None
    if len(pattern) > PATTERN_MAX:
        return f"At most {PATTERN_MAX} characters; this has {len(pattern)}."
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        return f"This is no regular expression: {error}."
    return None


def _checked(snippet: Snippet) -> Snippet:
    """The snippet as it is stored. Raises Invalid with every mistake."""
    tidied = replace(
        snippet,
        name=tidy(snippet.name),
        description=tidy(snippet.description),
        command=snippet.command.replace("\r\n", "\n"),
        parameters=tuple(replace(one, label=tidy(one.label)) for one in snippet.parameters),
    )
    if found := mistakes(tidied):
        raise Invalid(found)
    return tidied


def _require_reader(actor: Actor) -> None:
    if all(groups_allowing(actor, permission) == frozenset() for permission in _READERS):
        raise Denied(f"This takes the permission {' or '.join(permission.value for permission in _READERS)}.")


async def _require_free(conn: AsyncConnection, name: str) -> None:
    if await conn.scalar(select(snippets.c.id).where(snippets.c.name == name)):
        raise _taken(name)


def _taken(name: str) -> Conflict:
    return Conflict(f"There is a snippet {quoted(name)} already. Give this one another name.")


def _target(snippet: Snippet) -> AuditTarget:
    return AuditTarget("snippet", snippet.id, snippet.name)


def _recorded(snippet: Snippet) -> dict[str, Any]:
    return {
        "name": snippet.name,
        "description": snippet.description,
        "command": snippet.command,
        "parameters": [asdict(parameter) for parameter in snippet.parameters],
    }


def _values(snippet: Snippet) -> Mapping[str, Any]:
    times = {"created_at": snippet.created_at, "created_by": snippet.created_by, "updated_at": snippet.updated_at}
    return {"id": snippet.id, **_recorded(snippet), **times}


def _snippet(row: Row[Any]) -> Snippet:
    return Snippet(
        row.id,
        row.name,
        row.description,
        row.command,
        tuple(Parameter(**one) for one in row.parameters),
        row.created_at,
        row.created_by,
        row.updated_at,
    )
