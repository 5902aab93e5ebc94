"""Routes for the audit log's proofs: checkpoints, the public key, proofs against checkpoints, whole verifications."""

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from server_monitor.api.deps import ActorDep, ConsoleDep, each_once, json_response, require
from server_monitor.audit import checkpoints, note, proofs, verifying
from server_monitor.audit.checkpoints import Made
from server_monitor.audit.damage import reported
from server_monitor.audit.verifying import Last, Running
from server_monitor.auth.actor import Permission, audited
from server_monitor.errors import NotFound, Unavailable

router = APIRouter(prefix="/api/audit", tags=["audit"], dependencies=[Depends(each_once)])

LARGEST_SEQ = 2**53 - 1  # of a record: its number is JSON
_SIGNED_NOTE = "text/plain"


@router.get("/checkpoint")
async def checkpoint(request: Request, parts: ConsoleDep, actor: ActorDep) -> Response:
    """The newest signed checkpoint: as JSON, or as the note itself with `Accept: text/plain`."""
    require(actor, Permission.AUDIT_READ)
    with reported():
        async with parts.db.reading() as conn:
            made = await checkpoints.newest(conn)
        shown = None if made is None else _shown(made)
    if made is None:
        raise Unavailable("No checkpoint has been made yet; the first follows within a second of the start.")
    if _SIGNED_NOTE in request.headers.get("accept", ""):
        return Response(made.note, media_type="text/plain; charset=utf-8")
    return json_response(shown)


@router.get("/key")
async def public_key(parts: ConsoleDep, actor: ActorDep) -> Response:
    """The public key that checkpoints are signed with, as one line to pin."""
    require(actor, Permission.AUDIT_READ)
    with reported():
        async with parts.db.reading() as conn:
            made = await checkpoints.newest(conn)
        origin = note.read(made.note)[0].origin if made else parts.signer.origin(1)
    return json_response({"origin": origin, "vkey": note.verifier_of(origin, parts.signer.key).vkey})


@router.get("/proof/{seq}")
async def proof(parts: ConsoleDep, actor: ActorDep, seq: Annotated[int, Path(ge=0, le=LARGEST_SEQ)]) -> Response:
    """What shows that record `seq` is in the log of the oldest checkpoint that covers it."""
    require(actor, Permission.AUDIT_READ)
    with reported():
        async with parts.db.reading() as conn:
            covering = await checkpoints.covering(conn, seq + 1)
            if covering is None:
                raise NotFound("audit record under a checkpoint", str(seq))
            path = await proofs.inclusion(conn, seq, covering.size)
        return json_response({"seq": seq, "proof": _encoded(path), "checkpoint": _shown(covering)})


@router.get("/consistency")
async def consistency(
    parts: ConsoleDep,
    actor: ActorDep,
    old_size: Annotated[int, Query(alias="from", ge=0, le=LARGEST_SEQ)],
    new_size: Annotated[int, Query(alias="to", ge=0, le=LARGEST_SEQ)],
) -> Response:
    """What shows that the log of `to` records begins with that of `from` records."""
    require(actor, Permission.AUDIT_READ)
    with reported():
        async with parts.db.reading() as conn:
            path = await proofs.consistency(conn, old_size, new_size)
    return json_response({"from": old_size, "to": new_size, "proof": _encoded(path)})


@router.post("/verify", status_code=202)
async def start_verification(parts: ConsoleDep, actor: ActorDep) -> Response:
    """Verify the whole log, database and archive, beside the console; `GET /api/audit/verify` has the verdict."""
    require(actor, Permission.AUDIT_EXPORT)
    running = await parts.verifying.start(audited(actor))
    return json_response({"running": _running(running)}, 202)


@router.get("/verify")
async def verification(parts: ConsoleDep, actor: ActorDep) -> Response:
    """How far a verification is, if one runs, and the last verdict: when, by whom, and what was found."""
    require(actor, Permission.AUDIT_READ)
    running = parts.verifying.running  # before the verdict, which is written before it is None
    async with parts.db.reading() as conn:
        last = await verifying.last(conn)
    return json_response(
        {
            "running": None if running is None else _running(running),
            "last": None if last is None else _last(last),
        }
    )


def _running(running: Running) -> dict[str, Any]:
    return {
        "started_at": running.started_at,
        "started_by": running.actor.name,
        "records": running.records,
        "total": running.total,
    }


def _last(last: Last) -> dict[str, Any]:
    return {
        "seq": last.seq,
        "at": last.at,
        "by": last.by,
        "outcome": last.outcome,
        "reason": last.reason,
        **last.said,
    }


def _shown(made: Made) -> dict[str, Any]:
    return {
        "size": made.size,
        "root": base64.b64encode(made.root).decode(),
        "note": made.note,
        "made_at": made.made_at,
        "why": made.why,
        "anchored_at": made.anchored_at,
    }


def _encoded(path: list[bytes]) -> list[str]:
    return [base64.b64encode(node).decode() for node in path]
