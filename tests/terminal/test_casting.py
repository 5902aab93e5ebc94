"""What goes into chunks and comes out as asciicast, checked against the published specifications."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.ssh.envelope import TamperedError
from server_monitor.terminal import casting
from server_monitor.terminal.casting import IDLE_US, Stand
from server_monitor.terminal.chain import Opening
from server_monitor.terminal.events import Event

OPENING = Opening("s", datetime(2026, 11, 25, 10, tzinfo=UTC), 80, 24, server="web01", user="olga")
OUTPUT = st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
EVENTS = st.lists(
    st.tuples(st.integers(0, 10**12), st.sampled_from("oorm"), OUTPUT).filter(
        lambda one: one[1] == "o" and one[2] != b""
    )
    | st.tuples(st.integers(0, 10**12), st.just("r"), st.just(b"90x30"))
    | st.tuples(st.integers(0, 10**12), st.just("m"), st.text(max_size=9).map(str.encode)),
    max_size=20,
).map(lambda found: [Event(*one) for one in sorted(found, key=lambda one: one[0])])


def parsed(events: list[Event], form: str) -> tuple[dict[str, Any], list[list[Any]]]:
    """The header and the events of an export, strictly as NDJSON in UTF-8."""
    text = b"".join(casting.exported(form, OPENING, events)).decode()
    assert text.endswith("\n")
    header, *lines = [json.loads(line) for line in text.split("\n")[:-1]]
    return header, lines


@given(events=EVENTS, from_us=st.integers(0, 10**9))
def test_a_chunk_gives_back_what_was_packed(events: list[Event], from_us: int) -> None:
    moved = [Event(event.at_us + from_us, event.code, event.data) for event in events]
    stand, found = casting.unpacked(casting.packed(Stand(from_us, 80, 24), moved))

    assert stand == Stand(from_us, 80, 24)
    assert b"".join(one.data for one in found if one.code == "o") == b"".join(
        one.data for one in moved if one.code == "o"
    )
    assert [one for one in found if one.code != "o"] == [one for one in moved if one.code != "o"]
    assert {one.at_us for one in found} == {one.at_us for one in moved}


@given(data=st.binary(max_size=200))
def test_what_is_no_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(TamperedError):
        casting.unpacked(data)


def test_a_chunk_that_unpacks_to_too_much_is_refused() -> None:
    bomb = casting._compressor().compress(
        b"\0" * (casting.PLAIN_LIMIT_BYTES + 1), casting.zstd.ZstdCompressor.FLUSH_FRAME
    )
    with pytest.raises(TamperedError):
        casting.unpacked(bomb)


@given(events=EVENTS)
def test_v3_says_what_its_specification_demands(events: list[Event]) -> None:
    header, lines = parsed(events, "v3")

    assert header["version"] == 3
    assert header["term"] == {"cols": 80, "rows": 24, "type": "xterm-256color"}
    assert header["timestamp"] == 1795600800
    assert set(header) <= {"version", "term", "timestamp", "idle_time_limit", "command", "title", "env", "tags"}
    _require_events(lines, {"o", "i", "r", "m", "x"})
    assert sum(round(line[0] * 1_000_000) for line in lines) == (last(events) if lines else 0)
    assert printed(lines) == b"".join(one.data for one in events if one.code == "o").decode(errors="replace")


@given(events=EVENTS)
def test_v2_says_what_its_specification_demands(events: list[Event]) -> None:
    header, lines = parsed([*events, Event(last(events), "x", b"0")], "v2")

    assert (header["version"], header["width"], header["height"]) == (2, 80, 24)
    assert header["env"] == {"TERM": "xterm-256color"}
    _require_events(lines, {"o", "i", "r", "m"})
    times = [line[0] for line in lines]
    assert times == sorted(times)
    assert printed(lines) == b"".join(one.data for one in events if one.code == "o").decode(errors="replace")


def _require_events(lines: list[list[Any]], codes: set[str]) -> None:
    for line in lines:
        assert len(line) == 3
        assert type(line[0]) in {int, float}
        assert line[0] >= 0
        assert line[1] in codes
        assert type(line[2]) is str
        if line[1] == "r":
            assert line[2] == "90x30"


def last(events: list[Event]) -> int:
    return max((event.at_us for event in events), default=0)


def printed(lines: list[list[Any]]) -> str:
    return "".join(line[2] for line in lines if line[1] == "o")


def test_the_exit_status_is_in_v3() -> None:
    _, lines = parsed([Event(5, "o", b"bye"), Event(9, "x", b"3")], "v3")
    assert lines == [[0.000005, "o", "bye"], [0.000004, "x", "3"]]


def test_a_character_that_came_in_pieces_is_one() -> None:
    whole = "é€😀".encode()
    events = [Event(number, "o", bytes([byte])) for number, byte in enumerate(whole)]
    for form in ("v2", "v3"):
        assert printed(parsed(events, form)[1]) == "é€😀"


def test_a_pause_is_marked_where_it_ends() -> None:
    events = [Event(0, "o", b"a"), Event(IDLE_US * 90, "o", b"b")]
    _, lines = parsed(events, "v3")
    assert lines == [[0, "o", "a"], [5400, "m", "idle for 1 h 30 min"], [0, "o", "b"]]


def test_text_is_what_was_to_be_read() -> None:
    events = [
        Event(1_000_000, "o", b"$ \x1b[32mls\x1b[0m\r\n"),
        Event(3_723_000_000, "o", b"a\x07  b\r\n\x1b]0;title\x07"),
    ]
    text = b"".join(casting.exported("text", OPENING, events)).decode()
    assert text == "0:00:01  $ ls\n1:02:03  a  b\n"
