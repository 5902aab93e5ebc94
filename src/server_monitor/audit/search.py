"""What to look for in the audit log: filters, checked one by one, and the rows they choose."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement

from server_monitor.audit import chain
from server_monitor.audit.chain import ACTIONS, OUTCOMES
from server_monitor.db.tables import audit_records
from server_monitor.errors import FieldError, Invalid

DEFAULT_LIMIT = 10_000
MAX_LIMIT = 50_000
TEXT_LIMIT = 256
_DIGITS = 10

# ISO 8601 writes a day in two ways; its weeks are days too, and no one who writes one means the midnight before.
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}")
_WEEK = re.compile(r"[0-9]{4}-?[Ww].*")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which records are meant. None leaves a part open; the times are half-open, [from_at, to_at)."""

    from_at: datetime | None = None
    to_at: datetime | None = None
    user_id: str | None = None
    action: str | None = None  # exact, or a prefix ending in `.*`
    target_type: str | None = None
    target_id: str | None = None
    outcome: str | None = None
    ip: str | None = None
    request_id: str | None = None

    def document(self) -> dict[str, str]:
        """The filters as text: for cursors, holds, and the record of an export."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {
            _PARAMETERS.get(name, name): chain.timestamp(value) if isinstance(value, datetime) else value
            for name, value in values
            if value is not None
        }

    def where(self) -> list[ColumnElement[bool]]:
        """The same as conditions on `audit_records`."""
        c = audit_records.c
        conditions = [
            None if self.from_at is None else c.ts >= self.from_at,
            None if self.to_at is None else c.ts < self.to_at,
            None if self.action is None else _action_is(self.action),
            *(
                None if value is None else c[column] == value
                for column, value in (
                    ("actor_id", self.user_id),
                    *((name, getattr(self, name)) for name in _EXACT),
                )
            ),
        ]
        return [condition for condition in conditions if condition is not None]

    def match(self, columns: Mapping[str, str | None]) -> bool:
        """Whether they choose the record with these search columns, as `where` does in the database."""
        ts, action = columns["ts"] or "", columns["action"] or ""
        is_action = self.action is None or action in _actions_of(self.action)
        is_time = (self.from_at is None or ts >= chain.timestamp(self.from_at)) and (
            self.to_at is None or ts < chain.timestamp(self.to_at)
        )
        exact = {"actor_id": self.user_id, **{name: getattr(self, name) for name in _EXACT}}
        return is_action and is_time and all(value in {None, columns[name]} for name, value in exact.items())


_EXACT = ("target_type", "target_id", "outcome", "ip", "request_id")
_PARAMETERS = {"from_at": "from", "to_at": "to"}
_TEXTS = ("user_id", "target_type", "target_id", "ip", "request_id")


def parse(given: Mapping[str, str]) -> Filters:
    """The filters that a request or a command names. Raises Invalid naming every parameter that is wrong."""
    mistakes: list[FieldError] = []
    values: dict[str, Any] = {}
    for name, text in given.items():
        try:
            values[_field(name)] = _parsed(name, text)
        except Invalid as error:
            mistakes += error.errors
    from_at, to_at = values.get("from_at"), values.get("to_at")
    if from_at and to_at and from_at >= to_at:
        mistakes.append(FieldError("to", "is not after `from`"))
    if mistakes:
        raise Invalid(mistakes)
    return Filters(**values)


def parse_limit(text: str | None, most: int = MAX_LIMIT, usual: int = DEFAULT_LIMIT) -> int:
    """How many records are wanted. Raises Invalid rather than giving silently fewer."""
    if text is None:
        return usual
    # What is longer is refused for its length: as a number it would take a while to read.
    is_number = text.isascii() and text.isdecimal() and len(text) <= _DIGITS
    if not is_number or not 1 <= int(text) <= most:
        raise Invalid.one("limit", f"must be a whole number from 1 to {most}; follow `cursor` for more")
    return int(text)


def _field(name: str) -> str:
    return {"from": "from_at", "to": "to_at"}.get(name, name)


def _parsed(name: str, text: str) -> Any:
    if name == "from":
        return _instant(name, text, days_later=0)
    if name == "to":
        return _instant(name, text, days_later=1)
    if name == "action":
        return _checked_action(text)
    if name == "outcome":
        return _one_of(name, text, OUTCOMES)
    if name in _TEXTS:
        return _short_text(name, text)
    raise Invalid.one(name, "is not a filter; remove it")


def _instant(name: str, text: str, days_later: int) -> datetime:
    """A moment. A date alone means the whole day, UTC: from its beginning, or to its end."""
    try:
        if _DATE.fullmatch(text):
            day = date.fromisoformat(text) + timedelta(days=days_later)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        at = datetime.fromisoformat("" if _WEEK.fullmatch(text) else text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Invalid.one(name, "must be a date such as 2026-01-31 or a time such as 2026-01-31T12:00:00Z") from None


def _checked_action(text: str) -> str:
    known = any(action.startswith(text[:-1]) for action in ACTIONS) if text.endswith(".*") else text in ACTIONS
    if not known:
        raise Invalid.one("action", "must be an action such as auth.login, or a family such as auth.*")
    return text


def _one_of(name: str, text: str, known: frozenset[str]) -> str:
    if text not in known:
        raise Invalid.one(name, f"must be one of {', '.join(sorted(known))}")
    return text


def _short_text(name: str, text: str) -> str:
    if not text or len(text) > TEXT_LIMIT or not text.isprintable():
        raise Invalid.one(name, f"must be 1 to {TEXT_LIMIT} printable characters")
    return text


def _action_is(action: str) -> ColumnElement[bool]:
    """The catalogue is closed, so a family is a list: exact under every collation, and served by the index."""
    c = audit_records.c
    return c.action.in_(_actions_of(action)) if action.endswith(".*") else c.action == action


def _actions_of(action: str) -> list[str]:
    """The action itself, or those of its family."""
    if not action.endswith(".*"):
        return [action]
    return sorted(known for known in ACTIONS if known.startswith(action[:-1]))
