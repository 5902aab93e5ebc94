"""What the guard rail knows of a line, by what was typed and what came back, without any shell."""

import pytest

from server_monitor.terminal.guard import Guard


@pytest.fixture
def guard() -> Guard:
    return Guard()


def echoed(guard: Guard, text: str) -> None:
    """Type it a key at a time, each echoed."""
    for byte in text.encode():
        guard.typed(bytes([byte]))
        guard.shown(bytes([byte]))


def test_a_line_that_came_back_is_known(guard: Guard):
    echoed(guard, "rm -rf /srv/été")

    assert guard.line == "rm -rf /srv/été"
    assert not guard.was_hidden


def test_a_line_that_did_not_come_back_is_never_told(guard: Guard):
    guard.typed(b"correct horse")

    assert guard.line is None
    assert guard.awaits_echo
    assert guard.was_hidden


def test_stars_instead_of_characters_are_no_echo(guard: Guard):
    for key in b"secret":
        guard.typed(bytes([key]))
        guard.shown(b"*")

    assert guard.line is None


def test_a_password_is_not_known_because_other_output_happens_to_hold_its_letters(guard: Guard):
    guard.typed(b"ab")
    guard.shown(b"a log line about b\r\n")

    assert guard.line is None


def test_half_an_echo_is_awaited_and_then_known(guard: Guard):
    guard.typed(b"reboot")
    guard.shown(b"reb")
    assert guard.line is None
    assert guard.awaits_echo

    guard.shown(b"oot")
    assert guard.line == "reboot"


def test_an_echo_in_colours_and_with_a_title_is_an_echo(guard: Guard):
    guard.typed(b"ls")
    guard.shown(b"\x1b[7ml\x1b[27")
    guard.shown(b"m\x1b]0;title\x07s\x1b[K")

    assert guard.line == "ls"


def test_rubbing_out_is_followed(guard: Guard):
    echoed(guard, "rm -rf /x")
    guard.typed(b"\x7f")
    guard.shown(b"\b\x1b[K")
    assert guard.line == "rm -rf /"

    guard.typed(b"\x17")
    guard.shown(b"\b\x1b[K")
    assert guard.line == "rm -rf "

    guard.typed(b"\x15")
    guard.shown(b"\r\x1b[C\x1b[C\x1b[K")
    assert guard.line is None
    echoed(guard, "ls")
    assert guard.line == "ls"


def test_rubbing_out_before_the_echo_has_come_is_followed_too(guard: Guard):
    guard.typed(b"rm x\x7f/")
    guard.shown(b"rm x")
    guard.shown(b"\b\x1b[K/")

    assert guard.line == "rm /"


def test_a_character_of_several_bytes_is_rubbed_out_whole(guard: Guard):
    echoed(guard, "aé")
    guard.typed(b"\x7f")
    guard.shown(b"\b \b")

    assert guard.line == "a"


@pytest.mark.parametrize("key", [b"\x1b[A", b"\x1b[D", b"\t", b"\x12", b"\x01", b"\x1bf", b"\x19", b"\x16"])
def test_a_key_that_it_cannot_follow_makes_it_not_know(guard: Guard, key: bytes):
    echoed(guard, "ls")
    guard.typed(key)
    echoed(guard, " x")

    assert guard.line is None


def test_after_enter_or_ctrl_c_it_begins_anew(guard: Guard):
    guard.typed(b"\x1b[A")
    guard.entered()
    echoed(guard, "one")
    assert guard.line == "one"

    guard.typed(b"\x1b[A\x03")
    guard.shown(b"^C\r\n$ ")
    echoed(guard, "two")
    assert guard.line == "two"


def test_pasted_text_is_typed_text(guard: Guard):
    guard.typed(b"\x1b[200~rm -rf /\x1b[201~")
    guard.shown(b"\x1b[7mrm -rf /\x1b[27m")

    assert guard.line == "rm -rf /"


def test_output_between_keys_makes_it_not_know(guard: Guard):
    guard.typed(b"l")
    guard.shown(b"a job is done\r\nl")

    assert guard.line is None


def test_a_long_line_goes_on_in_the_next_row(guard: Guard):
    guard.typed(b"ab")
    guard.shown(b"a \rb")

    assert guard.line == "ab"


def test_in_a_program_that_has_the_screen_nothing_is_known(guard: Guard):
    guard.shown(b"\x1b[?1049h")
    echoed(guard, "rm -rf /")
    assert guard.line is None
    assert not guard.was_hidden

    guard.shown(b"\x1b[?10")
    guard.shown(b"49l$ ")
    echoed(guard, "ls")
    assert guard.line == "ls"


def test_a_line_without_an_end_is_given_up(guard: Guard):
    echoed(guard, "x" * 5_000)

    assert guard.line is None


def test_bytes_that_are_no_text_are_no_line(guard: Guard):
    guard.typed(b"\xff\xfe")
    guard.shown(b"\xff\xfe")

    assert guard.line is None


@pytest.mark.parametrize("text", ["", "   "])
def test_a_blank_line_is_none(guard: Guard, text: str):
    echoed(guard, text)

    assert guard.line is None
