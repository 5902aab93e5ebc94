"""A block: whole numbers in rows and columns, small, checked, and readable one column at a time.

Rows are instants, columns are series; a cell may be missing. The numbers are what `precision.py` makes of values, so
a block loses nothing. Layout, little-endian, all of it inside one zstd frame with a checksum:

    version      1 byte, 1
    rows, cols   2 x uint32; the instants are column 0 and counted here
    per column   kind (1 byte), then width in bytes (1 byte), base (int64), divisor (int64), holes (1 byte, 0 or 1)
    holes        for each column with holes, one bit a row, 1 = the cell holds a value
    numbers      for each width 1, 2, 4, 8 in turn, its columns in order, each as `width` planes of `rows` bytes: the
                 lowest byte of every row, then the next one

A column's numbers are what is left after its base is taken off (kind OFFSET), after each number's predecessor is
taken off (DELTA), or after that is done twice (DELTA2), then divided by their common divisor and, where signs mix,
folded to 0, -1, 1, -2 … The kind that leaves the smallest numbers wins. A constant column has width 0 and no planes.
Planes of one significance stand together because they resemble each other, and zstd finds that.
"""

import struct
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_VERSION = 1
_HEAD = struct.Struct("<BII")
_WIDTHS = (1, 2, 4, 8)
_WIDTH_NEEDED = np.array((0, *_WIDTHS), np.uint8)
_FEW_COLUMNS = 12  # Up to here it is quicker to look up each column than to sort them by width.
_GCD_PROBE_ROWS = 16  # Most columns betray that they have no common divisor within these.
MAX_BLOCK_BYTES = 256 << 20  # What a block may unpack to; a damaged or foreign one must not take all memory.


class Kind(IntEnum):
    OFFSET = 0
    DELTA = 1
    DELTA2 = 2


class Damaged(Exception):  # noqa: N818  # It is the block that is damaged; the name is what the caller asks.
    """A block's bytes are not what was written."""


@dataclass(frozen=True, slots=True)
class Table:
    """`numbers[row, column]` at instants `at_ms[row]`; where `present` is False the number means nothing.

    `present` is None when no cell is missing.
    """

    at_ms: Ints
    numbers: Ints
    present: Mask | None = None


def stack(tables: Sequence[Table]) -> Table:
    """Tables with the same columns, one below the other."""
    if len(tables) == 1:
        return tables[0]
    present = None
    if any(table.present is not None for table in tables):
        present = np.concatenate(
            [np.ones(table.numbers.shape, np.bool_) if table.present is None else table.present for table in tables]
        )
    at_ms = np.concatenate([table.at_ms for table in tables])
    return Table(at_ms, np.concatenate([table.numbers for table in tables]), present)


class Effort(IntEnum):
    """How hard `encode` tries, as a level of zstd. What is loose is merged within the hour and deserves little."""

    LOOSE = 1
    SETTLED = 5


def encode(table: Table, effort: Effort) -> bytes:
    columns = np.vstack((table.at_ms, table.numbers.T))
    present = None
    if table.present is not None:
        present = np.vstack((np.ones((1, len(table.at_ms)), np.bool_), table.present.T))
    if effort is Effort.LOOSE:
        return pack_quickly(columns, present)
    return pack(columns, present, effort)


def pack(columns: Ints, present: Mask | None, effort: Effort) -> bytes:
    """A block of the columns, each a row of the array, as small as it gets."""
    columns, holes = _without_holes(columns, present)
    kinds, bases, divisors, left = _reduce(columns)
    return _block(_Reduced(kinds, _widths(left), bases, divisors, left), holes, effort)


