"""Routes for recordings of terminals: take one out, replay it, verify it, look for words in all of them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from server_monitor.api.deps import ActorDep, ConsoleDep, InstantParameter, json_response
from server_monitor.terminal import casting, searching
from server_monitor.terminal.library import Shown, Verification
from server_monitor.terminal.searching import Hit, Question

router = APIRouter(prefix="/api/terminal", tags=["recordings"])

Format = Literal["v2", "v3", "text"]
MEDIA_TYPES = {
    casting.V2: "application/x-asciicast",
    casting.V3: "application/x-asciicast",
    casting.TEXT: "text/plain; charset=utf-8",
}
NDJSON = "application/x-ndjson"


@router.get("/sessions/{session_id}/recording")
async def export_recording(
    session_id: str, parts: ConsoleDep, actor: ActorDep, form: Annotated[Format, Query(alias="format")] = "v3"
) -> Response:
    """The recording as a file: asciicast v3 or v2 for any player, or text. Recorded before the first byte.

    One that is damaged says so in its name, when that is known by then, and in its last line.
    """
    shown = await parts.recordings.show(session_id, form, "recording.export", actor=actor)
    suffix = "txt" if form == casting.TEXT else "cast"
    name = f"{session_id}-damaged" if shown.is_damaged else session_id
    headers = {"Content-Disposition": f'attachment; filename="{name}.{suffix}"'}
    return _streamed(shown, MEDIA_TYPES[form], headers)


@router.get("/sessions/{session_id}/replay")
async def replay_recording(session_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """The recording for the player of the page: asciicast v3, up to now when the session runs. Recorded before."""
    shown = await parts.recordings.show(session_id, casting.V3, "recording.view", actor=actor)
    return _streamed(shown, NDJSON, {})


@router.post("/sessions/{session_id}/verify")
async def verify_recording(session_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Hold the recording against the audit log: `intact`, `unproven`, `damaged` or `missing`, and what was found."""
    return json_response(verified(await parts.recordings.verify(session_id, actor=actor)))


@router.get("/search")
async def search_recordings(  # noqa: PLR0917  # Each is a filter.
    parts: ConsoleDep,
    actor: ActorDep,
    q: Annotated[str, Query(max_length=searching.LONGEST)],
    session_id: Annotated[str | None, Query(max_length=64)] = None,
    from_at: Annotated[InstantParameter | None, Query(alias="from")] = None,
    to_at: Annotated[InstantParameter | None, Query(alias="to")] = None,
    server_id: Annotated[str | None, Query(max_length=64)] = None,
    user_id: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=searching.LIMIT_MAX)] = searching.LIMIT,
    cursor: Annotated[str | None, Query(max_length=4_096)] = None,
) -> Response:
    """Lines that were shown and hold these words, newest session first; each answer takes about two seconds at most.

    There is more while `is_complete` is false: ask again with `next` as the cursor.
    """
    question = Question(q, from_at, to_at, server_id, user_id, session_id)
    found, following = await parts.recording_search.search(question, limit, cursor, actor=actor)
    return json_response(
        {
            "items": [_hit(hit) for hit in found.hits],
            "next": following,
            "is_complete": following is None,
            "not_searched": found.not_searched,
        }
    )


def verified(found: Verification) -> dict[str, Any]:
    return {
        "verdict": found.verdict.value,
        "findings": [{"code": one.code, "message": one.sentence, "chunk": one.chunk} for one in found.findings],
        "chunks": found.chunks,
        "head": found.head.hex(),
        "bytes": found.size_bytes,
    }


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "session_id": hit.session_id,
        "server_name": hit.server_name,
        "user_name": hit.user_name,
        "started_at": hit.started_at,
        "at_s": hit.at_s,
        "line": hit.line,
    }


def _streamed(shown: Shown, media_type: str, headers: dict[str, str]) -> Response:
    safe = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(shown.pieces(), media_type=media_type, headers=headers | safe)
