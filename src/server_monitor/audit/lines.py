"""Holds an export against the log that it says it comes from: every line has to be, byte for byte, one of its records.

The log is verified in the same pass; a line is proven when its record is. That no line is missing is another question:
the log answers it when it has the SHA-256 of this very file, or when the filters are repeated. A CSV or JSONL file as
`audit export` and the console write it is taken: one that a spreadsheet saved again is another file. Lines are found by
the numbers of their records, so memory grows by 16 bytes a line and the file is read where it lies.
"""

import hashlib
import mmap
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path

from server_monitor.audit import cells, reading
from server_monitor.audit.export import CSV
from server_monitor.audit.exported import Exported, Exports
from server_monitor.audit.search import Filters
from server_monitor.audit.verify import Finding, Part, Row
from server_monitor.errors import Unavailable

MISSING_SHOWN = 20
_SEQ_LIMIT = 2**53


@dataclass(frozen=True, slots=True)
class Wrong:
    """The first line that is not what it should be; lines count from 1, as editors do. `seq` where it names one."""

    line: int
    message: str
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """What was found. `gaps` records lie between the first and the last line and are not in the export.

    `missing` are the first places of those, [first, last]. `lacking` is the first record that the filters choose and
    the export has not; None without filters too. `exported` is the export that the log says the file is.
    `is_complete`: nothing that belongs into it is missing, at its end neither.
    """

    lines: int
    first_seq: int | None
    last_seq: int | None
    gaps: int
    wrong: Wrong | None
    lacking: int | None
    missing: Sequence[tuple[int, int]] = ()
    exported: Exported | None = None
    is_complete: bool = False

    @property
    def is_proven(self) -> bool:
        """Is there a line, and each of them a record? An export of nothing shows nothing."""
        return self.wrong is None and self.lacking is None and self.lines > 0

    @property
    def is_empty(self) -> bool:
        return self.wrong is None and self.lacking is None and self.lines == 0

    @property
    def are_all_shown(self) -> bool:
        """Are these all the places where something is missing?"""
        return sum(last - first + 1 for first, last in self.missing) == self.gaps