def pack_quickly(columns: Ints, present: Mask | None) -> bytes:
    """A block of the columns, each a row of the array, all reduced to differences: larger, with a fifth of the work."""
    columns, holes = _without_holes(columns, present)
    count = len(columns)
    left = np.empty_like(columns)
    left[:, 0] = 0
    np.subtract(columns[:, 1:], columns[:, :-1], out=left[:, 1:])
    left = (left << 1) ^ (left >> 63)
    unsigned = left.view(np.uint64)
    top = int(unsigned.max())
    width = next(width for width in _WIDTHS if top < 1 << 8 * width or width == _WIDTHS[-1])
    kinds, widths = np.full(count, Kind.DELTA, np.uint8), np.full(count, width, np.uint8)
    return _block(_Reduced(kinds, widths, columns[:, 0], np.ones(count, np.int64), unsigned), holes, Effort.LOOSE)


@dataclass(frozen=True, slots=True)
class _Reduced:
    """Columns as they are written."""

    kinds: NDArray[np.uint8]
    widths: NDArray[np.uint8]
    bases: Ints
    divisors: Ints
    left: NDArray[np.uint64]


def _without_holes(columns: Ints, present: Mask | None) -> tuple[Ints, bytes]:
    """The columns with their holes filled, and the part of the block that tells where holes are."""
    holes = np.zeros(len(columns), np.uint8)
    if present is None:
        return columns, holes.tobytes()
    holes[:] = ~present.all(axis=1)
    holed = np.flatnonzero(holes)
    columns = columns.copy()
    columns[holed] = _filled(columns[holed], present[holed])
    return columns, holes.tobytes() + np.packbits(present[holed], axis=1).tobytes()


def _block(reduced: _Reduced, holes: bytes, effort: Effort) -> bytes:
    cols, rows = reduced.left.shape
    head = (reduced.kinds, reduced.widths, reduced.bases, reduced.divisors)
    widths = np.flatnonzero(np.bincount(reduced.widths, minlength=_WIDTHS[-1] + 1)[1:]) + 1
    planes = (_to_planes(reduced.left[reduced.widths == width], width) for width in widths.tolist())
    payload = (_HEAD.pack(_VERSION, rows, cols), *(part.tobytes() for part in head), holes, *planes)
    return compress(b"".join(payload), effort)


def compress(payload: bytes, effort: Effort) -> bytes:
    """One zstd frame with a checksum."""
    return _compressor(effort).compress(payload, zstd.ZstdCompressor.FLUSH_FRAME)


_compressors = threading.local()


def _compressor(effort: Effort) -> zstd.ZstdCompressor:
    """One for each thread and effort: making one costs more than a small block."""
    kept: zstd.ZstdCompressor | None = getattr(_compressors, effort.name, None)
    if kept is None:
        options: dict[int, int] = {
            zstd.CompressionParameter.compression_level: effort,
            zstd.CompressionParameter.checksum_flag: 1,
        }
        kept = zstd.ZstdCompressor(options=options)
        setattr(_compressors, effort.name, kept)
    return kept


