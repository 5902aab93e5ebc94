"""The list of servers, which every open browser asks for: encoded when it changes, joined for each request.

A server's part of the answer has two halves: its row, encoded anew when the row has changed, and its newest values,
encoded anew when a sample has come. Rows are read again when the audit log has grown, which every decision of a person
makes it do, and otherwise after a second, for what the collectors have found out.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from server_monitor.api import pages
from server_monitor.audit import log
from server_monitor.auth.actor import SYSTEM, Actor, Permission, allows, groups_allowing
from server_monitor.db.engine import Database
from server_monitor.fleet import servers
from server_monitor.fleet.reasons import About, explain
from server_monitor.fleet.servers import Server
from server_monitor.series.sample import HEADLINE, Sample
from server_monitor.series.store import History

FRESH_S = 1.0


class Roster:
    """Keeps the whole fleet in memory, about a kilobyte a server."""

    def __init__(self, db: Database, history: History) -> None:
        self._db = db
        self._latest = history.latest_all()
        self._rows: list[_Row] = []
        self._audit_size = -1
        self._read_at_s = float("-inf")
        self._looking = asyncio.Lock()
        self._looks = 0

    async def page(self, limit: int, cursor: str | None, *, actor: Actor) -> bytes:
        """One page of the servers that the actor may see, by name, as the JSON that the route answers."""
        rows, following = pages.page(self._visible(actor, await self._current()), limit, cursor)
        latest = self._latest
        items = b",".join([row.encoded(latest.get(row.id)) for row in rows])
        return b"".join((b'{"items":[', items, b'],"next":', orjson.dumps(following), b"}"))

    def _visible(self, actor: Actor, rows: "Sequence[_Row]") -> "Sequence[_Row]":
        if groups_allowing(actor, Permission.SERVER_READ) is None:
            return rows
        return [row for row in rows if allows(actor, Permission.SERVER_READ, row.server.group_ids)]

    async def _current(self) -> "Sequence[_Row]":
        """Rows as they were after this was called, whoever looked: many who ask at once share one look."""
        looks_before = self._looks
        async with self._looking:
            if self._looks == looks_before:
                self._looks += 1
                await self._look()
            return self._rows

    async def _look(self) -> None:
        async with self._db.reading() as conn:
            size = await log.size(conn)
            now_s = time.monotonic()
            if size == self._audit_size and now_s - self._read_at_s < FRESH_S:
                return
            found = await servers.listing(conn, actor=SYSTEM)
        known = {row.id: row for row in self._rows}
        self._rows = [_kept_or_new(known.get(server.id), server) for server in found]
        self._audit_size, self._read_at_s = size, now_s


class _Row:
    """One server with its two halves of the answer."""

    __slots__ = ("_encoded", "_first_half", "_sample", "id", "name", "server")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.id = server.id
        self.name = server.name
        self._first_half = orjson.dumps(of_row(server))[:-1] + b","
        self._sample: Sample | None = None
        self._encoded = self._joined(None)

    def encoded(self, sample: Sample | None) -> bytes:
        if sample is not self._sample:
            self._sample = sample
            self._encoded = self._joined(sample)
        return self._encoded

    def _joined(self, sample: Sample | None) -> bytes:
        return self._first_half + orjson.dumps(of_sample(sample))[1:]


def _kept_or_new(known: _Row | None, server: Server) -> _Row:
    return known if known is not None and known.server == server else _Row(server)


def of_row(server: Server) -> dict[str, Any]:
    """What the list shows of a server's row."""
    return {
        "id": server.id,
        "name": server.name,
        "host": server.host,
        "port": server.port,
        "username": server.username,
        "auth": server.auth,
        "jump_server_id": server.jump_server_id,
        "labels": server.labels,
        "groups": [{"id": group.id, "name": group.name} for group in server.groups],
        "capability": server.capability,
        "enabled": server.enabled,
        "status": server.status,
        "status_reason": server.status_reason,
        "status_detail": server.status_detail,
        "status_at": server.status_at,
        "reason": reason(server.status_reason, server.about(with_key=False)),
    }


def of_sample(sample: Sample | None) -> dict[str, Any]:
    """What the list shows of a server's newest values."""
    if sample is None:
        return {"latest": None, "probe": None}
    values = sample.values
    cost = values.get("probe_cpu_percent")
    return {
        "latest": {"at": datetime.fromtimestamp(sample.at, UTC), **{name: values.get(name) for name in HEADLINE}},
        "probe": None if cost is None else {"cpu_percent_of_core": cost},
    }


def reason(code: str | None, about: About) -> dict[str, str] | None:
    """A reason in words, as every answer about a server holds it."""
    if code is None:
        return None
    explained = explain(code, about)
    return {"code": code, "sentence": explained.sentence, "remedy": explained.remedy}
