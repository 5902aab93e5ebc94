"""The messages of `/ws/live`, as text frames of JSON. Specification: `docs/reference/live.md`.

    browser  {"type":"subscribe","servers":"all","rate_s":1}
    console  {"type":"samples","at":"2026-11-23T21:30:00.200Z","servers":{"0199…":{"cpu_percent":12.5}}}

What a browser sends is hostile input: it is parsed into one of a few structs or refused whole.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
import orjson

from server_monitor.bus.contract import TaskState

MESSAGE_LIMIT_BYTES = 64 * 1024

IdText = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Subscribe(msgspec.Struct, frozen=True, tag_field="type", tag="subscribe", forbid_unknown_fields=True):
    """What the browser wants to see from now on; it replaces the subscription before."""

    servers: Literal["all"] | Annotated[list[IdText], msgspec.Meta(max_length=1000)]
    rate_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 1.0


class Watch(msgspec.Struct, frozen=True, tag_field="type", tag="watch", forbid_unknown_fields=True):
    """Show how the tasks of this run move on; it replaces the run watched before."""

    run: IdText


class Unwatch(msgspec.Struct, frozen=True, tag_field="type", tag="unwatch", forbid_unknown_fields=True):
    """No run is on the screen any more."""


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping", forbid_unknown_fields=True):
    """A browser cannot send protocol pings; with this it finds out that a connection is dead."""


class MalformedError(Exception):
    """The message is none that we know. `str()` says why, without repeating the message."""

    code = "invalid"


Message = Subscribe | Watch | Unwatch | Ping

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def parse(text: str) -> Message:
    """The message in a text frame. Raises MalformedError."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise MalformedError(str(error)) from error


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _frame(message: Mapping[str, object]) -> str:
    return orjson.dumps(message).decode()


def hello(now: float) -> str:
    return _frame({"type": "hello", "server_time": rfc3339(now)})


def subscribed(request: Subscribe) -> str:
    return _frame({"type": "subscribed", "servers": request.servers, "rate_s": request.rate_s})


def pong(now: float) -> str:
    return _frame({"type": "pong", "server_time": rfc3339(now)})


def samples(at: float, values: Mapping[str, Mapping[str, float]]) -> str:
    return _frame({"type": "samples", "at": rfc3339(at), "servers": values})


def status(server_id: str, state: str, reason: str | None, words: tuple[str, str] | None, at: float) -> str:
    """`words` are the sentence and the remedy that a person reads."""
    sentence, remedy = words or (None, None)
    return _frame(
        {
            "type": "status",
            "server": server_id,
            "status": state,
            "reason": reason,
            "sentence": sentence,
            "remedy": remedy,
            "at": rfc3339(at),
        }
    )


def watching(run_id: str | None) -> str:
    return _frame({"type": "watching", "run": run_id})


def task(run_id: str, states: Iterable[TaskState]) -> str:
    """Where some tasks of a run stand now."""
    tasks = [
        {
            "id": state.task_id,
            "server_id": state.server_id,
            "status": state.status,
            "cause": state.cause,
            "exit_code": state.exit_code,
        }
        for state in states
    ]
    return _frame({"type": "task", "run": run_id, "tasks": tasks})


def gap(dropped: int) -> str:
    """Tells a slow browser that `dropped` sample frames were left out, so that it fetches them as history."""
    return _frame({"type": "gap", "frames": dropped})


def changed(about: Literal["servers", "runs"]) -> str:
    """Tells a browser to fetch a list again."""
    return _frame({"type": "changed", "about": about})


def reconnect(spread_s: float) -> str:
    """Tells a browser to connect again after a random part of `spread_s`, so that not all come at once."""
    return _frame({"type": "reconnect", "spread_s": spread_s})


def error(code: str, detail: str) -> str:
    return _frame({"type": "error", "code": code, "detail": detail})


def headline(values: Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    """The few values that a row of the fleet table shows."""
    return {name: values[name] for name in names if name in values}
