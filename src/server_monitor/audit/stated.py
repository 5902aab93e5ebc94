"""Holds as the log itself states them, and whether the table of holds still says the same. Pure.

The table is what deleting goes by, and one statement of SQL takes a hold out of it. The log has each in a record
`audit.hold`: `add` when it was made, `keep` before that record is pruned while the hold goes on, `remove` at its end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from server_monitor.audit import chain, reading
from server_monitor.telemetry.redact import redact

ACTION = "audit.hold"
MAY_BE = b'{"action":"audit.hold",'  # keys are sorted
ADD, KEEP, REMOVE = "add", "keep", "remove"


@dataclass(frozen=True, slots=True)
class Stated:
    """A hold that the log says holds, by its newest statement. `filters` are as the record has them."""

    seq: int
    name: str
    filters: Any


def stated(records: Iterable[tuple[int, bytes]]) -> dict[str, Stated]:
    """The holds that hold after these records, by their ids; (seq, body) in order, of any actions."""
    holding: dict[str, Stated] = {}
    for seq, body in records:
        if type(body) is not bytes or not body.startswith(MAY_BE) or reading.read(body) is None:
            continue
        record = orjson.loads(body)
        target, meta = record.get("target", {}), record.get("meta")
        identity, change = target.get("id"), meta.get("change") if isinstance(meta, dict) else None
        if not isinstance(identity, str):
            continue
        if change in {ADD, KEEP}:
            holding[identity] = Stated(seq, str(target.get("name")), meta.get("filters"))
        elif change == REMOVE:
            holding.pop(identity, None)
    return holding


def changed(holding: Mapping[str, Stated], kept: Mapping[str, Mapping[str, str] | None]) -> list[Stated]:
    """Those that the table has not, or with other filters; `kept` are its active ones, None where it is damaged."""
    return [one for identity, one in holding.items() if _as_recorded(kept.get(identity)) != one.filters]


def filters_of(text: Any) -> dict[str, str] | None:
    """What a stored document says; None when it is none of filters."""
    try:
        said = orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError):
        return None
    is_it = isinstance(said, dict) and all(isinstance(value, str) for value in said.values())
    return said if is_it else None


def _as_recorded(filters: Mapping[str, str] | None) -> Any:
    if filters is None:
        return None
    return {name: chain.clean_text(value) for name, value in redact({"filters": dict(filters)})["filters"].items()}
