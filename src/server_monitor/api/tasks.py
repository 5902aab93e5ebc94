"""Routes for commands on servers: look before, run, watch, end, decide, try again."""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, SecretStr
from sqlalchemy import Row

from server_monitor.api import problems
from server_monitor.api.deps import (
    ActorDep,
    Body,
    Console,
    ConsoleDep,
    InstantParameter,
    json_response,
    optional_actor,
    required_actor,
)
from server_monitor.api.selector import SelectorBody
from server_monitor.fleet.selection import OBSTACLES, Chosen, Selector
from server_monitor.tasks import approval, asking, cancelling, listing, secret_names
from server_monitor.tasks.causes import CAUSES
from server_monitor.tasks.frames import Piece, frame
from server_monitor.tasks.listing import LIMIT_MAX, Filters
from server_monitor.tasks.output import READ_BYTES, STREAMS
from server_monitor.tasks.placing import Placed
from server_monitor.tasks.rows import get_run
from server_monitor.tasks.run import PARALLEL_DEFAULT, SECRETS_MAX, Order, Status, summary

router = APIRouter(prefix="/api", tags=["tasks"])

GROUPS_SHOWN = 200
GROUP_BYTES = 16_384

Stream = Literal["stdout", "stderr"]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX)]
WaitS = Annotated[float, Query(ge=0, le=30)]
Secrets = Annotated[
    dict[str, SecretStr], Field(description=f"Variables of the command by their names. Each name {secret_names.RULE}.")
]
Cursor = Annotated[str | None, Query(max_length=1_024)]


class CommandBody(Body):
    """What to run. `max_failures` failed servers stop the run; `canary` servers go first."""

    command: str
    timeout_seconds: int | None = None
    max_parallel: int = PARALLEL_DEFAULT
    max_failures: int | None = None
    canary: int = 0
    store_output: bool | None = None
    reason: str | None = None
    secrets: Secrets = Field(default_factory=dict)

    def order(self, parts: Console) -> Order:
        settings = parts.settings
        return Order(
            command=self.command.replace("\r\n", "\n"),
            timeout_s=settings.tasks_default_timeout if self.timeout_seconds is None else self.timeout_seconds,
            max_parallel=self.max_parallel,
            max_failures=self.max_failures,
            canary=self.canary,
            store_output=settings.tasks_store_output_default if self.store_output is None else self.store_output,
            reason=self.reason,
            secrets=_opened(self.secrets),
        )


class RunBody(CommandBody):
    selector: SelectorBody


class PreviewBody(Body):
    """A command and where it would run; `secret_names` are the variables that it would be given."""

    command: str
    selector: SelectorBody
    secret_names: list[str] = Field(default_factory=list, max_length=SECRETS_MAX)


class ApproveBody(Body):
    """`digest` is that of the run as the approver saw it."""

    digest: str | None = None


class RetryBody(Body):
    """The secrets of the run, which were not kept."""

    secrets: Secrets = Field(default_factory=dict)


class RejectBody(Body):
    reason: str | None = Field(None, max_length=1_000)


