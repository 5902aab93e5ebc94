"""What a person sees of what servers printed."""

import io
import os
import pty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from server_monitor.cli.run_screen import LINE_MAX_BYTES, Writer


@contextmanager
def terminal() -> Iterator[tuple[TextIO, int]]:
    """A terminal to write to, and the descriptor from which what it shows is read."""
    reader, writer = pty.openpty()
    try:
        with os.fdopen(writer, "w") as screen:
            yield screen, reader
    finally:
        os.close(reader)


def written(*parts: bytes, prefix: str = "") -> bytes:
    """What arrives in a file when a server prints these parts."""
    to = io.TextIOWrapper(io.BytesIO())
    writer = Writer(to, prefix)
    for part in parts:
        writer.write(part)
    writer.end()
    return bytes(to.buffer.getvalue())  # type: ignore[attr-defined]


def test_what_one_server_prints_arrives_byte_for_byte() -> None:
    assert written(b"\x00\xff\x1b[2J", b"no end") == b"\x00\xff\x1b[2Jno end"


def test_lines_of_several_servers_stay_whole_behind_their_names() -> None:
    assert written(b"a\nb", b"c\n\nd", prefix="web | ") == b"web | a\nweb | bc\nweb | \nweb | d\n"


def test_a_line_without_an_end_is_not_gathered_for_ever() -> None:
    long = b"x" * (LINE_MAX_BYTES + 1)
    assert written(long, b"y", prefix="web | ") == b"web | " + long + b"\nweb | y\n"


def test_no_server_drives_the_terminal() -> None:
    with terminal() as (screen, shown):
        writer = Writer(screen, "we\x1bb | ")
        writer.write("\x1b]0;mine\x07\u202eé\tok\n".encode())
        seen = b""
        while not seen.endswith(b"\n"):  # A terminal may show a line piece by piece.
            seen += os.read(shown, 4096)

    assert seen == "we\\u001bb | \\u001b]0;mine\\u0007\\u202eé\tok\r\n".encode()


def test_a_reader_that_has_gone_ends_nothing(tmp_path: Path) -> None:
    reader, pipe = os.pipe()
    os.close(reader)
    with os.fdopen(pipe, "w") as to:
        writer = Writer(to)
        writer.write(b"nobody reads this\n")
        writer.write(b"nor this\n")
