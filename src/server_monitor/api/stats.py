"""Routes for numbers about the whole fleet."""

from collections import Counter

from fastapi import APIRouter, Response

from server_monitor.api.deps import ActorDep, ConsoleDep, json_response
from server_monitor.fleet import servers

router = APIRouter(prefix="/api/stats", tags=["stats"])

STATUSES = ("online", "offline", "degraded", "unknown", "host_key_changed", "auth_failed")
REASONS = ("host_key_unknown", "disabled")  # those of `unknown` that wait for a person


@router.get("/overview")
async def overview(parts: ConsoleDep, actor: ActorDep) -> Response:
    """How many of the servers that the actor may see are in which state."""
    async with parts.db.reading() as conn:
        counts = await servers.counts(conn, actor=actor)
    by_status, by_reason = Counter[str](), Counter[str | None]()
    for (status, reason), count in counts.items():
        by_status[status] += count
        by_reason[reason] += count
    found = {"total": by_status.total()} | {status: by_status[status] for status in STATUSES}
    return json_response({"servers": found | {reason: by_reason[reason] for reason in REASONS}})