class Block:
    """An unpacked block whose columns are computed when they are asked for. Raises Damaged when it is not one."""

    __slots__ = ("_bases", "_bitmaps", "_divisors", "_holes", "_kinds", "_planes", "_widths", "columns", "rows")

    def __init__(self, data: bytes) -> None:
        payload = decompress(data)
        try:
            self._parse(payload)
        except (struct.error, ValueError) as error:
            raise Damaged(str(error)) from error

    def _parse(self, payload: bytes) -> None:
        version, rows, cols = _HEAD.unpack_from(payload)
        if version != _VERSION or cols == 0:
            raise Damaged(f"block version {version} with {rows} rows and {cols} columns")
        self.rows: int = rows
        self.columns: int = cols
        at = _HEAD.size
        self._kinds, self._widths = np.frombuffer(payload, np.uint8, 2 * cols, at).reshape(2, cols)
        at += 2 * cols
        self._bases, self._divisors = np.frombuffer(payload, np.int64, 2 * cols, at).reshape(2, cols)
        at += 16 * cols
        self._holes = np.frombuffer(payload, np.uint8, cols, at)
        at += cols
        holed, bitmap_bytes = int(np.count_nonzero(self._holes)), (rows + 7) // 8
        self._bitmaps = np.frombuffer(payload, np.uint8, holed * bitmap_bytes, at).reshape(holed, bitmap_bytes)
        at += holed * bitmap_bytes
        self._planes: dict[int, NDArray[np.uint8]] = {}
        counts = np.bincount(self._widths, minlength=_WIDTHS[-1] + 1).tolist()
        for width in _WIDTHS:
            count = counts[width]
            if not count:
                continue
            planes = np.frombuffer(payload, np.uint8, count * width * rows, at)
            self._planes[width] = planes.reshape(count, width, rows)
            at += planes.size
        if at != len(payload):
            raise Damaged(f"a block of {len(payload)} bytes where {at} were promised")

    def table(self, series: Sequence[int] | None = None) -> Table:
        """All series, or those at the given places, which is cheaper than unpacking the others too."""
        chosen = np.arange(1, self.columns) if series is None else np.array(series, np.intp) + 1
        numbers, present = self.unpack(np.concatenate(([0], chosen)))
        return Table(numbers[0], numbers[1:].T, None if present is None else present[1:].T)

    def unpack(self, columns: NDArray[np.intp]) -> tuple[Ints, Mask | None]:
        """Those columns, each a row of the array, and which cells are there; None when all are."""
        return self._numbers(columns), self._present(columns)

    def _present(self, columns: NDArray[np.intp]) -> Mask | None:
        holed = np.flatnonzero(self._holes[columns])
        if not len(holed):
            return None
        order = np.cumsum(self._holes, dtype=np.intp)[columns[holed]] - 1
        there = np.ones((len(columns), self.rows), np.bool_)
        there[holed] = np.unpackbits(self._bitmaps[order], axis=1, count=self.rows).view(np.bool_)
        return there

    def _numbers(self, columns: NDArray[np.intp]) -> Ints:
        """Those columns as rows of an array, put together again."""
        left = self._left_of_few(columns) if len(columns) <= _FEW_COLUMNS else self._left_of_many(columns)
        return _restore(left, self._kinds[columns], self._bases[columns], self._divisors[columns])

    def _left_of_few(self, columns: NDArray[np.intp]) -> NDArray[np.uint64]:
        left = np.zeros((len(columns), self.rows), np.uint64)
        widths = self._widths.tobytes()
        for place, column in enumerate(columns.tolist()):
            width = widths[column]
            if width:
                order = widths.count(width, 0, column)
                left[place] = _from_planes(self._planes[width][order : order + 1], width)[0]
        return left

    def _left_of_many(self, columns: NDArray[np.intp]) -> NDArray[np.uint64]:
        widths = self._widths[columns]
        if len(self._planes) == 1 and self._widths.all():
            ((width, planes),) = self._planes.items()
            return _from_planes(planes[columns], width)
        left = np.zeros((len(columns), self.rows), np.uint64)
        for width, planes in self._planes.items():
            wanted = np.flatnonzero(widths == width)
            order = np.cumsum(self._widths == width)[columns[wanted]] - 1
            left[wanted] = _from_planes(planes[order], width)
        return left


def decompress(data: bytes) -> bytes:
    """What `compress` was given. Raises Damaged."""
    try:
        info = zstd.get_frame_info(data)
        if info.decompressed_size is None or info.decompressed_size > MAX_BLOCK_BYTES:
            raise Damaged("a block of unknown or absurd size")
        return zstd.decompress(data)
    except zstd.ZstdError as error:
        raise Damaged(str(error)) from error


def _filled(numbers: Ints, present: Mask) -> Ints:
    """Rows of numbers whose holes repeat the number before them, so that they cost nothing."""
    places = np.where(present, np.arange(numbers.shape[1]), 0)
    np.maximum.accumulate(places, axis=1, out=places)
    filled = np.take_along_axis(numbers, places, axis=1)
    first = np.argmax(present, axis=1)
    leading = np.arange(numbers.shape[1]) < first[:, None]
    return np.where(leading, numbers[np.arange(len(numbers)), first][:, None], filled)


