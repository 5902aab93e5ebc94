"""A guard rail: follows what is typed at a prompt, so that a dangerous line can be asked about before Enter sends it.

It is no control. Whoever has a shell can do what the account may, in a hundred ways that this never sees: a script, an
editor, another shell, a key it does not follow. It helps a person who is about to do what they did not mean. Pure.

It knows a line only while nothing but plain characters, backspace, Ctrl-U, Ctrl-W, Ctrl-C and pasted text went into it
since the last Enter, and the shell has echoed exactly that. Any other key (arrows, Tab, history), any other output in
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
_SEQUENCE = re.compile(rb"\x1b(?:\[([?>]?)[0-9;:]*([@-~])|\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>])")
_UNFINISHED = re.compile(rb"\x1b(?:\[[?>]?[0-9;:]{0,64}|\][^\x07\x1b]{0,512}\x1b?|[()])?\Z")
# They move the cursor or take something away, as a line editor does to rub out what was typed.
_RUBBING_OUT = frozenset(b"CDGJKPX@")


class Guard:
    """One session's line. Tell it what is typed and what is shown, in the order in which they happen."""

    def __init__(self) -> None:
        self._modes = Modes()
        self._begin()

    @property
    def line(self) -> str | None:
        """The line that Enter would send; None when it is not known, or blank."""
        if not self._is_known or self._echoed < len(self._typed) or self._modes.is_alternate:
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
        return self._is_known and self._echoed < len(self._typed) and not self._modes.is_alternate

    @property
    def was_hidden(self) -> bool:
        """Something was typed and nothing of it has come back: the host hides it, as for a password."""
        return self._was_typed and not self._was_echoed and not self._modes.is_alternate

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
        elif self._is_known and (self.awaits_echo or self._is_rubbing_out):
            self._match(self._unfinished + data)

    # --- typing ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._typed = bytearray()
        self._echoed = 0  # how much of it has come back
        self._is_known = True
        self._is_rubbing_out = False
        self._was_typed = False
        self._was_echoed = False
        self._unfinished = b""

    def _lose(self) -> None:
        self._is_known = False
        self._typed.clear()
        self._echoed = 0

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
            self._rub_out(_without_last_character(self._typed))
        elif key == _CTRL_U:
            self._rub_out(0)
        elif key == _CTRL_W:
            self._rub_out(_without_last_word(self._typed))
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

    def _rub_out(self, left: int) -> None:
        if left < len(self._typed):
            del self._typed[left:]
            self._echoed = min(self._echoed, left)
            self._is_rubbing_out = True

    # --- what comes back ------------------------------------------------------------------------------------------

    def _match(self, data: bytes) -> None:
        """Hold what is printed against what was typed; anything else than its echo ends our knowledge."""
        self._unfinished = b""
        at = 0
        while at < len(data) and self._is_known:
            if data[at] != _ESCAPE:
                at += self._match_byte(data, at)
            elif found := _SEQUENCE.match(data, at):
                at = found.end()
                if not self._may_pass(found):
                    self._lose()
            elif _UNFINISHED.match(data, at):
                self._unfinished = data[at:]
                break
            else:
                self._lose()
        if not self._unfinished:
            self._is_rubbing_out = False

    def _match_byte(self, data: bytes, at: int) -> int:
        byte = data[at]
        if self._echoed < len(self._typed) and byte == self._typed[self._echoed]:
            self._echoed += 1
            self._was_echoed = True
        elif data[at : at + 2] == b" \r":
            return 2  # A line editor goes on to the next row of the screen so.
        elif byte != _BELL and not (self._is_rubbing_out and byte in {_BACKSPACE, _RETURN, 0x20}):
            self._lose()
        return 1

    def _may_pass(self, sequence: re.Match[bytes]) -> bool:
        """Does this sequence leave the characters of the line alone?"""
        private, final = sequence[1], sequence[2]
        if final is None or private:
            return True
        return final in {b"m", b"K"} or (self._is_rubbing_out and final[0] in _RUBBING_OUT)


def _without_last_character(text: bytearray) -> int:
    """How long the text is without its last character, which in UTF-8 may be several bytes."""
    left = len(text) - 1
    while left > 0 and text[left] & 0xC0 == 0x80:
        left -= 1
    return max(left, 0)


def _without_last_word(text: bytearray) -> int:
    kept = bytes(text).rstrip(b" ")
    return kept.rfind(b" ") + 1
