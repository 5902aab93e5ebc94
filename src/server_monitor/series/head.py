"""The newest samples, in memory until they fill blocks worth writing.

A *batch* is what one flush wrote to the log of a *shard*, some dozens of servers: their samples with whatever series
they have, as two tables. `samples` has a row for each, with its server, its layout and how many numbers are its own;
`numbers` holds these one after the other, in the layout's order. Hosts differ in their disks and interfaces, so a fleet
has about as many layouts as hosts, and one matrix for each layout would be a thousand small ones a second.

The head keeps batches packed, as they went to the log: a sixth of the memory, so blocks are that much larger and
fewer. Shards bound what has to be unpacked for the newest of one server.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from server_monitor.series import rollup
from server_monitor.series.blocks import Damaged, Effort, Ints, Mask, Table, compress, decompress, encode
from server_monitor.series.file import Stored
from server_monitor.series.precision import Values, factors, to_numbers, to_values
from server_monitor.series.rollup import Rows
from server_monitor.series.sample import Sample
from server_monitor.series.tiers import PERIOD_MS, Names, Tier

_SHARD_SERVERS = 32
_LOG = struct.Struct("<III")  # samples, numbers, bytes of the bitmap of holes; then four int64 for each sample
_BYTES_OBJECT_BYTES = 48

NamesOf = Callable[[int], Names]


@dataclass(frozen=True, slots=True)
class Batch:
    """Sample `i` is of the server with short id `servers[i]`, has layout `layouts[i]`, and its numbers are
    `numbers[starts[i]:starts[i + 1]]`. `present` is None when no number is missing."""

    servers: Ints
    layouts: Ints
    at_ms: Ints
    starts: Ints
    numbers: Ints
    present: Mask | None

    def __len__(self) -> int:
        return len(self.servers)

    def by_shard(self) -> Iterator[tuple[int, "Batch"]]:
        """The samples of each shard, for a batch that is ordered by server."""
        shards = self.servers // _SHARD_SERVERS
        cuts = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(self)]
        for first, last in pairwise(cuts):
            low, high = int(self.starts[first]), int(self.starts[last])
            yield (
                int(shards[first]),
                Batch(
                    self.servers[first:last],
                    self.layouts[first:last],
                    self.at_ms[first:last],
                    self.starts[first : last + 1] - low,
                    self.numbers[low:high],
                    None if self.present is None else self.present[low:high],
                ),
            )

    def pack(self) -> bytes:
        """As it stands in the log: the parts of `_LOG` and then, in planes like those of a block, the numbers."""
        holes = b"" if self.present is None else np.packbits(self.present).tobytes()
        parts = (self.servers, self.layouts, np.diff(self.starts), self.at_ms)
        return compress(
            b"".join(
                (
                    _LOG.pack(len(self), len(self.numbers), len(holes)),
                    *(part.astype("<i8").tobytes() for part in parts),
                    holes,
                    self.numbers.astype("<i8").view(np.uint8).reshape(-1, 8).T.tobytes(),
                )
            ),
            Effort.LOOSE,
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Batch":
        """Raises Damaged."""
        return _Opened(data).batch()

    def samples(self, server_ids: Mapping[int, str], names_of: NamesOf) -> Iterator[Sample]:
        """The samples as they were, their values rounded. Raises Damaged when a layout is not known."""
        for server, layout, at_ms, (first, last) in zip(
            self.servers.tolist(),
            self.layouts.tolist(),
            self.at_ms.tolist(),
            pairwise(self.starts.tolist()),
            strict=True,
        ):
            names = names_of(layout)
            present = None if self.present is None else self.present[first:last]
            values = to_values(self.numbers[first:last], present, factors(names)).tolist()
            there = {name: value for name, value in zip(names, values, strict=True) if value == value}  # noqa: PLR0124  # NaN
            yield Sample(server_ids[server], at_ms / 1000, there)


class _Opened:
    """A packed batch of which only what is asked for is put together. Raises Damaged when it is not one."""

    __slots__ = ("_bits", "_planes", "at_ms", "layouts", "servers", "starts")

    def __init__(self, data: bytes) -> None:
        payload = decompress(data)
        try:
            count, total, holes = _LOG.unpack_from(payload)
            self.servers, self.layouts, sizes, self.at_ms = np.frombuffer(
                payload, np.int64, 4 * count, _LOG.size
            ).reshape(4, count)
            at = _LOG.size + 32 * count
            self._bits = np.frombuffer(payload, np.uint8, holes, at)
            self._planes = np.frombuffer(payload, np.uint8, 8 * total, at + holes).reshape(8, total)
        except (struct.error, ValueError) as error:
            raise Damaged(str(error)) from error
        self.starts = _starts(sizes)
        if self.starts[-1] != total:
            raise Damaged(f"{total} numbers where the samples have {self.starts[-1]}")

    def batch(self) -> Batch:
        everything = slice(None)
        numbers = self.numbers(everything)
        return Batch(self.servers, self.layouts, self.at_ms, self.starts, numbers, self.present(everything))

    def numbers(self, cells: Ints | slice) -> Ints:
        return np.ascontiguousarray(self._planes[:, cells].T).view(np.int64)[..., 0]

    def present(self, cells: Ints | slice) -> Mask | None:
        if not len(self._bits):
            return None
        return np.unpackbits(self._bits, count=self._planes.shape[1]).view(np.bool_)[cells]


def rows_of(packed: Sequence[bytes], server: int, wanted: Names, names_of: NamesOf) -> list[Rows]:
    """One server's samples in packed batches, with the series wanted; of each layout apart. Raises Damaged."""
    places_in: dict[int, tuple[Names, Ints]] = {}
    found: dict[int, list[tuple[Ints, Values]]] = {}
    for data in packed:
        opened = _Opened(data)
        for place in np.flatnonzero(opened.servers == server).tolist():
            layout = int(opened.layouts[place])
            if layout not in places_in:
                places_in[layout] = _places(names_of(layout), wanted)
            kept, places = places_in[layout]
            cells = places + opened.starts[place]
            values = to_values(opened.numbers(cells), opened.present(cells), factors(kept))
            found.setdefault(layout, []).append((opened.at_ms[place : place + 1], values))
    rows = []
    for layout, samples in found.items():
        kept, _ = places_in[layout]
        at_ms, values = (np.concatenate([one[0] for one in samples]), np.stack([one[1] for one in samples]))
        rows.append(rollup.widen(rollup.of_samples(at_ms, values), kept, wanted))
    return rows


