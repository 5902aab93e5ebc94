"""What a person sees who watches a run while it prints more than is kept."""

import io

import pytest

from server_monitor.cli.run_follow import Shown
from server_monitor.cli.run_screen import Writer
from server_monitor.tasks.frames import Piece


def test_between_the_beginning_and_the_end_of_what_was_too_much_is_told_how_much_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On the error stream: what is piped on stays what the server printed."""
    to = io.TextIOWrapper(io.BytesIO())
    shown = Shown("web1", {"stdout": Writer(to, "web1 | "), "stderr": Writer(to, "web1 | ")})

    for piece in (Piece(0, b"one\ntw"), Piece(1_000_006, b"o\n"), Piece(1_000_008, b"three\n")):
        shown.show("stdout", piece)

    assert to.buffer.getvalue() == b"web1 | one\nweb1 | tw\nweb1 | o\nweb1 | three\n"  # type: ignore[attr-defined]
    assert capsys.readouterr().err == "web1: 1,000,000 bytes of stdout are left out here: more came than is kept.\n"
    assert (shown.bytes, shown.gaps) == ({"stdout": 1_000_014, "stderr": 0}, {"stdout"})
