"""Servers out of our own export, and the export itself.

    {"servers": [{"name": "web1", "host": "10.0.0.1", "port": 22, "username": "deploy", "auth": "key",
                  "key_fingerprint": "SHA256:…", "jump": "bastion", "labels": {"env": "live"}, "groups": ["web"],
                  "capability": "observe"}]}

A bare list, and `{"items": […]}`, are read too. An export never holds a key or a password: it names the key by its
fingerprint, and the server gets it back when a key of that fingerprint is stored here.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from server_monitor.errors import FieldError
from server_monitor.fleet.fields import quoted, tidy, tidy_host, visible
from server_monitor.fleet.inventory.entries import ENTRIES_MAX, Entry, Parsed, too_many, unique

FIELDS = (
    "name",
    "host",
    "port",
    "username",
    "auth",
    "key_fingerprint",
    "jump",
    "labels",
    "groups",
    "capability",
)
AUTHS = ("agent", "key", "password")
_LIST = re.compile(r'\s*(?:\{\s*"(?:servers|items)"\s*:\s*)?\[')
_BETWEEN = re.compile(r"\s*,?\s*")
_SPACE = re.compile(r"\s*")


def parse(text: str) -> Parsed:
    """The servers of an export."""
    entries: list[Entry] = []
    errors: list[FieldError] = []
    try:
        for line, item in _items(text):
            if len(entries) == ENTRIES_MAX:
                errors.append(too_many(line))
                break
            entries.append(_Item(item, line, errors).entry())
    except json.JSONDecodeError as refused:
        errors.append(FieldError("text", f"This is not JSON: {refused.msg}.", refused.lineno))
    except (RecursionError, ValueError):
        errors.append(FieldError("text", "This is not JSON that can be read: too deep, or a number too long.", 1))
    if not (entries or errors):
        errors.append(FieldError("text", "The list is empty, so there is nothing to import.", 1))
    return Parsed(tuple(entries), (), tuple(errors))


def _items(text: str) -> Iterator[tuple[int, Any]]:
    """Each element of the list with the line it starts on."""
    start = _LIST.match(text)
    if start is None:
        json.loads(text)
        raise json.JSONDecodeError('a list of servers belongs here, or {"servers": […]}', text, 0)
    decoder = json.JSONDecoder()
    position, line, counted = start.end(), 1, 0
    while True:
        position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
        if text[position : position + 1] == "]":
            break
        line += text.count("\n", counted, position)
        counted = position
        item, position = decoder.raw_decode(text, position)
        yield line, item
        after = _BETWEEN.match(text, position)
        assert after is not None
        if "," not in after[0] and text[after.end() : after.end() + 1] != "]":
            raise json.JSONDecodeError("a comma or ] is missing", text, position)
        position = after.end()
    json.loads("[" + text[position:] if start[0].strip() == "[" else '{"servers":[' + text[position:])


class _Item:
    """Reads one element field by field, noting each that has the wrong type."""

    def __init__(self, item: Any, line: int, errors: list[FieldError]) -> None:
        self._line = line
        self._errors = errors
        self._item: dict[str, Any] = item if isinstance(item, dict) else {}
        if not isinstance(item, dict):
            self._mistake("text", 'A server is an object, such as {"name": "web1", "host": "10.0.0.1"}.')
        for name in self._item.keys() - set(FIELDS):
            self._mistake(visible(name), f"There is no field {quoted(name)}. The fields are {', '.join(FIELDS)}.")

    def entry(self) -> Entry:
        host = self._text("host") or self._text("name") or ""
        auth = self._text("auth") or "agent"
        if auth not in AUTHS:
            self._mistake("auth", f"Choose one of {', '.join(AUTHS)}.")
        return Entry(
            line=self._line,
            name=tidy(self._text("name") or host),
            host=tidy_host(host),
            port=self._port(),
            username=self._text("username"),
            auth=auth,
            key_fingerprint=self._text("key_fingerprint"),
            jump=tidy(self._text("jump") or "") or None,
            labels=self._labels(),
            groups=self._groups(),
            capability=self._text("capability") or "observe",
        )

    def _text(self, name: str) -> str | None:
        value = self._item.get(name)
        if value is None or isinstance(value, str):
            return value
        self._mistake(name, f"{name} is a text in quotation marks.")
        return None

    def _port(self) -> int:
        port = self._item.get("port", 22)
        if isinstance(port, int) and not isinstance(port, bool):
            return port
        self._mistake("port", "port is a number without quotation marks.")
        return 22

    def _labels(self) -> dict[str, str]:
        labels = self._item.get("labels", {})
        if isinstance(labels, dict) and all(isinstance(value, str) for value in labels.values()):
            return {tidy(name): tidy(value) for name, value in labels.items()}
        self._mistake("labels", 'labels is an object of texts, such as {"env": "live"}.')
        return {}

    def _groups(self) -> tuple[str, ...]:
        groups = self._item.get("groups", [])
        if isinstance(groups, list) and all(isinstance(group, str) for group in groups):
            return unique(tidy(group) for group in groups)
        self._mistake("groups", 'groups is a list of names, such as ["web"].')
        return ()

    def _mistake(self, field: str, message: str) -> None:
        self._errors.append(FieldError(field, message, self._line))
