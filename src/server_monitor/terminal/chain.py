"""The file of a recording: a header, and chunks in a chain of hashes. Pure.

    {"cols":80,"format":1,"key":"AbC…","key_id":"0a1b…","rows":24,"server":"web01",…}\n      one line: the header
    4 bytes, big-endian: how many follow | the sealed chunk                                  chunk 1
    …                                                                                        chunk 2, 3, …

    head 0 = SHA-256(header, its newline included)
    head n = SHA-256(head n-1 ‖ n as 8 bytes, big-endian ‖ sealed chunk n)

The heads are in the audit log, so the chain is checked against it without any key. `terminal/keys.py` says how a chunk
is sealed, `terminal/casting.py` what is in it. The whole format with test vectors: docs/reference/recording-format.md.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from server_monitor.audit.chain import clean_text, timestamp

FORMAT: Final = 1
HEADER_LIMIT_BYTES: Final = 16_384
CHUNK_LIMIT_BYTES: Final = 8 * 1024 * 1024  # of a sealed chunk; far more than one ever takes
LENGTH_BYTES: Final = 4
NAME_LIMIT: Final = 128
FINDINGS_LIMIT: Final = 20

Read = Callable[[int], bytes]
"""The next so many bytes of a file; fewer only at its end."""


class NotARecording(Exception):  # noqa: N818  # It is what a file turns out to be.
    """The file does not begin as a recording does. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known when a recording begins. The names are those shown at that time."""

    session_id: str
    started_at: datetime
    cols: int
    rows: int
    term: str = "xterm-256color"
    server: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file, as it was read."""

    opening: Opening
    wrapped: bytes
    wrapped_by: str
    size_bytes: int
    head: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A chunk of the chain: its number from 1 on, and the heads on both sides of it."""

    number: int
    sealed: bytes = field(repr=False)
    before: bytes
    head: bytes


def header(opening: Opening, wrapped: bytes, wrapped_by: str) -> bytes:
    """The first line of a file."""
    document = {
        "cols": opening.cols,
        "format": FORMAT,
        "key": base64.b64encode(wrapped).decode(),
        "key_id": wrapped_by,
        "rows": opening.rows,
        "server": clean_text(opening.server)[:NAME_LIMIT],
        "session": opening.session_id,
        "started_at": timestamp(opening.started_at),
        "term": clean_text(opening.term)[:NAME_LIMIT],
        "user": clean_text(opening.user)[:NAME_LIMIT],
    }
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def frame(sealed: bytes) -> bytes:
    """A chunk as it stands in the file."""
    return len(sealed).to_bytes(LENGTH_BYTES, "big") + sealed


def next_head(head: bytes, number: int, sealed: bytes) -> bytes:
    digest = hashlib.sha256(head)
    digest.update(number.to_bytes(8, "big"))
    digest.update(sealed)
    return digest.digest()


class Walk:
    """Goes along a file, from its header to its last whole chunk.

    What it has come to is in `chunks`, `head` and `size_bytes`; `torn_bytes` is what is left behind the last whole
    chunk, once there is no more. Raises NotARecording.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        line = b""
        while not line.endswith(b"\n") and len(line) < HEADER_LIMIT_BYTES and (byte := read(1)):
            line += byte
        self.header = parse(line)
        self.chunks = 0
        self.head = self.header.head
        self.size_bytes = len(line)
        self.torn_bytes = 0

    def __iter__(self) -> Iterator[Link]:
        while True:
            start = self._read(LENGTH_BYTES)
            length = int.from_bytes(start, "big")
            sealed = self._read(length) if len(start) == LENGTH_BYTES and 0 < length <= CHUNK_LIMIT_BYTES else b""
            if not sealed or len(sealed) < length:
                self.torn_bytes = len(start) + len(sealed) + self._rest()
                return
            before = self.head
            self.chunks += 1
            self.head = next_head(before, self.chunks, sealed)
            self.size_bytes += len(start) + length
            yield Link(self.chunks, sealed, before, self.head)

    def _rest(self) -> int:
        count = 0
        while piece := self._read(1 << 20):
            count += len(piece)
        return count


