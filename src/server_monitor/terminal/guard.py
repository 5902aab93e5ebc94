"""A guard rail: follows what is typed at a prompt, so that a dangerous line can be asked about before Enter sends it.

It is no control. Whoever has a shell can do what the account may, in a hundred ways that this never sees: a script, an
editor, another shell, a key it does not follow. It helps a person who is about to do what they did not mean. Pure.

It knows a line only while nothing but plain characters, backspace, Ctrl-U, Ctrl-W, Ctrl-C and pasted text went into it
since the last Enter, and exactly that stands on the screen. Any other key (arrows, Tab, history), any other output in
between, and a program that has the whole screen make it say that it does not know, until the next Enter or Ctrl-C.
A line that was not echoed, a password, is never told to anybody.
"""

import re
from typing import Final

from server_monitor.terminal.backlog import Modes

LINE_MAX_BYTES: Final = 4_096

_BELL, _BACKSPACE, _RETURN, _ESCAPE, _DELETE = 0x07, 0x08, 0x0D, 0x1B, 0x7F
_CTRL_C, _CTRL_D, _CTRL_L, _CTRL_U, _CTRL_W = 0x03, 0x04, 0x0C, 0x15, 0x17
_PASTE_BEGINS, _PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"
_SEQUENCE = re.compile(
    rb"\x1b(?:\[([?>]?)([0-9;:]{0,64})([@-~])|\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>])"
)
_UNFINISHED = re.compile(rb"\x1b(?:\[[?>]?[0-9;:]{0,64}|\][^\x07\x1b]{0,512}\x1b?|[()])?\Z")


