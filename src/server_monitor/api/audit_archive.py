"""Routes for keeping the audit log: its segments in the archive, what may be deleted when, and holds."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import Field

from server_monitor.api.deps import ActorDep, Body, ConsoleDep, json_response, require
from server_monitor.audit import holds
from server_monitor.audit.damage import reported
from server_monitor.audit.holds import Hold
from server_monitor.audit.housekeeping import Failed, Housekeeping, Standing, record_request
from server_monitor.audit.sealing import Row
from server_monitor.auth.actor import Permission, audited

router = APIRouter(prefix="/api/audit", tags=["audit"])

SHOWN = 1000  # segments in one answer: the newest


class NewHold(Body):
    """What to keep: the filters of the list, none of which are required."""

    name: Annotated[str, Field(max_length=1000)]
    reason: Annotated[str, Field(max_length=10_000)]
    filters: Annotated[dict[str, str], Field(max_length=32, default_factory=dict)]


@router.get("/segments")
async def segments(parts: ConsoleDep, actor: ActorDep) -> Response:
    """The archive: each segment with its size and state, and when the next records leave the database."""
    require(actor, Permission.AUDIT_READ)
    standing = await parts.housekeeping.standing(datetime.now(UTC))
    with reported():
        return json_response(_shown(parts.housekeeping, standing))


@router.post("/archive", status_code=202)
async def archive(parts: ConsoleDep, actor: ActorDep) -> Response:
    """Archive every record up to now, then delete what is old enough; `GET /api/audit/segments` shows how far it is."""
    require(actor, Permission.AUDIT_KEEP)
    await record_request(parts.db, audited(actor))
    parts.housekeeping.want_run()
    return json_response({"started": True}, 202)


@router.get("/holds")
async def list_holds(parts: ConsoleDep, actor: ActorDep) -> Response:
    """What must not be deleted, whatever its age."""
    require(actor, Permission.AUDIT_READ)
    async with parts.db.reading() as conn:
        return json_response({"items": [_hold(hold) for hold in await holds.active(conn)]})


@router.post("/holds", status_code=201)
async def add_hold(body: NewHold, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Keep what these filters choose in the database until the hold is removed."""
    require(actor, Permission.AUDIT_KEEP)
    async with parts.db.transaction() as conn:
        hold = await holds.add(conn, body.name, body.reason, body.filters, actor=audited(actor))
    return json_response(_hold(hold), 201)


@router.delete("/holds/{hold_id}", status_code=204)
async def remove_hold(hold_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Let go of a hold; what it kept goes with the next run when it is old enough."""
    require(actor, Permission.AUDIT_KEEP)
    async with parts.db.transaction() as conn:
        await holds.release(conn, hold_id, actor=audited(actor))
    return Response(status_code=204)


def _shown(housekeeping: Housekeeping, standing: Standing) -> dict[str, Any]:
    rules = housekeeping.rules
    return {
        "place": housekeeping.archive.url,
        "is_local": rules.is_own_archive,
        "retention_days": rules.retention_days,
        "cleanup_enabled": rules.is_on,
        "next_run_at": housekeeping.next_run_at,
        "is_running": housekeeping.is_running,
        "failure": _failure(housekeeping.failed),
        "lock_days": rules.lock_days,
        "next_deletion_at": standing.next_deletion_at,
        "obstacle": standing.verdict.obstacle,
        "hold": standing.verdict.hold,
        "first_seq": standing.min_index,
        "size": standing.size,
        "archived_bytes": sum(row.size_bytes for row in standing.segments),
        "total": len(standing.segments),
        "items": [_segment(row) for row in reversed(standing.segments[-SHOWN:])],
    }


def _failure(failed: Failed | None) -> dict[str, Any] | None:
    return None if failed is None else {"at": failed.at, "cause": failed.cause}


def _segment(row: Row) -> dict[str, Any]:
    return {
        "first_seq": row.first_seq,
        "end_seq": row.end_seq,
        "state": row.state,
        "place": row.place,
        "key": row.key,
        "version": row.version,
        "sha256": _hex(row.sha256),
        "root": _hex(row.root),
        "size_bytes": row.size_bytes,
        "oldest_at": row.oldest_at,
        "newest_at": row.newest_at,
        "sealed_at": row.sealed_at,
        "verified_at": row.verified_at,
        "pruned_at": row.pruned_at,
        "lock_mode": row.lock_mode,
        "locked_until": row.locked_until,
    }


def _hex(digest: object) -> str | None:
    """None for what somebody has put in its place."""
    return digest.hex() if isinstance(digest, bytes) else None


def _hold(hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.id,
        "name": hold.name,
        "reason": hold.reason,
        "filters": dict(hold.filters),
        "damaged": hold.is_damaged,
        "created_at": hold.created_at,
        "created_by": hold.created_by,
    }