class Lines:
    """The lines of one export, to be met by the records as they go by. Make it with `opened`."""

    def __init__(self, data: bytes | mmap.mmap, form: str, filters: Filters | None) -> None:
        self._data = data
        self._form = form
        self._filters = filters
        self._seqs = array("q")
        self._starts = array("q")  # where the line of each begins
        self._first_line = 2 if form == CSV else 1
        self._is_descending = False
        self._wrong: Wrong | None = None
        self._lacking: int | None = None
        self._exports = Exports(hashlib.sha256(data).hexdigest())
        self._index()
        self._seen = bytearray(len(self._seqs))
        self._begin: int | None = None  # what the log held
        self._size = 0
        if self._is_descending:
            self._seqs.reverse()
            self._starts.reverse()

    @property
    def has_filters(self) -> bool:
        return self._filters is not None

    def passing(self, parts: Iterable[Part | Finding]) -> Iterator[Part | Finding]:
        """The same parts, whose records are compared as the verifier reads them."""
        for part in parts:
            yield replace(part, batches=self._met(part)) if isinstance(part, Part) else part

    def compared(self) -> Compared:
        """After every record has gone by."""
        unmet = self._seen.find(0) if not self._is_descending else self._seen.rfind(0)
        if unmet >= 0:
            self._is_wrong(unmet, self._why_unmet(self._seqs[unmet]))
        if not self._seqs:
            return Compared(0, None, None, 0, self._wrong, self._lacking)
        first, last, exported = self._seqs[0], self._seqs[-1], self._exports.found
        is_asked = self._filters is not None and self._filters.to_at is not None and self._lacking is None
        return Compared(
            len(self._seqs),
            first,
            last,
            last - first + 1 - len(self._seqs),
            self._wrong,
            self._lacking,
            tuple(islice(self._missing(), MISSING_SHOWN)),
            exported,
            is_complete=self._wrong is None and (is_asked or exported is not None),
        )

    def _missing(self) -> Iterator[tuple[int, int]]:
        for before, after in pairwise(self._seqs):
            if after > before + 1:
                yield before + 1, after - 1

    def _met(self, part: Part) -> Iterator[Sequence[Row]]:
        seq = part.first_seq
        self._begin = seq if self._begin is None else min(self._begin, seq)
        for batch in part.batches:
            for row in batch:
                self._compare(row[0] if type(row[0]) is int else seq, row[1])
                seq += 1
            self._size = max(self._size, seq)
            yield batch

    def _compare(self, seq: int, body: object) -> None:
        """Its place in the log says which record it is; the verifier finds one that says something else of itself."""
        if not isinstance(body, bytes):
            return
        self._exports.look(seq, body)
        at = bisect_left(self._seqs, seq)
        if at == len(self._seqs) or self._seqs[at] != seq:
            if self._lacking is None and self._is_chosen(seq, body):
                self._lacking = seq
            return
        self._seen[at] = 1
        if self._line(at) != self._made_of(seq, body):
            self._is_wrong(at, f"is not what record {seq} of the log says")

    def _is_chosen(self, seq: int, body: bytes) -> bool:
        """Do the filters say that it has to be in the export?"""
        if self._filters is None or (self._filters.to_at is None and not self._is_before_the_last(seq)):
            return False
        found = reading.read(body)
        return found is not None and self._filters.match(dict(zip(reading.COLUMNS, found[1], strict=True)))

    def _is_before_the_last(self, seq: int) -> bool:
        return bool(self._seqs) and seq < self._seqs[-1]

    def _made_of(self, seq: int, body: bytes) -> bytes:
        return cells.csv_rows([(seq, body)]) if self._form == CSV else cells.json_lines([(seq, body)])

    def _line(self, at: int) -> bytes:
        start = self._starts[at]
        end = self._data.find(b"\n", start) + 1
        return bytes(self._data[start:end])

    # --- the index ---

    def _index(self) -> None:
        """Note where each line begins, up to the first that cannot be one or stands out of order."""
        start = self._header()
        while start < len(self._data) and self._wrong is None:
            end = self._data.find(b"\n", start) + 1
            number = self._first_line + len(self._seqs)
            seq = self._seq_of(bytes(self._data[start:end])) if end else None
            if seq is None:
                self._wrong = Wrong(number, "is not a whole line of an export" if end else "is cut off")
            elif (said := self._out_of_order(seq)) is not None:
                self._wrong = Wrong(number, said, seq)
            else:
                self._seqs.append(seq)
                self._starts.append(start)
            start = end

    def _header(self) -> int:
        if self._form != CSV:
            return 0
        length = len(cells.CSV_HEADER)
        if self._data[:length] != cells.CSV_HEADER:
            self._wrong = Wrong(1, "is not the header of an export; give the file as it was downloaded")
        return length

    def _seq_of(self, line: bytes) -> int | None:
        if self._form != CSV:
            found = reading.read(line[:-1])
            return None if found is None else found[0]
        digits = line.partition(b",")[0]
        seq = int(digits) if digits.isdigit() and len(digits) < 17 else _SEQ_LIMIT
        return seq if seq < _SEQ_LIMIT and line.endswith(b"\r\n") else None

    def _out_of_order(self, seq: int) -> str | None:
        if len(self._seqs) == 1:
            self._is_descending = seq < self._seqs[0]
        if not self._seqs or (seq < self._seqs[-1] if self._is_descending else seq > self._seqs[-1]):
            return None
        return f"has record {seq} again" if seq == self._seqs[-1] else f"has record {seq} out of order"

    def _is_wrong(self, at: int, message: str) -> None:
        """Keep what comes first in the file."""
        place = len(self._seqs) - 1 - at if self._is_descending else at
        line = self._first_line + place
        if self._wrong is None or line < self._wrong.line:
            self._wrong = Wrong(line, message, self._seqs[at])

    def _why_unmet(self, seq: int) -> str:
        if self._begin is not None and seq < self._begin:
            return f"has record {seq}, and the log given here begins with {self._begin}: take one with the archive"
        if seq >= self._size:
            return f"has record {seq}, and the log given here ends before {self._size}: take one that is newer"
        return f"has record {seq}, which the log has not"


@contextmanager
def opened(path: Path, form: str, filters: Filters | None = None) -> Iterator[Lines]:
    """The export in this file; `form` is csv or jsonl. With `filters`, it has to have every record that they choose.

    Filters without an end are asked up to the last line: later records may be newer than the export.
    Raises Unavailable.
    """
    with _bytes_of(path) as data:
        yield Lines(data, form, filters)


def _bytes_of(path: Path) -> AbstractContextManager[bytes | mmap.mmap]:
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:  # which cannot be mapped
                return nullcontext(b"")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}.") from error