class Guard:
    """One session's line. Tell it what is typed and what is shown, in the order in which they happen."""

    def __init__(self) -> None:
        self._modes = Modes()
        self._begin()

    @property
    def line(self) -> str | None:
        """The line that Enter would send; None when it is not known, or blank."""
        if not self._is_known or not self._is_on_screen or self._modes.is_alternate:
            return None
        try:
            text = self._typed.decode()
        except UnicodeDecodeError:
            return None
        return text if text.strip() else None

    @property
    def is_full_screen(self) -> bool:
        """Does a program have the whole screen?"""
        return self._modes.is_alternate

    @property
    def awaits_echo(self) -> bool:
        """Has something been typed that has not come back yet, and may still do so?"""
        return self._is_known and not self._is_on_screen and not self._modes.is_alternate

    @property
    def was_hidden(self) -> bool:
        """Something was typed and nothing of it has come back: the host hides it, as for a password."""
        return self._was_typed and not self._was_answered and not self._modes.is_alternate

    def typed(self, data: bytes) -> None:
        """What a person typed; no Enter is among it."""
        if self._modes.is_alternate:
            return
        at = 0
        while at < len(data):
            at += self._key(data, at)
        if len(self._typed) > LINE_MAX_BYTES:
            self._lose()

    def entered(self) -> None:
        """Enter was sent."""
        self._begin()

    def shown(self, data: bytes) -> None:
        """What the shell printed."""
        was_alternate = self._modes.is_alternate
        self._modes.feed(data)
        if was_alternate and not self._modes.is_alternate:
            self._begin()
        elif self._is_known and (self._typed or self._screen):
            self._draw(self._unfinished + data)

    # --- typing ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._typed = bytearray()
        self._screen = bytearray()  # what was printed since the first key
        self._cursor = 0
        self._is_at_margin = False  # of the screen's row, and so nowhere that we know of in the line
        self._is_known = True
        self._was_typed = False
        self._was_answered = False
        self._unfinished = b""

    def _lose(self) -> None:
        self._is_known = False
        self._typed.clear()
        self._screen.clear()

    def _key(self, data: bytes, at: int) -> int:
        """Take in the key that begins here; how many bytes it has."""
        key = data[at]
        if key == _CTRL_C:
            self._begin()
        elif key == _ESCAPE:
            return self._escape(data, at)
        elif not self._is_known or key in {_CTRL_D, _CTRL_L}:
            pass
        elif key in {_DELETE, _BACKSPACE}:
            del self._typed[_without_last_character(self._typed) :]
        elif key == _CTRL_U:
            self._typed.clear()
        elif key == _CTRL_W:
            del self._typed[_without_last_word(self._typed) :]
        elif key < 0x20:
            self._lose()
        else:
            self._typed.append(key)
            self._was_typed = True
        return 1

    def _escape(self, data: bytes, at: int) -> int:
        for paste in (_PASTE_BEGINS, _PASTE_ENDS):
            if data.startswith(paste, at):
                return len(paste)
        self._lose()
        return 1

    # --- what comes back ------------------------------------------------------------------------------------------

    @property
    def _is_on_screen(self) -> bool:
        """Does exactly what was typed stand there, with the cursor behind it?"""
        end = self._cursor
        return not self._is_at_margin and self._screen[:end] == self._typed and not self._screen[end:].strip(b" ")

    def _draw(self, data: bytes) -> None:
        """Print it as a terminal does, as far as line editors need one."""
        self._unfinished = b""
        at = 0
        while at < len(data) and self._is_known:
            if data[at] != _ESCAPE:
                at += self._print(data, at)
            elif found := _SEQUENCE.match(data, at):
                at = found.end()
                if found[3] is not None and not found[1]:
                    self._move(found[3], found[2])
            elif _UNFINISHED.match(data, at):
                self._unfinished = data[at:]
                break
            else:
                self._lose()
        if len(self._screen) > LINE_MAX_BYTES:
            self._lose()

    def _print(self, data: bytes, at: int) -> int:
        """Print what begins here; how many bytes it has."""
        byte = data[at]
        if data[at : at + 2] == b" \r":
            return 2  # A line editor goes on to the next row of the screen so.
        if byte == _BACKSPACE and not self._is_at_margin:
            self._cursor = _without_last_character(self._screen[: self._cursor])
        elif byte == _RETURN:
            self._is_at_margin = True
        elif byte == _BELL:
            pass
        elif byte < 0x20 or self._is_at_margin:
            self._lose()
        else:
            self._screen[self._cursor : self._cursor + 1] = bytes((byte,))
            self._cursor += 1
            self._was_answered = True
            while byte < 0x80 and self._is_rest():
                del self._screen[self._cursor]
        return 1

    def _is_rest(self) -> bool:
        """Is what stands at the cursor the rest of a character that has been written over?"""
        return self._cursor < len(self._screen) and self._screen[self._cursor] & 0xC0 == 0x80

    def _move(self, final: bytes, parameters: bytes) -> None:
        """Move the cursor or take something away, as editors do that rub out what was typed."""
        if final == b"m" or (self._is_at_margin and final == b"C"):
            return
        count = int(parameters) if parameters.isdigit() else 1
        if final in {b"K", b"J"} and parameters in {b"", b"0"}:
            # From the margin an editor has moved to where the line begins, or we lose it by this.
            self._cursor, self._is_at_margin = (0, False) if self._is_at_margin else (self._cursor, False)
            del self._screen[self._cursor :]
        elif final == b"P" and not self._is_at_margin:
            del self._screen[self._cursor : self._cursor + count]
        elif final == b"D" and not self._is_at_margin and count <= self._cursor:
            self._cursor -= count
        elif final == b"C" and self._cursor + count <= len(self._screen):
            self._cursor += count
        else:
            self._lose()


def _without_last_character(text: bytearray) -> int:
    """How long the text is without its last character, which in UTF-8 may be several bytes."""
    left = len(text) - 1
    while left > 0 and text[left] & 0xC0 == 0x80:
        left -= 1
    return max(left, 0)


def _without_last_word(text: bytearray) -> int:
    kept = bytes(text).rstrip(b" ")
    return kept.rfind(b" ") + 1
