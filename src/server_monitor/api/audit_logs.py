"""Routes for reading the audit log: the list, one record, and exports that stream."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

import orjson
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from starlette.types import Receive, Scope, Send

from server_monitor.api.deps import ActorDep, Console, ConsoleDep, each_once, encoded_json, json_response, require
from server_monitor.audit import bundle, cells, cursor, export, pages
from server_monitor.auth.actor import Actor, Permission, audited
from server_monitor.db.tables import audit_records
from server_monitor.errors import NotFound
from server_monitor.telemetry.logs import logger

router = APIRouter(prefix="/api", tags=["audit"], dependencies=[Depends(each_once)])

LIST_LIMIT = 100
MAX_LIST_LIMIT = 1000
# A reader that takes nothing for so long, or not all of it in this time, has left: its snapshot is let go.
STALLED_S = 30
WHOLE_S = 900
LARGEST_SEQ = 2**53 - 1  # of a record: its number is JSON

_log = logger(__name__)


class Search(BaseModel):
    """Filters of the audit log. Each is text here, so that the one who knows what it may be can say what is wrong."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)

    from_: str | None = Field(None, alias="from", description="A time (RFC 3339), or a date: from its beginning, UTC.")
    to: str | None = Field(None, description="A time, not included, or a date: to its end, UTC.")
    user_id: str | None = Field(None, description="Whose actions.")
    action: str | None = Field(None, description="An action such as `auth.login`, or a family such as `auth.*`.")
    target_type: str | None = Field(None, description="What kind of thing was acted upon.")
    target_id: str | None = Field(None, description="Which thing was acted upon.")
    outcome: str | None = Field(None, description="`success`, `failure`, `denied`, `error` or `unknown`.")
    ip: str | None = Field(None, description="Where from.")
    request_id: str | None = Field(None, description="Through which request.")
    order: str | None = Field(None, description="`asc`: oldest first; `desc`: newest first.")
    limit: str | None = Field(None, description="How many records at most; more than the maximum is refused.")
    cursor: str | None = Field(None, description="The `next` of the page before.")

    def given(self) -> dict[str, str]:
        return self.model_dump(by_alias=True, exclude_none=True)


SearchQuery = Annotated[Search, Query()]


@router.get("/audit-logs")
async def audit_logs(parts: ConsoleDep, actor: ActorDep, search: SearchQuery) -> Response:
    """Records of the audit log, newest first unless `order` says otherwise; at most 1,000 at a time."""
    require(actor, Permission.AUDIT_READ)
    secret, who = parts.settings.jwt_secret, audited(actor)
    wanted = pages.parse(
        search.given(),
        "list",
        secret=secret,
        actor=who,
        order=pages.DESCENDING,
        most=MAX_LIST_LIMIT,
        usual=LIST_LIMIT,
    )
    async with parts.db.reading() as conn:
        page = await pages.choose(conn, wanted, await pages.first_place(conn, wanted, who))
        records = (await conn.execute(page.records)).all()
    items = await asyncio.to_thread(cells.json_items, records)
    following = None if page.following is None else cursor.seal(page.following, secret)
    return encoded_json(b'{"items":[%s],"next":%s}' % (items, orjson.dumps(following)))


@router.get("/audit-logs/{seq}")
async def audit_log(parts: ConsoleDep, actor: ActorDep, seq: Annotated[int, Path(ge=0, le=LARGEST_SEQ)]) -> Response:
    """One whole record, as it was written, and its leaf hash; `{"unreadable": true}` for one that was tampered with."""
    require(actor, Permission.AUDIT_READ)
    async with parts.db.reading() as conn:
        body = (await conn.execute(select(audit_records.c.body).where(audit_records.c.seq == seq))).scalar()
    if body is None:
        raise NotFound("audit record", str(seq))
    return json_response(cells.whole_record(seq, body))


@router.get("/export/audit/csv")
async def export_csv(parts: ConsoleDep, actor: ActorDep, search: SearchQuery) -> Response:
    """Records as CSV (RFC 4180), oldest first unless `order` says otherwise; at most 50,000 at a time."""
    return _export(parts, actor, export.CSV, search)


