"""Pages of a list that is sorted by name: where the next one begins is in the cursor, so nothing is skipped or repeated
when rows come and go in between."""

import base64
import binascii
from collections.abc import Sequence
from typing import Protocol, TypeVar

from server_monitor.errors import Invalid

LIMIT_MAX = 1_000


class Named(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


One = TypeVar("One", bound=Named)


def place_of(one: Named) -> tuple[str, str]:
    """Where something stands in a list sorted by name."""
    return one.name.casefold(), one.id


def page(rows: Sequence[One], limit: int, cursor: str | None) -> tuple[Sequence[One], str | None]:
    """Up to `limit` of the sorted rows behind the cursor, and the cursor of the page after, if there is one."""
    if cursor is not None:
        after = _decoded(cursor)
        rows = [one for one in rows if place_of(one) > after]
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], _encoded(rows[limit - 1])


def _encoded(last: Named) -> str:
    return base64.urlsafe_b64encode("\0".join(place_of(last)).encode()).decode().rstrip("=")


def _decoded(cursor: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        text = ""
    name, separator, row_id = text.rpartition("\0")
    if not separator:
        raise Invalid.one("cursor", "This cursor is not one of ours; leave it out to begin again.")
    return name, row_id
