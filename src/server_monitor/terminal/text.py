"""What was to be read on a terminal, and when: bytes become lines, as the screen of a terminal makes them. Pure.

A small terminal: it knows what moves text (cursor, erasing, inserting, scrolling, the alternate screen) and nothing of
colours. So a word is found that was typed letter by letter with corrections, coloured in its middle, wrapped at the
edge, or drawn by a full-screen program; and what a sequence hides from the eye is not. What it follows: ECMA-48, and
the control sequences of xterm (https://invisible-island.net/xterm/ctlseqs/ctlseqs.html).
"""

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from server_monitor.terminal.events import OUTPUT, RESIZE, Event, size_of

TAB: Final = 8
LARGEST: Final = 1_000  # columns or rows; a larger terminal is read as one of this size
WRAPPED_ROWS: Final = 16  # so many rows are read as one line at the most
REPEATED: Final = 4_096  # characters that one sequence may repeat
PENDING: Final = 256  # characters of a sequence that has not ended yet; a longer one is none
_SECOND_HALF: Final = "\0"  # the cell behind the first of a wide character

_TOKEN = re.compile(
    r"""
      ([^\x00-\x1f\x7f-\x9f]+)                                                       # 1: text
    | (?:\x1b\[|\x9b)([0-?]*)([ -/]*[@-~])                                            # 2, 3: a control sequence
    | (?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x18\x1a\x1b\x9c]*(?:[\x07\x18\x1a\x9c]|(?=\x1b)|\Z)   # a string
    | \x1b([ -/]*[0-Z\\^-~])                                                         # 4: an escape sequence
    | ([\x00-\x1f\x7f-\x9f])                                                         # 5: a control character
    """,
    re.VERBOSE,
)
_UNENDED = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*\Z|\x1b[ -/]*\Z")
_STRING = re.compile(r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x18\x1a\x1b\x9c]*\Z")
_BEGINS_BEYOND_ASCII = "\x90\x98\x9b\x9d\x9e\x9f"
_STRING_END = re.compile(r"[\x07\x18\x1a\x1b\x9c]")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the screen, as it stood there from this instant on."""

    at_us: int
    text: str


class _Row:
    """One row of the screen. `prior` is the row that it goes on from, when that was too long for the screen."""

    __slots__ = ("at_us", "depth", "is_changed", "prior", "shown", "text")

    def __init__(self) -> None:
        self.text = ""
        self.shown = ""
        self.is_changed = False
        self.at_us = 0  # when it changed last
        self.prior: _Row | None = None
        self.depth = 0

    def goes_on_from(self, prior: "_Row | None") -> None:
        if prior is not None and prior.depth >= WRAPPED_ROWS:
            prior = None
        self.prior = prior
        self.depth = 0 if prior is None else prior.depth + 1


class Screen:
    """A terminal of this size. `left` is told each line that is not there any more."""

    def __init__(self, cols: int, rows: int, left: Callable[[Line], None] | None = None) -> None:
        self.at_us = 0  # the time of what is drawn next
        self._left = left
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pending = ""
        self._is_in_string = False
        self._changed: list[_Row] = []
        self._lines: list[tuple[str, str]] = []
        self._begin(cols, rows)

    def _begin(self, cols: int, rows: int) -> None:
        self._cols, self._rows = _sane(cols), _sane(rows)
        self._grid = [_Row() for _ in range(self._rows)]
        self._main: list[_Row] | None = None  # the main screen, while the alternate one is shown
        self._row = self._col = 0
        self._saved = (0, 0)
        self._top, self._bottom = 0, self._rows - 1
        self._wraps = True
        self._last = ""

    def feed(self, data: bytes) -> None:
        """Draw this output."""
        text = self._pending + self._decoder.decode(data)
        self._pending = ""
        start = self._string_end(text) if self._is_in_string else 0
        end = self._hold_back(text, start)
        for token in _TOKEN.finditer(text, start, end):
            kind = token.lastindex
            if kind == 1:
                self._write(token[1])
            elif kind == 5:
                self._control(token[5])
            elif kind == 3:
                self._sequence(token[2], token[3])
            elif kind == 4:
                self._escape(token[4])

    def _hold_back(self, text: str, start: int) -> int:
        """Where a sequence begins that goes on with the next output; the end when there is none."""
        last = text.rfind("\x1b", start)
        if not text.isascii():
            last = max(last, *(text.rfind(character, start) for character in _BEGINS_BEYOND_ASCII))
        if last < 0:
            return len(text)
        if _STRING.match(text, last):
            self._is_in_string = True
            return last
        if len(text) - last < PENDING and _UNENDED.match(text, last):
            self._pending = text[last:]
            return last
        return len(text)

    def resize(self, cols: int, rows: int) -> None:
        cols, rows = _sane(cols), _sane(rows)
        while len(self._grid) > rows:
            # As terminals do: what is below the cursor goes first, then the top scrolls out.
            self._leave(self._grid.pop() if self._row < len(self._grid) - 1 else self._grid.pop(0))
            self._row = min(self._row, len(self._grid) - 1)
        self._grid += [_Row() for _ in range(rows - len(self._grid))]
        if self._main is not None:
            self._main = [*self._main[-rows:], *(_Row() for _ in range(rows - len(self._main)))]
        self._cols, self._rows = cols, rows
        self._col = min(self._col, cols - 1)
        self._top, self._bottom = 0, rows - 1

    def changes(self) -> list[tuple[str, str]]:
        """The lines that have changed since the last time, each with what it was then."""
        for row in self._changed:
            self._show(row)
        self._changed = []
        lines, self._lines = self._lines, []
        return lines

    def clear(self) -> None:
        """Let everything leave the screen."""
        for row in self._grid:
            self._leave(row)

    # --- rows ---

    def _show(self, row: _Row) -> None:
        if not row.is_changed:
            return
        row.is_changed = False
        before = ""
        prior = row.prior
        while prior is not None:
            before = prior.text + before
            prior = prior.prior
        self._lines.append((_read(before + row.text), _read(before + row.shown)))
        row.shown = row.text

    def _leave(self, row: _Row) -> None:
        """The row is not on the screen any more."""
        self._show(row)
        if self._left is not None and row.text:
            self._left(Line(row.at_us, _read(row.text)))

    def _touch(self, row: _Row) -> None:
        if not row.is_changed:
            row.is_changed = True
            row.at_us = self.at_us
            self._changed.append(row)

    def _write(self, text: str) -> None:
        if not text.isascii():
            text = _cells(text)
        self._last = text[-1:]
        while text:
            room = self._cols - self._col
            if room <= 0:
                if not self._wraps:
                    self._col, text = self._cols - 1, text[-1]
                    continue
                prior = self._grid[self._row]
                self._line_feed()
                self._col, room = 0, self._cols
                self._grid[self._row].goes_on_from(prior)
            self._put(text[:room])
            text = text[room:]

    def _put(self, piece: str) -> None:
        row, at = self._grid[self._row], self._col
        old = row.text
        end = at + len(piece)
        if at == len(old):
            row.text = old + piece
        else:
            row.text = old[:at].ljust(at) + piece + old[end:]
        self._col = end
        self._touch(row)

    def _rewrite(self, row: _Row, text: str) -> None:
        if row.text != text:
            row.text = text
            self._touch(row)

    def _erase(self, first: int, end: int) -> None:
        for row in self._grid[first:end]:
            self._show(row)
            if self._left is not None and row.text and self._main is None:
                self._left(Line(row.at_us, _read(row.text)))
            self._rewrite(row, "")
            row.goes_on_from(None)

    def _line_feed(self) -> None:
        if self._row == self._bottom:
            self._scroll(self._top, 1)
        elif self._row < self._rows - 1:
            self._row += 1

    def _scroll(self, top: int, count: int) -> None:
        """Move the rows from `top` to the end of the region up, or down when `count` is negative."""
        height = self._bottom - top + 1
        for _ in range(min(abs(count), height)):
            if count > 0:
                gone = self._grid.pop(top)
                self._grid.insert(self._bottom, _Row())
            else:
                gone = self._grid.pop(self._bottom)
                self._grid.insert(top, _Row())
            self._leave(gone)

    # --- what programs say ---

    def _control(self, character: str) -> None:
        if character == "\n":
            self._line_feed()
        elif character == "\r":
            self._col = 0
        elif character == "\b":
            self._col = max(0, min(self._col, self._cols - 1) - 1)
        elif character == "\t":
            self._col = min(self._cols - 1, (self._col // TAB + 1) * TAB)
        elif character in "\v\f\x84":
            self._line_feed()
        elif character == "\x85":
            self._col = 0
            self._line_feed()
        elif character == "\x8d":
            self._reverse_feed()

    def _escape(self, what: str) -> None:
        if what == "D":
            self._line_feed()
        elif what == "E":
            self._col = 0
            self._line_feed()
        elif what == "M":
            self._reverse_feed()
        elif what == "7":
            self._saved = (self._row, self._col)
        elif what == "8":
            self._restore()
        elif what == "c":
            self.clear()
            self._begin(self._cols, self._rows)

    def _reverse_feed(self) -> None:
        if self._row == self._top:
            self._scroll(self._top, -1)
        else:
            self._row = max(0, self._row - 1)

    def _restore(self) -> None:
        self._row, self._col = min(self._saved[0], self._rows - 1), min(self._saved[1], self._cols - 1)

    def _sequence(self, parameters: str, what: str) -> None:
        if what == "m":  # colours: by far the most frequent
            return
        if parameters[:1] == "?":
            if what in "hl":
                self._set_modes(parameters[1:], what == "h")
            return
        act = _SEQUENCES.get(what)
        if act is not None and parameters[:1] not in {"<", "=", ">"}:
            numbers = [int(part[:6]) if part[:6].isdecimal() else 0 for part in parameters.split(";")[:4]]
            act(self, numbers)

    def _set_modes(self, parameters: str, is_on: bool) -> None:
        for mode in parameters.split(";"):
            if mode in {"47", "1047", "1049"}:
                self._show_alternate(is_on)
            elif mode == "7":
                self._wraps = is_on

    def _show_alternate(self, is_on: bool) -> None:
        if is_on and self._main is None:
            self._saved = (self._row, self._col)
            self._main = self._grid
            self._grid = [_Row() for _ in range(self._rows)]
        elif not is_on and self._main is not None:
            self.clear()
            self._grid, self._main = self._main, None
            self._restore()

    def _move_to(self, row: int, col: int) -> None:
        self._row = max(0, min(row, self._rows - 1))
        self._col = max(0, min(col, self._cols - 1))

    def _move_by(self, rows: int, cols: int) -> None:
        self._move_to(self._row + rows, min(self._col, self._cols - 1) + cols)

    def _erase_display(self, how: int) -> None:
        if how == 0:
            self._erase_line(0)
            self._erase(self._row + 1, self._rows)
        elif how == 1:
            self._erase_line(1)
            self._erase(0, self._row)
        elif how == 2:
            self._erase(0, self._rows)

    def _erase_line(self, how: int) -> None:
        row = self._grid[self._row]
        at = min(self._col, self._cols - 1)
        if how == 0:
            self._rewrite(row, row.text[: self._col])
        elif how == 1:
            self._rewrite(row, " " * min(at + 1, len(row.text)) + row.text[at + 1 :])
        else:
            self._rewrite(row, "")

    def _shift_lines(self, count: int) -> None:
        """Insert lines at the cursor, or take some out when `count` is negative."""
        if self._top <= self._row <= self._bottom:
            self._scroll(self._row, -count)
            self._col = 0

    def _insert(self, count: int) -> None:
        row, at = self._grid[self._row], self._col
        if at < len(row.text):
            self._rewrite(row, (row.text[:at] + " " * min(count, self._cols) + row.text[at:])[: self._cols])

    def _delete(self, count: int) -> None:
        row, at = self._grid[self._row], self._col
        self._rewrite(row, row.text[:at] + row.text[at + count :])

    def _blank(self, count: int) -> None:
        row, at = self._grid[self._row], self._col
        self._rewrite(row, row.text[:at] + " " * len(row.text[at : at + count]) + row.text[at + count :])

    def _set_region(self, top: int, bottom: int) -> None:
        bottom = min(bottom or self._rows, self._rows) - 1
        if top < bottom:
            self._top, self._bottom = top, bottom
            self._row = self._col = 0

    def _repeat(self, count: int) -> None:
        if self._last:
            self._write(self._last * min(count, REPEATED))

    def _string_end(self, text: str) -> int:
        """Where the string ends in which the text begins."""
        found = _STRING_END.search(text)
        self._is_in_string = found is None
        return len(text) if found is None else found.end() - (found[0] == "\x1b")


def _first(numbers: list[int]) -> int:
    """The first parameter of what moves by at least one."""
    return max(1, numbers[0])


def _second(numbers: list[int]) -> int:
    return max(1, numbers[1]) if len(numbers) > 1 else 1


_SEQUENCES: Mapping[str, Callable[[Screen, list[int]], None]] = MappingProxyType(
    {
        "A": lambda screen, n: screen._move_by(-_first(n), 0),
        "B": lambda screen, n: screen._move_by(_first(n), 0),
        "C": lambda screen, n: screen._move_by(0, _first(n)),
        "D": lambda screen, n: screen._move_by(0, -_first(n)),
        "E": lambda screen, n: screen._move_to(screen._row + _first(n), 0),
        "F": lambda screen, n: screen._move_to(screen._row - _first(n), 0),
        "G": lambda screen, n: screen._move_to(screen._row, _first(n) - 1),
        "`": lambda screen, n: screen._move_to(screen._row, _first(n) - 1),
        "a": lambda screen, n: screen._move_by(0, _first(n)),
        "d": lambda screen, n: screen._move_to(_first(n) - 1, screen._col),
        "e": lambda screen, n: screen._move_by(_first(n), 0),
        "H": lambda screen, n: screen._move_to(_first(n) - 1, _second(n) - 1),
        "f": lambda screen, n: screen._move_to(_first(n) - 1, _second(n) - 1),
        "J": lambda screen, n: screen._erase_display(n[0]),
        "K": lambda screen, n: screen._erase_line(n[0]),
        "L": lambda screen, n: screen._shift_lines(_first(n)),
        "M": lambda screen, n: screen._shift_lines(-_first(n)),
        "P": lambda screen, n: screen._delete(_first(n)),
        "@": lambda screen, n: screen._insert(_first(n)),
        "X": lambda screen, n: screen._blank(_first(n)),
        "S": lambda screen, n: screen._scroll(screen._top, _first(n)),
        "T": lambda screen, n: screen._scroll(screen._top, -_first(n)),
        "b": lambda screen, n: screen._repeat(_first(n)),
        "r": lambda screen, n: screen._set_region(_first(n) - 1, n[1] if len(n) > 1 else 0),
        "s": lambda screen, _: setattr(screen, "_saved", (screen._row, screen._col)),
        "u": lambda screen, _: screen._restore(),
    }
)


def transcript(events: Iterable[Event], cols: int = 80, rows: int = 24) -> Iterator[Line]:
    """Each line once, when it leaves the screen, with the time of its last change: for somebody who was not there."""
    lines: list[Line] = []
    screen = Screen(cols, rows, lines.append)
    for event in events:
        draw(screen, event)
        screen.changes()
        yield from lines
        lines.clear()
    screen.clear()
    yield from lines


def draw(screen: Screen, event: Event) -> None:
    """What the event does to the screen."""
    screen.at_us = event.at_us
    if event.code == OUTPUT:
        screen.feed(event.data)
    elif event.code == RESIZE and (size := size_of(event.data)) is not None:
        screen.resize(*size)


def _sane(count: int) -> int:
    return max(1, min(count, LARGEST))


def _cells(text: str) -> str:
    """One character for each cell of the screen."""
    cells = []
    for character in unicodedata.normalize("NFC", text):
        if character >= "\u0300" and unicodedata.category(character) in {"Mn", "Me", "Cf"}:
            continue
        cells.append(character)
        if character >= "\u1100" and unicodedata.east_asian_width(character) in {"W", "F"}:
            cells.append(_SECOND_HALF)
    return "".join(cells)


def _read(text: str) -> str:
    return text.replace(_SECOND_HALF, "").rstrip()
