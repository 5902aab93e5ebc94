"""Routes for metric history: what was measured, and charts of it."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from server_monitor.api.deps import ActorDep, Console, ConsoleDep, json_response
from server_monitor.auth.actor import Actor
from server_monitor.errors import FieldError, Invalid
from server_monitor.fleet import servers
from server_monitor.series.ranges import MAX_POINTS, Range
from server_monitor.series.sample import METRICS, Metric, series_name, split_series

router = APIRouter(tags=["history"])

METRICS_MAX = 32
SERIES_MAX = 256  # what a `*` may stand for
ALL_DEVICES = "*"
_USUAL_SPAN_S = 3600.0

Instant = Annotated[str | None, Query(max_length=64, description="Unix seconds or ISO 8601; without a zone, UTC")]


@router.get("/api/servers/{server_id}/metrics")
async def metrics(  # noqa: PLR0917  # The names are those of the query.
    server_id: str,
    parts: ConsoleDep,
    actor: ActorDep,
    metric: Annotated[list[str] | None, Query()] = None,
    from_: Annotated[Instant, Query(alias="from")] = None,
    to: Instant = None,
    points: int = 300,
) -> Response:
    """Values of a server over time: `points` of `[unix seconds, min, mean, max]`, gaps left out.

    `metric` names a metric, a series (`filesystem_percent:/var`) or all devices of a metric
    (`interface_rx_bytes_per_second:*`), and may be repeated; then the answer is `{"items": […]}`.
    Without `from` and `to` it is the last hour. The step is chosen so that there are at most `points`.
    """
    await _seen(parts, server_id, actor)
    wanted = metric or []
    start_at, end_at = _checked(wanted, from_, to, points)
    names = await _expanded(parts, server_id, wanted)
    found = [_document(one) for one in await parts.history.read_many(server_id, names, start_at, end_at, points)]
    is_one = len(wanted) == 1 and split_series(wanted[0])[1] != ALL_DEVICES
    return json_response(found[0] if is_one else {"items": found})


@router.get("/api/servers/{server_id}/series")
async def series(server_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Every series that history holds of a server."""
    await _seen(parts, server_id, actor)
    return json_response({"items": [_described(name) for name in await parts.history.series(server_id)], "next": None})


@router.get("/api/series/catalogue")
async def catalogue(_actor: ActorDep) -> Response:
    """Every metric there is: unit, meaning, and the kind of device it exists for, if any."""
    items = [
        {"metric": metric.name, "unit": metric.unit, "meaning": metric.meaning, "per": metric.per}
        for metric in METRICS.values()
    ]
    return json_response({"items": items, "next": None})


async def _seen(parts: Console, server_id: str, actor: Actor) -> None:
    """Raises NotFound when the actor may not see the server."""
    async with parts.db.reading() as conn:
        await servers.get(conn, server_id, actor=actor)


def _checked(wanted: Sequence[str], from_: str | None, to: str | None, points: int) -> tuple[float, float]:
    """The range in Unix seconds. Raises Invalid with every mistake of the query."""
    mistakes: list[FieldError] = []
    end_at = _instant("to", to, time.time(), mistakes)
    start_at = _instant("from", from_, end_at - _USUAL_SPAN_S, mistakes)
    if start_at > end_at:
        mistakes.append(FieldError("to", "is before `from`"))
    if not 1 <= points <= MAX_POINTS:
        mistakes.append(FieldError("points", f"must be 1 to {MAX_POINTS}"))
    if not 1 <= len(wanted) <= METRICS_MAX:
        mistakes.append(FieldError("metric", f"must be given 1 to {METRICS_MAX} times"))
    mistakes.extend(FieldError("metric", why) for name in wanted[:METRICS_MAX] if (why := _mistake(name)))
    if mistakes:
        raise Invalid(mistakes)
    return start_at, end_at


def _instant(field: str, text: str | None, otherwise: float, mistakes: list[FieldError]) -> float:
    if text is None:
        return otherwise
    try:
        return _seconds(text)
    except ValueError:
        # A query turns a plus sign into a space, and the zone of an instant starts with one.
        mistakes.append(FieldError(field, "must be Unix seconds or ISO 8601, such as 2026-11-23T21:00:00Z"))
        return otherwise


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        instant = datetime.fromisoformat(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    if seconds != seconds:  # noqa: PLR0124  # NaN
        raise ValueError(text)
    return seconds


def _mistake(name: str) -> str | None:
    metric_name, device = split_series(name)
    metric = METRICS.get(metric_name)
    if metric is None:
        return f"{metric_name[:64]!r} is not measured; /api/series/catalogue lists what is"
    if metric.per is None and device is not None:
        return f"{metric.name} has no devices; leave out what follows the colon"
    if metric.per is not None and not device:
        return f"{metric.name} is measured for each {metric.per}; name one after a colon, or {metric.name}:* for all"
    return None


async def _expanded(parts: Console, server_id: str, wanted: Sequence[str]) -> list[str]:
    """The series asked for, every `*` replaced by the devices there are."""
    known: Sequence[str] = []
    if any(split_series(name)[1] == ALL_DEVICES for name in wanted):
        known = await parts.history.series(server_id)
    names: dict[str, None] = {}
    for name in wanted:
        metric, device = split_series(name)
        matching = [one for one in known if split_series(one)[0] == metric] if device == ALL_DEVICES else [name]
        names.update(dict.fromkeys(matching))
    if len(names) > SERIES_MAX:
        raise Invalid.one("metric", f"stands for {len(names)} series; ask for at most {SERIES_MAX} at a time")
    return list(names)


def _document(found: Range) -> dict[str, Any]:
    metric = METRICS.get(split_series(found.series)[0])
    return {
        "metric": found.series,
        "unit": metric.unit if metric else None,
        "step_s": found.step_s,
        "points": found.points,
    }


def _described(name: str) -> dict[str, Any]:
    metric_name, device = split_series(name)
    metric = METRICS.get(metric_name, Metric(metric_name, "", ""))
    return {
        "series": series_name(metric_name, device),
        "metric": metric_name,
        "device": device,
        "unit": metric.unit,
        "meaning": metric.meaning,
    }