def _reduce(numbers: Ints) -> tuple[NDArray[np.uint8], Ints, Ints, NDArray[np.uint64]]:
    """Kind, base and divisor of each column, and what is left of its numbers. All arithmetic wraps at 64 bits."""
    first, lowest = numbers[:, 0].copy(), numbers.min(axis=1)
    delta = np.diff(numbers, axis=1, prepend=numbers[:, :1])
    delta2 = delta.copy()
    delta2[:, 2:] -= delta[:, 1:-1]
    offset = numbers - lowest[:, None]
    costs = np.stack((_cost(offset), _cost(delta) + 1, _cost(delta2) + 1))
    kinds = costs.argmin(axis=0).astype(np.uint8)
    left = np.where((kinds == Kind.OFFSET)[:, None], offset, np.where((kinds == Kind.DELTA)[:, None], delta, delta2))
    bases = np.where(kinds == Kind.OFFSET, lowest, first)
    divisors = _divisors(left)
    shared = divisors > 1
    left[shared] //= divisors[shared][:, None]
    folded = kinds != Kind.OFFSET
    left[folded] = (left[folded] << 1) ^ (left[folded] >> 63)
    return kinds, bases, divisors, left.view(np.uint64)


def _cost(numbers: Ints) -> NDArray[np.float64]:
    """About how many bits a number of each column needs."""
    spread: NDArray[np.float64] = np.abs(numbers.astype(np.float32)).mean(axis=1, dtype=np.float64)
    return np.log2(spread + 1.0)


def _divisors(left: Ints) -> Ints:
    divisors = np.gcd.reduce(left[:, :_GCD_PROBE_ROWS], axis=1)
    promising = np.flatnonzero(divisors != 1)
    divisors[promising] = np.gcd.reduce(left[promising], axis=1)
    # The divisor of a column of zeros is 0; that of the lowest int64 is negative.
    return np.where(divisors > 1, divisors, 1)


def _widths(left: NDArray[np.uint64]) -> NDArray[np.uint8]:
    top = left.max(axis=1)
    needed = np.zeros(len(left), np.intp)
    for width in (0, 1, 2, 4):
        needed += top >= np.uint64(1 << 8 * width)
    return _WIDTH_NEEDED[needed]


def _to_planes(left: NDArray[np.uint64], width: int) -> bytes:
    narrow = left.astype(f"<u{width}")
    if width == 1:
        return narrow.tobytes()
    return narrow.view(np.uint8).reshape(*left.shape, width).transpose(0, 2, 1).tobytes()


def _from_planes(planes: NDArray[np.uint8], width: int) -> NDArray[np.uint64]:
    joined = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f"<u{width}")
    return joined[:, :, 0].astype(np.uint64)


def _restore(left: NDArray[np.uint64], kinds: NDArray[np.uint8], bases: Ints, divisors: Ints) -> Ints:
    """The opposite of reducing."""
    if (kinds == Kind.DELTA).all():
        numbers = _unfolded(left)
        if (divisors != 1).any():
            numbers *= divisors[:, None]
        numbers[:, 0] += bases
        return np.cumsum(numbers, axis=1, out=numbers)
    folded = np.flatnonzero(kinds != Kind.OFFSET)
    numbers = left.view(np.int64)
    numbers[folded] = _unfolded(left[folded])
    numbers *= divisors[:, None]
    twice = np.flatnonzero(kinds == Kind.DELTA2)
    numbers[twice] = np.cumsum(numbers[twice], axis=1)
    numbers[folded] = np.cumsum(numbers[folded], axis=1)
    numbers += bases[:, None]
    return numbers


def _unfolded(left: NDArray[np.uint64]) -> Ints:
    return ((left >> np.uint64(1)) ^ (np.uint64(0) - (left & np.uint64(1)))).view(np.int64)