@router.get("/export/audit/json")
async def export_json(parts: ConsoleDep, actor: ActorDep, search: SearchQuery) -> Response:
    """Records as one JSON object with `items`, `count`, `next` and `checkpoint`; at most 50,000 at a time."""
    return _export(parts, actor, export.JSON, search)


@router.get("/audit/bundle")
async def audit_bundle(
    parts: ConsoleDep,
    actor: ActorDep,
    archive: Annotated[bool, Query(description="Begin with the first record ever, out of the archive.")] = False,
) -> Response:
    """The log with its checkpoints and a verifier, as one `.tar.gz` that can be checked anywhere."""
    require(actor, Permission.AUDIT_EXPORT)
    started = bundle.started(parts.db, parts.signer, actor=audited(actor), is_whole=archive)
    return _Streamed(parts, actor, started, bundle.MEDIA_TYPE, bundle.filename(parts.db.node, datetime.now(UTC)))


def _export(parts: Console, actor: Actor, form: str, search: Search) -> Response:
    require(actor, Permission.AUDIT_EXPORT)
    secret = parts.settings.jwt_secret
    wanted = pages.parse(search.given(), form, secret=secret, actor=audited(actor))
    started = export.started(parts.db, parts.signer, secret, wanted, actor=audited(actor))
    name = export.filename(wanted, parts.db.node, datetime.now(UTC))
    return _Streamed(parts, actor, started, export.MEDIA_TYPES[form], name)


class Running(Protocol):
    """An export or a bundle that is recorded as begun."""

    was_delivered: bool
    rows: int

    @property
    def headers(self) -> Mapping[str, str]: ...

    def chunks(self) -> AsyncGenerator[bytes, None]: ...

    def delivered(self) -> None: ...


class _Streamed(Response):
    """The answer of an export.

    It begins when the export is recorded, and its last, empty chunk is only sent when the export's end is too: whoever
    has received a whole answer knows that both are in the log.
    """

    def __init__(
        self, parts: Console, actor: Actor, started: AbstractAsyncContextManager[Running], media_type: str, name: str
    ) -> None:
        super().__init__(media_type=media_type)
        self._turn = parts.exports.taken_by(pages.user_of(audited(actor)))
        self._started = started
        self._name = name

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        with self._turn:
            async with self._started as running:
                await send({"type": "http.response.start", "status": 200, "headers": self._raw(running.headers)})
                if await _has_arrived(running, receive, send):
                    running.delivered()
        if running.was_delivered:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _raw(self, known: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        headers = {
            "Content-Type": str(self.media_type),
            "Content-Disposition": f'attachment; filename="{self._name}"',
            "Cache-Control": "no-store",
            **known,
        }
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def _has_arrived(running: Running, receive: Receive, send: Send) -> bool:
    """Send all there is. False when the client left, or takes so long that it might as well have."""
    left = asyncio.Event()
    ready: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)  # One chunk is made while another is sent.
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(_notice_leaving(receive, left))
        making = tasks.create_task(_make(running, ready, left))
        try:
            async with asyncio.timeout(WHOLE_S):
                while (chunk := await ready.get()) is not None:
                    async with asyncio.timeout(STALLED_S):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TimeoutError:
            _log.warning("export_stalled", rows=running.rows)
            left.set()
            making.cancel()
        watch.cancel()
    return not left.is_set()


async def _make(running: Running, ready: "asyncio.Queue[bytes | None]", left: asyncio.Event) -> None:
    """Put the chunks, and None after the last; no more of them once the client has left."""
    async with aclosing(running.chunks()) as chunks:
        async for chunk in chunks:
            if left.is_set():
                break
            await ready.put(chunk)
    await ready.put(None)


async def _notice_leaving(receive: Receive, left: asyncio.Event) -> None:
    message: dict[str, Any] = {}
    while message.get("type") != "http.disconnect":
        message = dict(await receive())
    left.set()
