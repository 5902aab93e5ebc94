"""Pages of the audit log: which records the next page holds, on the snapshot that the first page fixed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import SecretStr
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import cursor, search
from server_monitor.audit.chain import AuditActor
from server_monitor.audit.cursor import Place
from server_monitor.audit.search import Filters
from server_monitor.db.tables import audit_head, audit_records, audit_segments
from server_monitor.errors import FieldError, Gone, Invalid

ASCENDING = "asc"
DESCENDING = "desc"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. `limit` None means everything."""

    filters: Filters
    format: str
    order: str
    limit: int | None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """The records of one page, counted and not yet read."""

    count: int
    following: Place | None
    records: Select[int, bytes]  # seq and body, in order


@dataclass(frozen=True, slots=True)
class Pruned:
    """What the database holds no longer: every record before `first_seq`, all of them from before `before`."""

    first_seq: int
    before: datetime


def parse(  # Each is a part of the question.
    given: Mapping[str, str],
    format: str,  # noqa: A002  # The word that users see.
    *,
    secret: SecretStr,
    actor: AuditActor,
    order: str = ASCENDING,
    most: int = search.MAX_LIMIT,
    usual: int = search.DEFAULT_LIMIT,
) -> Wanted:
    """The question that parameters ask. Raises Invalid naming those that are wrong.

    A cursor belongs to one person, format, order and set of filters; those may be left out beside it.
    """
    others = {name: text for name, text in given.items() if name not in {"limit", "order", "cursor"}}
    mistakes: list[FieldError] = []
    filters, limit, place = Filters(), usual, None
    try:
        filters = search.parse(others)
    except Invalid as error:
        mistakes += error.errors
    try:
        limit = search.parse_limit(given.get("limit"), most, usual)
    except Invalid as error:
        mistakes += error.errors
    try:
        order = _order(given.get("order", order))
        if "cursor" in given:
            place = cursor.read(given["cursor"], secret)
    except Invalid as error:
        mistakes += error.errors
    if mistakes:
        raise Invalid(mistakes)
    if place is None:
        return Wanted(filters, format, order, limit)
    return _continued(
        Wanted(filters, format, order, limit, place), actor, is_bare=not others, has_order="order" in given
    )


def user_of(actor: AuditActor) -> str:
    """Whom a cursor belongs to."""
    return actor.id or f"{actor.type} {actor.name}"


async def first_place(conn: AsyncConnection, wanted: Wanted, actor: AuditActor) -> Place:
    """Where the page begins. Raises Gone when records that a cursor leads to have been pruned since."""
    head = (await conn.execute(select(audit_head.c.size, audit_head.c.min_index))).one()
    if wanted.place is None:
        first = head.min_index if wanted.order == ASCENDING else head.size - 1
        document = wanted.filters.document()
        return Place(head.size, head.min_index, first, document, wanted.order, user_of(actor), wanted.format)
    _require_kept(wanted.place, head.min_index)
    return wanted.place


async def settled(conn: AsyncConnection, wanted: Wanted, place: Place) -> Place:
    """The same place in the transaction that reads the records, as more may have been pruned since it was found.

    A first page begins with what there is now. Raises Gone when records that a cursor leads to are not there any more.
    """
    min_index: int = (await conn.execute(select(audit_head.c.min_index))).scalar_one()
    if wanted.place is not None:
        _require_kept(place, min_index)
        return place
    oldest = max(place.oldest, min_index)
    return replace(
        place, oldest=oldest, next_seq=max(place.next_seq, oldest) if place.order == ASCENDING else place.next_seq
    )


async def pruned(conn: AsyncConnection, filters: Filters) -> Pruned | None:
    """What has been pruned, when the filters may have chosen some of it."""
    head = (await conn.execute(select(audit_head.c.min_index))).scalar_one()
    if head == 0:
        return None
    kept = select(func.min(audit_records.c.ts)).where(audit_records.c.seq == head)
    # The clock may have gone back since.
    gone = select(func.max(audit_segments.c.newest_at)).where(audit_segments.c.first_seq < head)
    times = [(await conn.execute(time)).scalar() for time in (kept, gone)]
    before = max((time for time in times if time is not None), default=None)
    if before is None or (filters.from_at is not None and filters.from_at > before):
        return None
    return Pruned(head, before)


def _require_kept(place: Place, min_index: int) -> None:
    still_to_come = place.next_seq if place.order == ASCENDING else place.oldest
    if min_index > still_to_come:
        raise Gone(
            f"The records before {min_index} were archived and pruned since the first page; begin anew, or take "
            "them from the archive."
        )


async def choose(conn: AsyncConnection, wanted: Wanted, place: Place) -> Page:
    """The page that begins at `place`; its records are to be read in the same transaction."""
    seq = audit_records.c.seq
    is_ascending = wanted.order == ASCENDING
    order = seq.asc() if is_ascending else seq.desc()
    bounds = [seq < place.snapshot, seq >= place.next_seq if is_ascending else seq <= place.next_seq]
    filters = wanted.filters.where()
    records = select(seq, audit_records.c.body).where(*bounds, *filters).order_by(order)
    count, beyond = _all(wanted, place)
    if filters:
        extra = None if wanted.limit is None else wanted.limit + 1
        chosen = records.with_only_columns(seq).limit(extra).subquery()
        last = func.max(chosen.c.seq) if is_ascending else func.min(chosen.c.seq)
        count, beyond = (await conn.execute(select(func.count(), last).select_from(chosen))).one()
    if wanted.limit is None or count <= wanted.limit:
        return Page(count, None, records)
    until = seq < beyond if is_ascending else seq > beyond
    return Page(wanted.limit, replace(place, next_seq=beyond), records.where(until))


def _all(wanted: Wanted, place: Place) -> tuple[int, int]:
    """How many records there are without filters, and which is the first of the next page: their numbers say so."""
    limit = wanted.limit or 0
    if wanted.order == ASCENDING:
        return place.snapshot - place.next_seq, place.next_seq + limit
    return place.next_seq - place.oldest + 1, place.next_seq - limit


def _order(text: str) -> str:
    if text not in {ASCENDING, DESCENDING}:
        raise Invalid.one("order", f"must be {ASCENDING} (oldest first) or {DESCENDING} (newest first)")
    return text


def _continued(wanted: Wanted, actor: AuditActor, *, is_bare: bool, has_order: bool) -> Wanted:
    place = wanted.place
    assert place is not None
    if place.user != user_of(actor):
        raise Invalid.one("cursor", "belongs to somebody else; leave it out to begin at the first page")
    if place.format != wanted.format:
        raise Invalid.one("cursor", f"belongs to another listing ({place.format})")
    if not is_bare and place.filters != wanted.filters.document():
        raise Invalid.one("cursor", "belongs to other filters; repeat those of the first page, or leave them out")
    if has_order and place.order != wanted.order:
        raise Invalid.one("cursor", f"belongs to the order {place.order}")
    return replace(wanted, filters=search.parse(place.filters), order=place.order)
