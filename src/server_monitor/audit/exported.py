"""What the log itself says of the exports that were made from it: is this file one of them, whole? Pure.

`audit.export` holds what was asked for, `audit.export_finished` how many records there were and the SHA-256 of all that
was handed out. A file with that SHA-256 is the export as it was: nothing was added to it, and nothing left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from server_monitor.audit import reading

_BEGIN, _END = "audit.export", "audit.export_finished"
_MAY_BE = b'{"action":"audit.export'  # keys are sorted


@dataclass(frozen=True, slots=True)
class Exported:
    """An export as its records say it: `seq` is that of its end. `asked` is None when its beginning is not here."""

    seq: int
    at: str
    by: str
    rows: int | None
    asked: Mapping[str, Any] | None  # filters, order, limit …

    @property
    def words(self) -> str:
        """What it holds, for a person."""
        if self.asked is None:
            return "what it was asked for is not in this log: take one with the archive"
        filters = self.asked.get("filters")
        chosen = [f"{name}={text}" for name, text in filters.items()] if isinstance(filters, dict) else []
        limit = self.asked.get("limit")
        bound = "" if limit is None else f", at most {limit} records"
        return ("filters " + " ".join(chosen) if chosen else "no filter") + bound


class Exports:
    """Looks for the export with this SHA-256 among the records as they go by."""

    def __init__(self, sha256: str) -> None:
        self._sha256 = sha256
        self._begun: dict[str, Any] = {}  # what was asked for, of those that have not ended
        self.found: Exported | None = None

    def look(self, seq: int, body: bytes) -> None:
        if not body.startswith(_MAY_BE) or reading.read(body) is None:
            return
        record = orjson.loads(body)
        target, meta = record.get("target", {}).get("id"), record.get("meta")
        if not isinstance(meta, dict) or target is None:
            return
        if record["action"] == _BEGIN:
            self._begun[target] = meta
            return
        asked = self._begun.pop(target, None)
        if record["action"] == _END and record["outcome"] == "success" and meta.get("sha256") == self._sha256:
            rows = meta.get("rows")
            self.found = Exported(
                seq, record["ts"], record["actor"]["name"], rows if type(rows) is int else None, asked
            )
