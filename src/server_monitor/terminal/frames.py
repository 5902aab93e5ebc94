"""The text frames of `/ws/terminal/{id}`, both ways. Pure. What each means: docs/reference/terminal.md.

Binary frames are bytes of the terminal: what was typed, and what is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from server_monitor.terminal.states import Size

TEXT_LIMIT_BYTES: Final = 1_024
TICKET_LIMIT: Final = 128
POSITION_MAX: Final = 2**53


class MalformedError(Exception):
    """A frame that no page of ours sends."""


@dataclass(frozen=True, slots=True)
class Show:
    """The first frame: the ticket, and how many bytes of the shell this page has drawn already."""

    ticket: str = field(repr=False)
    have: int = 0


@dataclass(frozen=True, slots=True)
class Resize:
    size: Size


@dataclass(frozen=True, slots=True)
class Ack:
    """The page has drawn the shell's bytes up to this position."""

    at: int


@dataclass(frozen=True, slots=True)
class Answer:
    """To the guard rail's question: send the line, or not."""

    is_yes: bool


@dataclass(frozen=True, slots=True)
class Leave:
    """End the session."""


Frame = Show | Resize | Ack | Answer | Leave


def parse(text: str) -> Frame:
    """Raises MalformedError."""
    said = _decoded(text)
    match said.get("type"):
        case "ticket":
            ticket = said.get("ticket")
            if not isinstance(ticket, str) or not 0 < len(ticket) <= TICKET_LIMIT:
                raise MalformedError("a ticket is a short text")
            return Show(ticket, _whole(said, "have", default=0))
        case "resize":
            size = Size(_whole(said, "cols"), _whole(said, "rows"))
            if not size.is_possible:
                raise MalformedError("no terminal has this size")
            return Resize(size)
        case "ack":
            return Ack(_whole(said, "bytes"))
        case "continue":
            return Answer(is_yes=True)
        case "drop":
            return Answer(is_yes=False)
        case "close":
            return Leave()
    raise MalformedError("there is no frame of this type")


def ready(session_id: str, size: Size, start: int, *, is_reset: bool, modes: str) -> str:
    """What follows are the shell's bytes from `start` on. `modes` is to be written to the terminal before them."""
    return _text(
        "ready",
        id=session_id,
        cols=size.cols,
        rows=size.rows,
        reset=is_reset,
        modes=modes,
        **{"from": start},
    )


def warning(reason: str, seconds_left: int) -> str:
    return _text("warning", reason=reason, seconds_left=seconds_left)


def guard(line: str, rule: str, sentence: str) -> str:
    return _text("guard", line=line, rule=rule, sentence=sentence)


def resized(size: Size) -> str:
    """To those who look on: the terminal has another size now."""
    return _text("resized", cols=size.cols, rows=size.rows)


def watched(names: Sequence[str]) -> str:
    return _text("watched", by=list(names))


def closed(reason: str, sentence: str, exit_status: int | None) -> str:
    return _text("closed", reason=reason, sentence=sentence, exit_status=exit_status)


def _text(kind: str, **fields: Any) -> str:
    return orjson.dumps({"type": kind, **fields}).decode()


def _decoded(text: str) -> Mapping[str, Any]:
    if len(text) > TEXT_LIMIT_BYTES:
        raise MalformedError("a text frame is short")
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise MalformedError("a text frame is JSON") from None
    if not isinstance(said, dict):
        raise MalformedError("a text frame is an object")
    return said


def _whole(said: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = said.get(name, default)
    if type(value) is not int or not 0 <= value <= POSITION_MAX:
        raise MalformedError(f"{name} is a whole number")
    return value