def parse(line: bytes) -> Header:
    """What the first line of a file says. Raises NotARecording."""
    if not line.endswith(b"\n"):
        raise NotARecording("its header has no end")
    try:
        said: dict[str, Any] = orjson.loads(line)
        if said["format"] != FORMAT:
            raise NotARecording(f"its format is {said['format']!r}, and this version reads {FORMAT}")
        opening = Opening(
            session_id=_text(said["session"]),
            started_at=datetime.fromisoformat(said["started_at"]),
            cols=_count(said["cols"]),
            rows=_count(said["rows"]),
            term=_text(said["term"]),
            server=_text(said["server"]),
            user=_text(said["user"]),
        )
        wrapped = base64.b64decode(said["key"], validate=True)
        wrapped_by = _text(said["key_id"])
    except (ValueError, TypeError, LookupError, binascii.Error) as error:
        raise NotARecording("its header cannot be read") from error
    return Header(opening, wrapped, wrapped_by, len(line), hashlib.sha256(line).digest())


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 < value <= 0xFFFF:
        raise ValueError
    return value


# --- what is verified ---


class Verdict(StrEnum):
    """What can be said of a recording."""

    INTACT = "intact"
    UNPROVEN = "unproven"  # nothing is wrong, and the audit log at hand does not say all that it has to be
    DAMAGED = "damaged"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it has to be. `chunk` is where, when that is known."""

    code: str
    sentence: str
    chunk: int | None = None
    is_damage: bool = True


@dataclass(frozen=True, slots=True)
class Logged:
    """What the audit log says: the head at a number of chunks; `is_last` when the recording ended with it."""

    chunks: int
    head: bytes
    is_last: bool = False


@dataclass(slots=True)
class Check:
    """Holds a chain against what the audit log says of it. `is_over`: the session is, so nothing may come any more."""

    session_id: str
    logged: Sequence[Logged]
    is_over: bool
    findings: list[Finding] = field(default_factory=list)
    _heads: Mapping[int, Sequence[Logged]] = field(init=False)
    _last: int | None = field(init=False)

    def __post_init__(self) -> None:
        self._heads = _by_number(self.logged)
        self._last = max((one.chunks for one in self.logged if one.is_last), default=None)

    def begins(self, found: Header) -> None:
        if found.opening.session_id != self.session_id:
            self.find("wrong_session", f"The file is the recording of session {found.opening.session_id}.", 0)
        self.reaches(0, found.head)

    def reaches(self, number: int, head: bytes) -> None:
        """The chain is `head` after so many chunks."""
        if any(one.head != head for one in self._heads.get(number, ())):
            self.find("head_differs", f"The audit log knows another recording up to chunk {number}.", number)

    def ends(self, chunks: int, torn_bytes: int) -> None:
        """The file has no more than so many whole chunks."""
        most = max((one.chunks for one in self.logged), default=0)
        if chunks < most:
            self.find("too_short", f"It has {chunks} chunks, and the audit log knows of {most}.", chunks)
        if self._last is not None and chunks > self._last:
            self.find("extended", f"It ended with chunk {self._last}, and now has {chunks}.", self._last + 1)
        if torn_bytes and self.is_over:
            self.find("extended", f"{torn_bytes} bytes stand behind its last whole chunk.", chunks)
        if 0 not in self._heads:
            self.doubt("not_logged", "The audit log at hand does not say that this recording began.")
        elif self.is_over and self._last is None:
            self.doubt("not_closed", "The audit log at hand does not say with which chunk it ended.")

    def find(self, code: str, sentence: str, chunk: int | None = None) -> None:
        """Note a damage; after so many, more of them say nothing new."""
        if len(self.findings) < FINDINGS_LIMIT:
            self.findings.append(Finding(code, sentence, chunk))

    def doubt(self, code: str, sentence: str) -> None:
        """Note what is not known."""
        self.findings.append(Finding(code, sentence, is_damage=False))

    @property
    def verdict(self) -> Verdict:
        if any(finding.is_damage for finding in self.findings):
            return Verdict.DAMAGED
        return Verdict.UNPROVEN if self.findings else Verdict.INTACT


def _by_number(logged: Sequence[Logged]) -> Mapping[int, Sequence[Logged]]:
    found: dict[int, list[Logged]] = {}
    for one in logged:
        found.setdefault(one.chunks, []).append(one)
    return found
