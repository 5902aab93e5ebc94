"""What is in a recording, and what comes out of it. Pure.

A chunk holds a line with where it stands, and events as asciicast v3 writes them, compressed with zstd::

    {"cols":80,"from_us":1250000,"rows":24}
    [0.000000,"o","$ "]
    [0.214007,"b","/w=="]
    [1.500000,"r","100x30"]
    [0.000000,"m","no-echo"]

The first interval counts from `from_us`, the others from the event before. `o` is output that is valid UTF-8 and `b`,
which only we write, any other output in base64: what was shown comes back byte for byte. Exports are asciicast v3, v2
(https://docs.asciinema.org/manual/asciicast/v3/ and …/v2/) and plain text; they hold U+FFFD where a terminal shows it.
"""

import base64
import binascii
import codecs
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from server_monitor.ssh.envelope import TamperedError
from server_monitor.terminal.chain import Opening
from server_monitor.terminal.events import EXIT, MARKER, OUTPUT, Event
from server_monitor.terminal.text import transcript

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_BYTES: Final = "b"

PLAIN_LIMIT_BYTES: Final = 16 * 1024 * 1024  # what a chunk may unpack to; a damaged one must not take all memory
IDLE_US: Final = 60_000_000  # a pause of so long is marked
_LEVEL: Final = 1
_LONGEST_REST: Final = 3  # bytes of a character that is cut in two


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a chunk begins: its time, and how large the terminal is there."""

    from_us: int
    cols: int
    rows: int


def packed(stand: Stand, events: Iterable[Event]) -> bytes:
    """A chunk, before it is sealed."""
    lines = [orjson.dumps({"cols": stand.cols, "from_us": stand.from_us, "rows": stand.rows})]
    at_us = stand.from_us
    for event in events:
        lines += _stored(event, event.at_us - at_us)
        at_us = event.at_us
    return _compressor().compress(b"\n".join(lines), zstd.ZstdCompressor.FLUSH_FRAME)


def unpacked(plain: bytes) -> tuple[Stand, list[Event]]:
    """What `packed` made it of. Raises TamperedError for anything else."""
    try:
        first, *lines = _decompressed(plain).split(b"\n")
        said = orjson.loads(first)
        stand = Stand(said["from_us"], said["cols"], said["rows"])
        events: list[Event] = []
        at_us, was_bytes = stand.from_us, False
        for line in lines:
            interval, code, data = orjson.loads(line)
            is_bytes = code == _BYTES
            raw = base64.b64decode(data, validate=True) if is_bytes else data.encode()
            is_rest = interval == 0 and (is_bytes or was_bytes) and code in {OUTPUT, _BYTES}
            if is_rest and events and events[-1].code == OUTPUT:  # of what was parted only for being stored
                raw = events.pop().data + raw
            at_us += round(interval * 1_000_000)
            events.append(Event(at_us, OUTPUT if is_bytes else code, raw))
            was_bytes = is_bytes
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, zstd.ZstdError, binascii.Error) as error:
        raise TamperedError from error
    return stand, events


def _stored(event: Event, after_us: int) -> list[bytes]:
    if event.code != OUTPUT:
        return [_line(after_us, event.code, event.data.decode(errors="replace"))]
    lines = []
    for piece, is_text in _pieces(event.data):
        text = piece.decode() if is_text else base64.b64encode(piece).decode()
        lines.append(_line(after_us, OUTPUT if is_text else _BYTES, text))
        after_us = 0
    return lines


def _pieces(data: bytes) -> list[tuple[bytes, bool]]:
    """The output in pieces, each with whether it is text.

    Most often it is; or all of it but the ends of characters that are cut in two by how the output came.
    """
    start = next((at for at, byte in enumerate(data[:_LONGEST_REST]) if byte & 0xC0 != 0x80), _LONGEST_REST)
    end = len(data)
    try:
        data[start:].decode()
    except UnicodeDecodeError as error:
        end = start + error.start
        if len(data) - end > _LONGEST_REST:
            return [(data, False)]
    pieces = [(data[:start], False), (data[start:end], True), (data[end:], False)]
    return [piece for piece in pieces if piece[0]]


def _line(after_us: int, code: str, text: str) -> bytes:
    return b'[%d.%06d,"%s",%s]' % (*divmod(after_us, 1_000_000), code.encode(), orjson.dumps(text))


def _decompressed(plain: bytes) -> bytes:
    unpacker = zstd.ZstdDecompressor()
    text = unpacker.decompress(plain, max_length=PLAIN_LIMIT_BYTES)
    if not unpacker.eof or unpacker.unused_data:
        raise TamperedError
    return text


_compressors = threading.local()


def _compressor() -> zstd.ZstdCompressor:
    """One for each thread: making one costs more than a small chunk."""
    kept: zstd.ZstdCompressor | None = getattr(_compressors, "kept", None)
    if kept is None:
        kept = _compressors.kept = zstd.ZstdCompressor(level=_LEVEL)
    return kept


# --- exports ---

V2: Final = "v2"
V3: Final = "v3"
TEXT: Final = "text"
FORMATS: Final = (V2, V3, TEXT)


def exported(form: str, opening: Opening, events: Iterable[Event]) -> Iterator[bytes]:
    """The recording in this form, piece by piece."""
    if form == TEXT:
        return _text(events)
    return _cast(form, opening, events)


def _cast(form: str, opening: Opening, events: Iterable[Event]) -> Iterator[bytes]:
    yield orjson.dumps(_head(form, opening)) + b"\n"
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    last_us = at_us = 0
    for event in with_idle_marks(events):
        at_us = event.at_us
        if event.code == OUTPUT:
            text = decoder.decode(event.data)
            if not text:  # the beginning of a character
                continue
        elif form == V2 and event.code == EXIT:  # which v2 does not know
            continue
        else:
            text = event.data.decode(errors="replace")
        yield _line(at_us if form == V2 else at_us - last_us, event.code, text) + b"\n"
        last_us = at_us
    if cut_off := decoder.decode(b"", final=True):
        yield _line(at_us if form == V2 else at_us - last_us, OUTPUT, cut_off) + b"\n"


def _head(form: str, opening: Opening) -> dict[str, Any]:
    title = f"{opening.user} on {opening.server}" if opening.user and opening.server else opening.session_id
    common = {"timestamp": int(opening.started_at.timestamp()), "title": title}
    if form == V2:
        size = {"width": opening.cols, "height": opening.rows}
        return {"version": 2, **size, **common, "env": {"TERM": opening.term}}
    return {"version": 3, "term": {"cols": opening.cols, "rows": opening.rows, "type": opening.term}, **common}


def with_idle_marks(events: Iterable[Event]) -> Iterator[Event]:
    """The events, with a marker where a long pause ends, so that a player can go there."""
    last_us = 0
    for event in events:
        if event.at_us - last_us >= IDLE_US:
            yield Event(event.at_us, MARKER, f"idle for {_spoken(event.at_us - last_us)}".encode())
        last_us = event.at_us
        yield event


def _text(events: Iterable[Event]) -> Iterator[bytes]:
    for line in transcript(events):
        # Nothing in it can drive the terminal on which somebody reads it.
        harmless = "".join(c if c.isprintable() else "\ufffd" for c in line.text)
        yield f"{clock(line.at_us)}  {harmless}".rstrip().encode() + b"\n"


def clock(at_us: int) -> str:
    """`1:02:03`, since the beginning."""
    minutes, seconds = divmod(at_us // 1_000_000, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _spoken(us: int) -> str:
    minutes = us // 60_000_000
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
