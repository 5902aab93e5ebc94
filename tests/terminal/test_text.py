"""Lines are found as a person saw them, however they came to be on the screen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.terminal.events import Event
from server_monitor.terminal.text import Screen, draw, transcript


def seen(*outputs: bytes, cols: int = 40, rows: int = 6) -> list[str]:
    """Every line that was shown after one of these outputs."""
    screen = Screen(cols, rows)
    lines = []
    for output in outputs:
        screen.feed(output)
        lines += [text for text, _ in screen.changes()]
    return lines


def now(*outputs: bytes, cols: int = 40, rows: int = 6) -> list[str]:
    """What stands on the screen in the end."""
    screen = Screen(cols, rows)
    for output in outputs:
        screen.feed(output)
    return [row.text.rstrip() for row in screen._grid]


def test_a_word_typed_letter_by_letter_is_whole_in_the_end() -> None:
    assert seen(b"$ ", *(bytes([letter]) for letter in b"systemctl"))[-1] == "$ systemctl"


def test_corrections_with_backspace_are_corrections() -> None:
    assert seen(b"$ systen", b"\b \b", b"\b \b", b"emctl")[-1] == "$ systemctl"
    assert seen(b"$ sysx", b"\b\x1b[K", b"temctl")[-1] == "$ systemctl"


def test_letters_inserted_in_the_middle_are_there() -> None:
    """As readline does it: insert room, then write."""
    assert seen(b"$ sysctl", b"\x1b[3D\x1b[3@tem")[-1] == "$ systemctl"


def test_letters_taken_out_are_gone() -> None:
    assert seen(b"$ sysXXtemctl", b"\x1b[8D\x1b[2P")[-1] == "$ systemctl"


def test_colours_within_a_word_do_not_part_it() -> None:
    assert seen(b"\x1b[1;31msys\x1b[0m\x1b[38;5;40mtem\x1b[mctl")[-1] == "systemctl"


def test_a_sequence_cut_in_two_is_one() -> None:
    whole = b"sys\x1b[1;31mtem\x1b]0;a title\x1b\\ctl \xe2\x82\xac"
    for cut in range(1, len(whole)):
        assert now(whole[:cut], whole[cut:])[0] == "systemctl €", cut
    assert now(*(bytes([byte]) for byte in whole))[0] == "systemctl €"


def test_a_line_longer_than_the_screen_is_one_line() -> None:
    lines = seen(b"x" * 36 + b"systemctl and more")
    assert any("systemctl and more" in line for line in lines)


def test_what_a_title_or_another_string_says_is_not_on_the_screen() -> None:
    assert now(b"a\x1b]2;systemctl\x07b\x1bPsystemctl\x1b\\c\x9d0;x\x9cd".decode("latin-1").encode())[0] == "abcd"


def test_a_string_without_an_end_hides_nothing_that_comes_after_an_escape() -> None:
    assert now(b"a\x1b]0;" + b"x" * 100_000, b"y\x1b[mvisible")[0] == "avisible"


def test_a_full_screen_program_is_read_where_it_draws() -> None:
    lines = seen(b"\x1b[?1049h\x1b[2J\x1b[5;3Hctl", b"\x1b[2;1Hfirst", b"\x1b[5;1Hsy", b"\x1b[5;1Hsystem")
    assert lines[-1] == "system"
    assert seen(b"\x1b[?1049h\x1b[3;10Hsystem\x1b[3;16Hctl")[-1].strip() == "systemctl"


def test_the_screen_from_before_comes_back() -> None:
    assert now(b"before\r\n", b"\x1b[?1049h\x1b[Hvim", b"\x1b[?1049l after")[:2] == ["before", " after"]


def test_lines_scroll_within_their_region() -> None:
    drawn = now(b"\x1b[1;1Htop\x1b[6;1Hbottom", b"\x1b[2;4r\x1b[4;1H", b"one\r\ntwo\r\nthree\r\nfour")
    assert drawn == ["top", "two", "three", "four", "", "bottom"]


def test_lines_are_inserted_and_taken_out() -> None:
    assert now(b"a\r\nb\r\nc", b"\x1b[2;1H\x1b[L", cols=9, rows=4) == ["a", "", "b", "c"]
    assert now(b"a\r\nb\r\nc", b"\x1b[2;1H\x1b[M", cols=9, rows=4) == ["a", "c", "", ""]


def test_what_scrolls_by_within_one_output_is_seen() -> None:
    lines = seen(b"".join(b"line %d\r\n" % number for number in range(1000)))
    assert lines[:1000] == [f"line {number}" for number in range(1000)]


def test_what_is_cleared_within_the_same_output_is_seen() -> None:
    assert "secret" in seen(b"secret\r\n\x1b[H\x1b[2J")


def test_wide_and_combined_characters_take_their_cells() -> None:
    assert now("你好\x1b[1;5Hx".encode())[0].replace("\0", "") == "你好x"
    assert seen("e\u0301te\u0301".encode())[-1] == "été"


def test_a_smaller_terminal_keeps_what_is_around_the_cursor() -> None:
    screen = Screen(20, 4)
    screen.feed(b"1\r\n2\r\n3\r\n4")
    screen.resize(20, 2)
    assert [row.text for row in screen._grid] == ["3", "4"]
    screen.resize(20, 3)
    assert [row.text for row in screen._grid] == ["3", "4", ""]


def test_a_transcript_has_each_line_once_with_its_time() -> None:
    outputs = [b"$ l", b"s\r\n", *(b"file %d\r\n" % number for number in range(40)), b"$ "]
    events = [Event(number * 1_000_000, "o", output) for number, output in enumerate(outputs)]
    assert [line.text for line in transcript(events)] == ["$ ls", *(f"file {number}" for number in range(40)), "$"]


@given(st.lists(st.binary(max_size=60), max_size=30), st.integers(1, 30), st.integers(1, 10))
def test_no_output_breaks_it(outputs: list[bytes], cols: int, rows: int) -> None:
    _require_sound(outputs, cols, rows)


_SEQUENCES = st.lists(
    st.one_of(
        st.builds(
            lambda parameters, what: f"\x1b[{parameters}{what}",
            st.sampled_from(["", "1", "3", "0", "2;5", "99999999", "?1049", "?7", ";", "5;3;1"]),
            st.sampled_from("ABCDEFGHJKLMPSTXdefghlrsub@m`"),
        ),
        st.sampled_from(
            ["\x1bM", "\x1bD", "\x1bE", "\x1b7", "\x1b8", "\x1bc", "\r", "\n", "\b", "\t", "\x85", "\x9b2J"]
        ),
        st.text(max_size=12),
    ),
    max_size=40,
)


@given(_SEQUENCES, st.integers(1, 30), st.integers(1, 10), st.integers(1, 30), st.integers(1, 10))
def test_no_sequence_breaks_it(said: list[str], cols: int, rows: int, then_cols: int, then_rows: int) -> None:
    _require_sound([one.encode(errors="replace") for one in said], cols, rows)
    screen = Screen(cols, rows)
    for number, one in enumerate(said):
        draw(screen, Event(number, "o", one.encode(errors="replace")))
        if number % 5 == 4:
            screen.resize(then_cols, then_rows)
        screen.changes()
    assert len(screen._grid) == screen._rows


def _require_sound(outputs: list[bytes], cols: int, rows: int) -> None:
    screen = Screen(cols, rows)
    for output in outputs:
        screen.feed(output)
        screen.changes()
        assert len(screen._grid) == rows
        assert 0 <= screen._row < rows
        assert 0 <= screen._col <= cols
        assert all(len(row.text) <= cols for row in screen._grid)


@pytest.mark.parametrize("endless", [b"\x1b[", b"\x1b]0;", b"x", b"\x1b[1;", "\u0301".encode(), b"\x1b"])
def test_endless_output_of_one_kind_is_held_in_little_memory(endless: bytes) -> None:
    screen = Screen(80, 24)
    for _ in range(2_000):
        screen.feed(endless * 50)
        screen.changes()
    assert len(screen._pending) <= 256
    assert sum(len(row.text) for row in screen._grid) <= 80 * 24
