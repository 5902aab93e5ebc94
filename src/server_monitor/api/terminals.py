"""Routes for terminals: ask for one, come back to it, look on, stop it, and the list of all there were."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlalchemy import Row

from server_monitor.api.deps import ActorDep, Body, Console, ConsoleDep, InstantParameter, json_response
from server_monitor.audit import cursor as cursors
from server_monitor.errors import Invalid
from server_monitor.telemetry.logs import request_context
from server_monitor.terminal import sessions
from server_monitor.terminal.sessions import Filters, Ticket
from server_monitor.terminal.states import CAUSES, COLS_MAX, ROWS_MAX, Kept, Purpose, Size, Status

router = APIRouter(prefix="/api/terminal", tags=["terminals"])

LIMIT_MAX = 1_000
_PURPOSE = b"terminal sessions\x00"

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX)]
_KEPT_SAID: Final = f"Any of {', '.join(f'`{one}`' for one in Kept)}: once with commas, or several times."


class OpenBody(Body):
    server_id: str = Field(max_length=64)
    cols: int = Field(80, ge=1, le=COLS_MAX)
    rows: int = Field(24, ge=1, le=ROWS_MAX)
    reason: str | None = Field(None, max_length=sessions.REASON_MAX)


class TicketBody(Body):
    """`attach` to type in one's own session again, `watch` to look on."""

    purpose: Purpose


class StopBody(Body):
    reason: str | None = Field(None, max_length=sessions.REASON_MAX)


@router.post("/sessions", status_code=201)
async def open_session(body: OpenBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Ask for a terminal. Its shell opens when the socket at `path` shows the ticket, within half a minute."""
    context = request_context.get()
    ticket = await parts.desk.ask(
        body.server_id,
        Size(body.cols, body.rows),
        body.reason,
        request_id=context.request_id if context else "",
        actor=actor,
    )
    return json_response({"id": ticket.session_id, **_ticket(ticket)}, 201)


@router.post("/sessions/{session_id}/ticket", status_code=201)
async def issue_ticket(session_id: str, body: TicketBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """A ticket for a session that runs, for whoever opened it or may stop it."""
    return json_response(_ticket(await parts.desk.issue(session_id, body.purpose, actor=actor)), 201)


@router.post("/sessions/{session_id}/stop")
async def stop_session(session_id: str, body: StopBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """End a session: one's own, or anybody's with terminal:stop.

    The answer may come before the last of it is recorded, and then says `is_ending`. Who comes second gets 409.
    """
    await parts.desk.stop(session_id, body.reason, actor=actor)
    async with parts.db.reading() as conn:
        row = await sessions.get(conn, session_id, actor=actor)
    # Since the row was read the session may have been let go of.
    return json_response({**_session(row, parts), "is_ending": row.status == Status.ACTIVE})


@router.get("/sessions/{session_id}")
async def get_session(session_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    async with parts.db.reading() as conn:
        row = await sessions.get(conn, session_id, actor=actor)
    return json_response(_session(row, parts))


@router.get("/sessions")
async def list_sessions(  # noqa: PLR0917  # Each is a filter.
    parts: ConsoleDep,
    actor: ActorDep,
    status: Status | None = None,
    server_id: Annotated[str | None, Query(max_length=64)] = None,
    user_id: Annotated[str | None, Query(max_length=64)] = None,
    recording: Annotated[list[str] | None, Query(max_length=len(Kept), description=_KEPT_SAID)] = None,
    from_at: Annotated[InstantParameter | None, Query(alias="from")] = None,
    to_at: Annotated[InstantParameter | None, Query(alias="to")] = None,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(max_length=1_024)] = None,
) -> Response:
    """Sessions, newest first: one's own, and those whose recordings one may read."""
    filters = Filters(status, server_id, user_id, from_at, to_at, _kept(recording))
    before = _place(cursor, parts) if cursor is not None else None
    async with parts.db.reading() as conn:
        rows, following = await sessions.page(conn, filters, limit, before, actor=actor)
    return json_response({"items": _sessions(rows, parts), "next": _cursor(following, parts)})


def _kept(given: Sequence[str] | None) -> Sequence[Kept] | None:
    if given is None:
        return None
    names = {name.strip() for text in given for name in text.split(",")}
    if not names <= set(Kept):
        raise Invalid.one("recording", f"must be one or more of {', '.join(Kept)}")
    return [Kept(name) for name in sorted(names)]


def _sessions(rows: Sequence[Row[Any]], parts: Console) -> list[dict[str, Any]]:
    return [_session(row, parts) for row in rows]


def _session(row: Row[Any], parts: Console) -> dict[str, Any]:
    written = parts.desk.written(row.id) or sessions.written(row)
    return {
        "id": row.id,
        "user_id": row.user_id,
        "user_name": row.user_name,
        "server_id": row.server_id,
        "server_name": row.server_name,
        "account": row.account,
        "reason": row.reason,
        "status": row.status,
        "cause": row.cause,
        "sentence": _sentence(row),
        "created_at": row.created_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "recording": row.recording if row.started_at is not None else None,
        "recording_bytes": written.size_bytes,
        "output_bytes": written.output_bytes,
        "chunks": written.chunks,
        "head": written.head.hex() or None,
        "verified_at": row.verified_at,
        "is_ending": row.status == Status.ACTIVE and parts.desk.is_ending(row.id),
        "is_attached": row.status == Status.ACTIVE and parts.desk.is_attached(row.id),
        "watchers": parts.desk.watchers(row.id) if row.status == Status.ACTIVE else [],
    }


def _sentence(row: Row[Any]) -> str | None:
    """Why it ended, in words."""
    if row.cause is None:
        return None
    return CAUSES.get(row.cause, f"The server could not be used: {row.cause}.")


def _ticket(ticket: Ticket) -> dict[str, str]:
    return {"ticket": ticket.secret, "path": f"/ws/terminal/{ticket.session_id}"}


def _cursor(place: tuple[datetime, str] | None, parts: Console) -> str | None:
    if place is None:
        return None
    return cursors.signed(orjson.dumps([place[0].isoformat(), place[1]]), _PURPOSE, parts.settings.jwt_secret)


def _place(cursor: str, parts: Console) -> tuple[datetime, str]:
    at, session_id = orjson.loads(cursors.unsigned(cursor, _PURPOSE, parts.settings.jwt_secret))
    return datetime.fromisoformat(at), session_id
