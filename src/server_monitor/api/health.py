"""`/api/health`, `/api/ready`, `/api/metrics`: what machines ask the console about itself."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.api.deps import Console, ConsoleDep, OptionalActorDep, json_response, require
from server_monitor.audit import log as audit_log
from server_monitor.auth.actor import SYSTEM, Permission
from server_monitor.db import migrate
from server_monitor.db.tables import audit_head
from server_monitor.errors import Unauthenticated, Unavailable
from server_monitor.fleet import servers
from server_monitor.telemetry import metrics

router = APIRouter(prefix="/api", tags=["health"])

CHECK_TIMEOUT_S = 5.0
FRESH_S = 1.0  # one answer serves everyone who asks within a second: the question is public, and it writes
DISK_RESERVE_BYTES = 64 * 1024 * 1024
SMALL_DISK_PARTS = 20  # of a small disk, one part of so many has to be free

Check = Callable[[Console], Awaitable[str | None]]


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def health() -> Response:
    """The process runs."""
    return json_response({"status": "ok", "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z")})


@router.head("/ready", include_in_schema=False)
@router.get("/ready")
async def ready(request: Request, parts: ConsoleDep) -> Response:
    """The console can serve: 200, or 503 naming what cannot."""
    checks = await request.app.state.readiness.checks(parts)
    good = all(check["status"] == "ok" for check in checks.values())
    return json_response({"status": "ready" if good else "not_ready", "checks": checks}, 200 if good else 503)


@router.get("/metrics")
async def prometheus(
    request: Request,
    parts: ConsoleDep,
    actor: OptionalActorDep,
    wanted: Annotated[str | None, Query(alias="format")] = None,
) -> Response:
    """The console's own numbers: Prometheus text, OpenMetrics by `Accept`, or JSON by `?format=json`."""
    if not _is_local_and_direct(request):
        if actor is None:
            raise Unauthenticated("The metrics take an admin, or an API token of the scope `metrics`.")
        require(actor, Permission.METRICS_READ)
    await _count_servers(parts)
    if wanted == "json":
        return json_response({"metrics": _as_documents()})
    if "application/openmetrics-text" in request.headers.get("accept", ""):
        text = openmetrics.generate_latest(metrics.registry)  # type: ignore[no-untyped-call]
        return Response(text, media_type=openmetrics.CONTENT_TYPE_LATEST)
    return Response(exposition.generate_latest(metrics.registry), media_type=exposition.CONTENT_TYPE_LATEST)


class Readiness:
    """Answers whether the console is ready, at most once a second for real."""

    def __init__(self) -> None:
        self.serving = False  # set by lifecycle/run.py when everything has started, unset when it begins to stop
        self._lock = asyncio.Lock()
        self._answered_s = float("-inf")
        self._answer: dict[str, dict[str, str]] = {}

    async def checks(self, parts: Console) -> dict[str, dict[str, str]]:
        async with self._lock:
            if time.monotonic() - self._answered_s >= FRESH_S:
                answers = await asyncio.gather(*(_ask(check, parts) for check in CHECKS.values()))
                self._answer = dict(zip(CHECKS, answers, strict=True))
                self._answered_s = time.monotonic()
        state = {"status": "ok", "message": "serving"} if self.serving else {"status": "fail", "message": "not serving"}
        return {"console": state} | self._answer


async def _ask(check: Check, parts: Console) -> dict[str, str]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            problem = await check(parts)
    except TimeoutError:
        problem = "no answer in time"
    except Unavailable:
        problem = "unavailable"
    return {"status": "ok", "message": "ok"} if problem is None else {"status": "fail", "message": problem}


async def _database(parts: Console) -> str | None:
    """Reads, and really writes: a full disk or a lost write lock shows only then."""
    async with parts.db.transaction() as conn:
        await _write_something(conn, parts.db.dialect)
    return None


async def _write_something(conn: AsyncConnection, dialect: str) -> None:
    """A change that has to reach the disk: SQLite writes no page that an update leaves as it was."""
    if dialect == "sqlite":
        await conn.exec_driver_sql(f"PRAGMA user_version = {time.monotonic_ns() % 2**31}")  # Nobody else's number.
    else:
        await conn.execute(update(audit_head).values(size=audit_head.c.size))


async def _migrations(parts: Console) -> str | None:
    return None if await migrate.version(parts.db) == migrate.HEAD else "the database is at another version"


async def _secrets(parts: Console) -> str | None:
    return "some secrets are weak" if parts.settings.is_production and parts.settings.weak_secrets() else None


async def _audit(parts: Console) -> str | None:
    """A record could be appended: the head of the log is sound and can be written."""
    async with parts.db.transaction() as conn:
        await audit_log.size(conn)
        written = await conn.execute(update(audit_head).values(size=audit_head.c.size))
        await _write_something(conn, parts.db.dialect)
    return None if written.rowcount == 1 else "the audit head is missing"


async def _bus(_parts: Console) -> str | None:
    return None  # in-process: it works whenever this line runs


async def _disk(parts: Console) -> str | None:
    try:
        disk = await asyncio.to_thread(shutil.disk_usage, parts.settings.data_dir)
    except OSError:
        return "the data directory cannot be read"
    needed = min(DISK_RESERVE_BYTES, disk.total // SMALL_DISK_PARTS)
    return None if disk.free >= needed else "the disk is almost full"


CHECKS: dict[str, Check] = {
    "database": _database,
    "migrations": _migrations,
    "secrets": _secrets,
    "audit": _audit,
    "bus": _bus,
    "disk": _disk,
}


async def _count_servers(parts: Console) -> None:
    """Bring the gauge up to date; while the database is away it keeps the last numbers."""
    with suppress(Unavailable):
        async with parts.db.reading() as conn:
            found = await servers.counts(conn, actor=SYSTEM)
        for status in servers.STATUSES:
            count = sum(n for (which, reason), n in found.items() if which == status and reason != "disabled")
            metrics.servers_by_status.labels(status).set(count)


def _is_local_and_direct(request: Request) -> bool:
    host = request.client.host if request.client else ""
    return host in {"127.0.0.1", "::1"} and not request.scope.get("came_through_proxy", False)


def _as_documents() -> list[dict[str, Any]]:
    return [
        {
            "name": family.name,
            "type": family.type,
            "help": family.documentation,
            "samples": [{"name": s.name, "labels": s.labels, "value": s.value} for s in family.samples],
        }
        for family in metrics.registry.collect()
    ]