def _places(names: Names, wanted: Names) -> tuple[Names, Ints]:
    """Those of the wanted series that the layout has, and where."""
    kept = tuple(name for name in wanted if name in names)
    return kept, np.array([names.index(name) for name in kept], np.int64)


def layouts_of(packed: Sequence[bytes], server: int) -> set[int]:
    """The layouts of one server's samples in packed batches. Raises Damaged."""
    found: set[int] = set()
    for data in packed:
        opened = _Opened(data)
        found.update(opened.layouts[opened.servers == server].tolist())
    return found


def batch(samples: Sequence[Sample], servers: Sequence[int], layouts: Sequence[int], names: Sequence[Names]) -> Batch:
    """The samples, whose servers and layouts are known to the file by these numbers."""
    values = np.fromiter(chain.from_iterable(sample.values.values() for sample in samples), np.float64)
    numbers, present = to_numbers(values, np.concatenate([factors(one) for one in names]))
    return Batch(
        np.array(servers, np.int64),
        np.array(layouts, np.int64),
        np.rint(np.array([sample.at for sample in samples]) * 1000).astype(np.int64),
        _starts(np.array([len(one) for one in names])),
        numbers,
        present,
    )


def _starts(sizes: Ints) -> Ints:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))


class Head:
    """The batches of all shards. One thread adds and clears while no other looks; `History` sees to that."""

    def __init__(self) -> None:
        self._shards: dict[int, list[bytes]] = {}
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._shards)

    def add(self, shard: int, packed: bytes) -> None:
        self._shards.setdefault(shard, []).append(packed)
        self.size_bytes += len(packed) + _BYTES_OBJECT_BYTES

    def clear(self) -> None:
        self._shards.clear()
        self.size_bytes = 0

    def shards(self) -> Iterator[Batch]:
        """All batches of a shard as one, shard by shard."""
        for batches in self._shards.values():
            yield _join([Batch.unpack(packed) for packed in batches])

    def batches_with(self, server: int) -> list[bytes]:
        """Where samples of a server may be. The list is the caller's."""
        return self._shards.get(server // _SHARD_SERVERS, [])[:]


def _join(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    present = None
    if any(one.present is not None for one in batches):
        present = np.concatenate(
            [np.ones(len(one.numbers), np.bool_) if one.present is None else one.present for one in batches]
        )
    return Batch(
        np.concatenate([one.servers for one in batches]),
        np.concatenate([one.layouts for one in batches]),
        np.concatenate([one.at_ms for one in batches]),
        _starts(np.concatenate([np.diff(one.starts) for one in batches])),
        np.concatenate([one.numbers for one in batches]),
        present,
    )


def loose_blocks(head: Batch, names_of: NamesOf, layout_of: Callable[[Names], int]) -> Iterator[Stored]:
    """The samples as loose blocks, one for each server and hour, each in the order of time."""
    periods = head.at_ms // PERIOD_MS[Tier.RAW]
    order = np.lexsort((head.at_ms, periods, head.servers))
    changes = np.flatnonzero((np.diff(head.servers[order]) != 0) | (np.diff(periods[order]) != 0)) + 1
    for places in np.split(order, changes):
        layouts = list(dict.fromkeys(head.layouts[places].tolist()))
        names = names_of(layouts[0])
        layout = layouts[0]
        if len(layouts) > 1:
            names = tuple(dict.fromkeys(chain.from_iterable(map(names_of, layouts))))
            layout = layout_of(names)
        table = _table(head, places, names, names_of)
        data = encode(table, Effort.LOOSE)
        server, period = int(head.servers[places[0]]), int(periods[places[0]])
        yield Stored(server, Tier.RAW, period, settled=False, rows=len(places), layout=layout, data=data)


def _table(head: Batch, places: Ints, names: Names, names_of: NamesOf) -> Table:
    """Samples of one server, which may differ in their layouts, as rows of the series `names`."""
    layouts = list(dict.fromkeys(head.layouts[places].tolist()))
    if len(layouts) == 1 and head.present is None:
        return Table(head.at_ms[places], head.numbers[head.starts[places][:, None] + np.arange(len(names))])
    numbers = np.zeros((len(places), len(names)), np.int64)
    present = np.zeros(numbers.shape, np.bool_)
    place_of = {name: place for place, name in enumerate(names)}
    for layout in layouts:
        own = names_of(layout)
        rows = np.flatnonzero(head.layouts[places] == layout)
        columns = np.array([place_of[name] for name in own], np.intp)
        cells = head.starts[places[rows]][:, None] + np.arange(len(own))
        target = np.ix_(rows, columns)
        numbers[target] = head.numbers[cells]
        present[target] = True if head.present is None else head.present[cells]
    return Table(head.at_ms[places], numbers, None if present.all() else present)
