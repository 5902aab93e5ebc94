"""Holds: what must not be deleted from the database, whatever its age, named by the filters of a search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, Text, cast, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log, search, stated
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.audit.stated import Stated
from server_monitor.db.ids import new_id
from server_monitor.db.tables import audit_holds, audit_records
from server_monitor.errors import Conflict, FieldError, Invalid, NotFound

NAME_LIMIT = 128
REASON_LIMIT = 1000
_STORED_FILTERS = cast(audit_holds.c.filters, Text).label("filters")  # as text: what is damaged is still read


@dataclass(frozen=True, slots=True)
class Hold:
    """`filters` as `search.parse` takes them; none at all holds every record, and so does one that is damaged."""

    id: str
    name: str
    reason: str
    filters: Mapping[str, str]
    created_at: datetime
    created_by: str
    is_damaged: bool = False


async def add(conn: AsyncConnection, name: str, reason: str, filters: Mapping[str, str], *, actor: AuditActor) -> Hold:
    """Hold what these filters choose, now and later. The caller has asked whether `actor` may.

    Appends `audit.hold`. Raises Invalid naming each mistake, and Conflict when there is a hold of this name.
    """
    mistakes = _mistakes(name, reason)
    try:
        chosen = search.parse(filters).document()
    except Invalid as error:
        mistakes += [FieldError(f"filters.{mistake.field}", mistake.message) for mistake in error.errors]
    if mistakes:
        raise Invalid(mistakes)
    hold = Hold(new_id(), name.strip(), reason.strip(), chosen, datetime.now(UTC), actor.name[:NAME_LIMIT])
    try:
        async with conn.begin_nested():
            await conn.execute(insert(audit_holds).values(**_columns(hold)))
    except IntegrityError:
        raise Conflict(f"There is or was a hold named {hold.name!r}; choose another name.") from None
    await log.append(conn, _event(hold, actor, {"change": stated.ADD, "reason": hold.reason, "filters": dict(chosen)}))
    return hold


async def release(conn: AsyncConnection, identity: str, *, actor: AuditActor) -> Hold:
    """Let go of a hold, by its id or name; returns it. One that somebody took out of the table can be let go of, too.

    Appends `audit.hold`. Raises NotFound.
    """
    for hold in await active(conn):
        if identity in {hold.id, hold.name}:
            at = datetime.now(UTC)
            await conn.execute(update(audit_holds).where(audit_holds.c.id == hold.id).values(released_at=at))
            await log.append(conn, _event(hold, actor, {"change": stated.REMOVE}))
            return hold
    for hold_id, lost in (await _stated(conn)).items():
        if identity in {hold_id, lost.name}:
            return await _release_lost(conn, hold_id, lost, actor)
    raise NotFound("hold", identity)


async def _release_lost(conn: AsyncConnection, hold_id: str, lost: Stated, actor: AuditActor) -> Hold:
    """Let go of a hold that only the log knows any more."""
    hold = Hold(hold_id, lost.name, "", {}, datetime.now(UTC), actor.name, is_damaged=True)
    await log.append(conn, _event(hold, actor, {"change": stated.REMOVE}))
    return hold


async def active(conn: AsyncConnection) -> Sequence[Hold]:
    """Holds that hold, oldest first."""
    c = audit_holds.c
    columns = (c.id, c.name, c.reason, _STORED_FILTERS, c.created_at, c.created_by)
    found = select(*columns).where(c.released_at.is_(None)).order_by(c.created_at)
    return [_read(row) for row in await conn.execute(found)]


async def changed(conn: AsyncConnection) -> Sequence[Stated]:
    """Holds that the log states and the table has not, or otherwise: somebody has changed it by hand."""
    c = audit_holds.c
    kept = await conn.execute(select(c.id, _STORED_FILTERS).where(c.released_at.is_(None)))
    return stated.changed(await _stated(conn), {row[0]: stated.filters_of(row[1]) for row in kept})


def lost_words(name: str) -> str:
    return (
        f"The hold {name!r} was changed in the database by hand, so nothing is deleted. Hold again what it held "
        "(`audit hold add`), let go of it (`audit hold remove`), and ask who could write to the database."
    )


async def carry(conn: AsyncConnection, below: int, *, actor: AuditActor) -> None:
    """State anew the holds whose last statement lies before `below`, where the log is about to be cut.

    Appends `audit.hold` for each.
    """
    said = await _stated(conn)
    for hold in await active(conn):
        if hold.id not in said or said[hold.id].seq < below:
            meta = {"change": stated.KEEP, "reason": hold.reason, "filters": dict(hold.filters)}
            await log.append(conn, _event(hold, actor, meta))


async def _stated(conn: AsyncConnection) -> dict[str, Stated]:
    c = audit_records.c
    found = select(c.seq, c.body).where(c.action == stated.ACTION).order_by(c.seq)
    return stated.stated([(row.seq, row.body) for row in await conn.execute(found)])


async def first_covered(conn: AsyncConnection, hold: Hold, below: int) -> int | None:
    """The first record in the database before `below` that the hold covers."""
    conditions = search.parse(hold.filters).where()
    first = select(audit_records.c.seq).where(*conditions, audit_records.c.seq < below)
    seq: int | None = (await conn.execute(first.order_by(audit_records.c.seq).limit(1))).scalar()
    return seq


def _read(row: Row[Any]) -> Hold:
    given = stated.filters_of(row.filters)
    try:
        search.parse(given or {})
    except Invalid:
        given = None
    return Hold(row.id, row.name, row.reason, given or {}, row.created_at, row.created_by, is_damaged=given is None)


def _columns(hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.id,
        "name": hold.name,
        "reason": hold.reason,
        "filters": dict(hold.filters),
        "created_at": hold.created_at,
        "created_by": hold.created_by,
    }


def _event(hold: Hold, actor: AuditActor, meta: Mapping[str, Any]) -> Event:
    return Event("audit.hold", actor, AuditTarget("audit_hold", hold.id, hold.name), meta=meta)


def _mistakes(name: str, reason: str) -> list[FieldError]:
    mistakes = []
    if not 1 <= len(name.strip()) <= NAME_LIMIT or not name.isprintable():
        mistakes.append(FieldError("name", f"must be 1 to {NAME_LIMIT} printable characters"))
    if not 1 <= len(reason.strip()) <= REASON_LIMIT or "\0" in reason:
        mistakes.append(FieldError("reason", f"must be 1 to {REASON_LIMIT} characters: why is this kept?"))
    return mistakes
