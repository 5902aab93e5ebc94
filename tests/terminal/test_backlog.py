"""The last bytes of a shell, and the modes in which a screen begins."""

from hypothesis import given
from hypothesis import strategies as st

from server_monitor.terminal.backlog import Backlog, Modes


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 5_000)), max_size=50), st.integers(1, 500))
def test_it_holds_the_end_of_what_was_added_and_all_that_was_not_seen(steps: list[tuple[bytes, int]], keep_bytes: int):
    backlog, whole = Backlog(keep_bytes), b""
    for data, seen in steps:
        backlog.add(data)
        whole += data
        seen = min(seen, len(whole))  # noqa: PLW2901
        backlog.forget(seen)
        assert backlog.end == len(whole)
        assert backlog.read(backlog.start, len(whole)) == whole[backlog.start :]
        assert backlog.start <= max(0, backlog.end - keep_bytes)
        assert len(whole) - backlog.start <= max(len(whole) - seen, keep_bytes + keep_bytes // 4 + 1)


def test_a_fresh_screen_begins_with_a_whole_line():
    backlog = Backlog(16)
    backlog.add(b"half a line\nwhole one\nand on")
    backlog.forget(28)

    assert backlog.read(backlog.beginning(), 99) == b"and on"


def test_modes_are_those_of_where_the_backlog_begins():
    backlog = Backlog(8)
    backlog.add(b"\x1b[?1049h\x1b[?25l" + b"x" * 40)
    backlog.forget(999)
    backlog.add(b"\x1b[?1049l")

    assert backlog.modes.restored() == "\x1b[?25l\x1b[?1049h"


@given(st.lists(st.integers(1, 6), max_size=20))
def test_modes_are_seen_however_the_bytes_are_cut(cuts: list[int]):
    data = b"a\x1b[?1;2004hb\x1b[?25lc\x1b[?2004ld\x1b[?1000h"
    modes, at = Modes(), 0
    for cut in cuts:
        modes.feed(data[at : at + cut])
        at += cut
    modes.feed(data[at:])

    assert modes.restored() == "\x1b[?1h\x1b[?25l\x1b[?1000h"


def test_a_reset_ends_all_modes():
    modes = Modes()
    modes.feed(b"\x1b[?1049h\x1b[?2004h\x1bc")

    assert modes.restored() == ""
    assert not modes.is_alternate


def test_modes_that_nobody_restores_are_not_kept():
    modes = Modes()
    modes.feed(b"\x1b[?2026h\x1b[?9999999h\x1b[?12h")

    assert modes.restored() == ""