@router.post("/tasks/preview")
async def preview_run(body: PreviewBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Where a command would run, where not and why, and what the policy says. Nothing is started."""
    selector = body.selector.selector()
    seen = await asking.preview(parts.db, parts.rule, body.command, selector, body.secret_names, actor=actor)
    return json_response(
        {
            "servers": [_chosen(one) for one in seen.fit],
            "excluded": [_chosen(one) for one in seen.unfit],
            "verdict": seen.ruled.document,
        }
    )


@router.post("/tasks", status_code=202)
async def run_command(body: RunBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Run a command on the servers that are meant; 403 `policy_denied` when the policy does not allow it."""
    order = body.order(parts)
    placed = await asking.ask(parts.db, parts.rule, parts.vault, order, body.selector.selector(), actor=actor)
    return await _placed(parts, placed, actor)


@router.post("/servers/{server_id}/tasks", status_code=202)
async def run_command_there(server_id: str, body: CommandBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Run a command on one server."""
    selector = Selector(servers=[server_id])
    placed = await asking.ask(parts.db, parts.rule, parts.vault, body.order(parts), selector, actor=actor)
    return await _placed(parts, placed, actor)


@router.get("/tasks")
async def list_tasks(  # noqa: PLR0917  # Each is a filter.
    parts: ConsoleDep,
    actor: ActorDep,
    run_id: str | None = None,
    server_id: str | None = None,
    status: Status | None = None,
    user_id: str | None = None,
    from_at: Annotated[InstantParameter | None, Query(alias="from")] = None,
    to_at: Annotated[InstantParameter | None, Query(alias="to")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Tasks, newest first."""
    filters = Filters(run_id, server_id, status, user_id, from_at, to_at)
    async with parts.db.reading() as conn:
        rows, following = await listing.task_page(conn, filters, limit, cursor, actor=actor)
    return json_response({"items": [_task(row) for row in rows], "next": following})


@router.get("/runs")
async def list_runs(  # noqa: PLR0917
    parts: ConsoleDep,
    actor: ActorDep,
    server_id: str | None = None,
    status: Status | None = None,
    user_id: str | None = None,
    from_at: Annotated[InstantParameter | None, Query(alias="from")] = None,
    to_at: Annotated[InstantParameter | None, Query(alias="to")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Runs, newest first, each with how far it is."""
    filters = Filters(None, server_id, status, user_id, from_at, to_at)
    async with parts.db.reading() as conn:
        rows, following = await listing.run_page(conn, filters, limit, cursor, actor=actor)
        counts = await listing.counts(conn, [row.id for row in rows], actor=actor)
        decidable = await approval.decidable(conn, rows, actor=actor, now=datetime.now(UTC))
    items = [_run(row, counts[row.id], may_decide=row.id in decidable) for row in rows]
    return json_response({"items": items, "next": following})


@router.get("/runs/{run_id}")
async def one_run(run_id: str, request: Request, parts: ConsoleDep, actor: ActorDep, wait_s: WaitS = 0) -> Response:
    """One run: what was asked, what the policy said, who decided, and how far it is.

    With `wait_s` the answer comes when the run is over, at the latest after so many seconds.
    """
    if wait_s > 0:
        await parts.patience.until_over(run_id, wait_s, actor=actor)
        actor = await required_actor(await optional_actor(request))  # who may have lost the right to it meanwhile
    async with parts.db.reading() as conn:
        return json_response(await _run_document(parts, conn, run_id, actor))


@router.get("/runs/{run_id}/outputs")
async def run_outputs(run_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """The tasks of a run that have ended, those with the same output and exit code together, largest group first.

    The first 200 groups come with the first 16 KiB of what they printed. Where there is more, `stdout_sent_bytes` is
    less than `stdout_bytes`, and of a later group the text is null: GET /api/tasks/{task_id} of one of its tasks has
    more, and its /output has all.
    """
    async with parts.db.reading() as conn:
        await get_run(conn, run_id, actor=actor)
        rows = await listing.same_outputs(conn, run_id, actor=actor)
        groups = _grouped(rows)
        shown = [group["tasks"][0]["id"] for group in groups[:GROUPS_SHOWN] if group["has_output"]]
        kept = await listing.heads(conn, shown, GROUP_BYTES)
    for group in groups:
        group.update(_heads(kept.get(group["tasks"][0]["id"])))
    return json_response({"items": groups, "next": None})


@router.post("/runs/{run_id}/cancel")
async def cancel_run(run_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """End every task of a run that is not over."""
    async with parts.db.transaction() as conn:
        await cancelling.cancel_run(conn, run_id, actor=actor, now=datetime.now(UTC))
    return await _run_now(parts, run_id, actor)


@router.post("/runs/{run_id}/approve")
async def approve_run(run_id: str, body: ApproveBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Let a run begin that waits for a second person."""
    async with parts.db.transaction() as conn:
        await approval.approve(conn, run_id, body.digest, actor=actor, now=datetime.now(UTC))
    return await _run_now(parts, run_id, actor)


@router.post("/runs/{run_id}/reject")
async def reject_run(run_id: str, body: RejectBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Refuse a run that waits for a second person."""
    async with parts.db.transaction() as conn:
        await approval.reject(conn, run_id, body.reason, actor=actor, now=datetime.now(UTC))
    return await _run_now(parts, run_id, actor)


@router.post("/runs/{run_id}/retry-failed", status_code=202)
async def retry_run(run_id: str, body: RetryBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Run the same command again on the servers where it did not succeed; `left_out` says on which not, and why."""
    secrets = _opened(body.secrets)
    retried = await asking.retry(parts.db, parts.rule, parts.vault, run_id, secrets, actor=actor)
    return await _placed(parts, retried.placed, actor, left_out=[asdict(one) for one in retried.left_out])


@router.get("/tasks/{task_id}")
async def one_task(task_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """One task, with the first bytes of what it printed."""
    async with parts.db.reading() as conn:
        row = await listing.task(conn, task_id, actor=actor)
        kept = await listing.output(conn, task_id)
    live = parts.outputs.live(task_id)
    heads = {name: bytes(live.streams[name].head) if live else getattr(kept, name) if kept else b"" for name in STREAMS}
    return json_response(_task(row) | _heads(heads))


@router.get("/tasks/{task_id}/output")
async def task_output(  # noqa: PLR0917
    task_id: str,
    parts: ConsoleDep,
    actor: ActorDep,
    stream: Stream = "stdout",
    offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
    follow: bool = False,
    framed: bool = False,
) -> Response:
    """What a task printed, as bytes from `offset` on; with `follow` as it comes, until the task is over.

    With `framed` before every piece of it stands a line with where the piece begins and its length in bytes. While a
    task runs, a piece that begins behind the end of the one before says how many bytes between them are gone, because
    there was more than is kept.
    """
    async with parts.db.reading() as conn:
        row = await listing.task(conn, task_id, actor=actor)
        kept = await listing.output(conn, task_id)
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'attachment; filename="{task_id}.{stream}"',
        "X-Task-Status": row.status,
    }
    live = parts.outputs.live(task_id)
    if live is not None:
        spool = live.streams[stream]
        headers["X-Total-Bytes"] = str(spool.total_bytes)
        pieces = live.read_on(stream, offset) if follow else live.read_now(stream, offset)
        body = _in_frames(pieces) if framed else _bare(pieces)
        return StreamingResponse(body, media_type="application/octet-stream", headers=headers)
    total = getattr(kept, f"{stream}_bytes") if kept else 0
    headers["X-Total-Bytes"] = str(total)
    path = parts.outputs.path(task_id, stream)
    if kept is not None and total > len(getattr(kept, stream)) and path.exists():
        stored = _file(path, offset)
        data = map(frame, stored) if framed else (piece.data for piece in stored)
        return StreamingResponse(data, media_type="application/octet-stream", headers=headers)
    head = getattr(kept, stream)[offset:] if kept else b""
    head = frame(Piece(offset, head)) if framed and head else head
    return Response(head, media_type="application/octet-stream", headers=headers)


@router.post("/tasks/{task_id}/cancel")
async def cancel_task(task_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """End one task; while its host has not confirmed it, it is still running."""
    async with parts.db.transaction() as conn:
        await cancelling.cancel_task(conn, task_id, actor=actor, now=datetime.now(UTC))
    parts.dispatcher.wake()
    async with parts.db.reading() as conn:
        return json_response(_task(await listing.task(conn, task_id, actor=actor)))


@router.post("/tasks/{task_id}/approve")
async def approve_task(task_id: str, body: ApproveBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Approve the run of this task."""
    return await approve_run(await _run_of(parts, task_id, actor), body, parts, actor)


@router.post("/tasks/{task_id}/reject")
async def reject_task(task_id: str, body: RejectBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Refuse the run of this task."""
    return await reject_run(await _run_of(parts, task_id, actor), body, parts, actor)


@router.post("/tasks/{task_id}/retry-failed", status_code=202)
async def retry_task(task_id: str, body: RetryBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Try the run of this task again where it did not succeed."""
    return await retry_run(await _run_of(parts, task_id, actor), body, parts, actor)


async def _run_of(parts: Console, task_id: str, actor: ActorDep) -> str:
    async with parts.db.reading() as conn:
        return str((await listing.task(conn, task_id, actor=actor)).run_id)


async def _placed(parts: Console, placed: Placed, actor: ActorDep, **more: Any) -> Response:
    parts.dispatcher.wake()
    async with parts.db.reading() as conn:
        run = await get_run(conn, placed.run_id, actor=actor)
    if placed.status is Status.DENIED:
        return problems.policy_denied(run.verdict)
    document = {
        "run_id": placed.run_id,
        "verdict": run.verdict,
        "status": placed.status,
        "tasks": [
            {"id": task_id, "server_id": server.id, "server_name": server.name, "status": status}
            for task_id, server, status in placed.tasks
        ],
    }
    return json_response(document | more, 202)


async def _run_now(parts: Console, run_id: str, actor: ActorDep) -> Response:
    parts.dispatcher.wake()
    async with parts.db.reading() as conn:
        return json_response(await _run_document(parts, conn, run_id, actor))


async def _run_document(_parts: Console, conn: Any, run_id: str, actor: ActorDep) -> dict[str, Any]:
    row = await get_run(conn, run_id, actor=actor)
    counts = await listing.counts(conn, [run_id], actor=actor)
    decidable = await approval.decidable(conn, [row], actor=actor, now=datetime.now(UTC))
    selector = await listing.seen_selector(conn, row, actor=actor)
    return _run(row, counts[run_id], may_decide=run_id in decidable) | {"verdict": row.verdict, "selector": selector}


def _run(row: Row[Any], counts: Mapping[str, int], *, may_decide: bool) -> dict[str, Any]:
    return {
        "id": row.id,
        "command": row.command,
        "user_id": row.user_id,
        "user_name": row.user_name,
        "reason": row.reason,
        "retry_of": row.retry_of,
        "ruling": row.ruling,
        "rule": row.verdict.get("rule"),
        "digest": row.digest,
        "timeout_seconds": row.timeout_s,
        "max_parallel": row.max_parallel,
        "max_failures": row.max_failures,
        "canary": row.canary,
        "store_output": row.store_output,
        "secret_names": row.secret_names,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "decision": row.decision,
        "decided_at": row.decided_at,
        "decided_by": row.decided_by,
        "decided_name": row.decided_name,
        "may_decide": may_decide,
        "cancelled_at": row.cancelled_at,
        "cancelled_name": row.cancelled_name,
        "finished_at": row.finished_at,
        "progress": summary(counts),
    }


def _task(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "run_id": row.run_id,
        "server_id": row.server_id,
        "server_name": row.server_name,
        "command": row.command,
        "status": row.status,
        "cause": row.cause,
        "sentence": CAUSES.get(row.cause) if row.cause else None,
        "detail": row.detail,
        "mode": row.mode,
        "exit_code": row.exit_code,
        "user_id": row.user_id,
        "user_name": row.user_name,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "cancel_requested_at": row.cancel_requested_at,
        "stdout_bytes": row.stdout_bytes,
        "stderr_bytes": row.stderr_bytes,
        "truncated": bool(row.truncated),
    }


def _chosen(one: Chosen) -> dict[str, Any]:
    server = one.server
    return {
        "id": server.id,
        "name": server.name,
        "status": server.status,
        "capability": server.capability,
        "obstacle": one.obstacle,
        "sentence": OBSTACLES[one.obstacle] if one.obstacle else None,
    }


def _grouped(rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """Tasks with the same state, exit code, cause and output, largest group first."""
    groups: dict[tuple[object, ...], dict[str, Any]] = {}
    for row in rows:
        key = (row.status, row.exit_code, row.cause, row.digest)
        group = groups.setdefault(
            key,
            {
                "status": row.status,
                "exit_code": row.exit_code,
                "cause": row.cause,
                "sentence": CAUSES.get(row.cause) if row.cause else None,
                "has_output": row.digest is not None,
                "stdout_bytes": row.stdout_bytes or 0,
                "stderr_bytes": row.stderr_bytes or 0,
                "tasks": [],
            },
        )
        group["tasks"].append(
            {"id": row.id, "server_id": row.server_id, "server_name": row.server_name, "detail": row.detail}
        )
    return sorted(groups.values(), key=lambda group: -len(group["tasks"]))


def _heads(streams: Mapping[str, bytes] | None) -> dict[str, Any]:
    """The beginning of both streams as text, and how many bytes that is; null where it is not sent."""
    heads: dict[str, Any] = {}
    for name in STREAMS:
        head = None if streams is None else streams[name]
        heads |= {name: None if head is None else _text(head), f"{name}_sent_bytes": len(head or b"")}
    return heads


def _opened(secrets: Mapping[str, SecretStr]) -> dict[str, str]:
    return {name: value.get_secret_value() for name, value in secrets.items()}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _file(path: Path, offset: int) -> Iterator[Piece]:
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(READ_BYTES):
            yield Piece(offset, data)
            offset += len(data)


async def _in_frames(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        async for piece in pieces:
            yield frame(piece)


async def _bare(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece.data
