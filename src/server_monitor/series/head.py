"""The newest samples, in memory until they fill blocks worth writing.

A *batch* is what one flush wrote to the log: samples of any servers with any series, as two tables. `samples` has a row
for each, with its server, its layout and how many numbers are its own; `numbers` holds these one after the other, in
the layout's order. Hosts differ in their disks and interfaces, so a fleet has about as many layouts as hosts, and one
matrix for each layout would be a thousand small ones a second.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from server_monitor.series import rollup
from server_monitor.series.blocks import Block, Damaged, Effort, Ints, Kind, Mask, Table, encode, pack_quickly
from server_monitor.series.file import Packed, Stored
from server_monitor.series.precision import factors, to_numbers, to_values
from server_monitor.series.rollup import Rows
from server_monitor.series.sample import Sample
from server_monitor.series.tiers import PERIOD_MS, Names, Tier

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

    @property
    def size_bytes(self) -> int:
        return self.numbers.nbytes + 32 * len(self) + (0 if self.present is None else self.present.nbytes)

    def pack(self) -> Packed:
        samples = np.vstack((self.servers, self.layouts, self.at_ms, np.diff(self.starts)))
        present = None if self.present is None else self.present[None, :]
        return Packed(
            pack_quickly(samples, None, Kind.OFFSET), pack_quickly(self.numbers[None, :], present, Kind.OFFSET)
        )

    @classmethod
    def unpack(cls, packed: Packed) -> "Batch":
        """Raises Damaged."""
        (servers, layouts, at_ms, sizes), _ = Block(packed.samples).unpack(np.arange(4))
        numbers, present = Block(packed.numbers).unpack(np.arange(1))
        starts = _starts(sizes)
        if starts[-1] != numbers.shape[1]:
            raise Damaged(f"{numbers.shape[1]} numbers where the samples have {starts[-1]}")
        return cls(servers, layouts, at_ms, starts, numbers[0], None if present is None else present[0])

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

    def rows_of(self, server: int, wanted: Names, names_of: NamesOf) -> Iterator[Rows]:
        """One server's samples, with the series wanted."""
        for place in np.flatnonzero(self.servers == server).tolist():
            names, first = names_of(int(self.layouts[place])), int(self.starts[place])
            kept = tuple(name for name in wanted if name in names)
            if kept:
                cells = np.array([first + names.index(name) for name in kept])
                present = None if self.present is None else self.present[cells]
                values = to_values(self.numbers[cells], present, factors(kept))
                rows = rollup.of_samples(self.at_ms[place : place + 1], values[None, :])
                yield rollup.widen(rows, kept, wanted)


def batch(samples: Sequence[Sample], servers: Sequence[int], layouts: Sequence[int]) -> Batch:
    """The samples, whose servers and layouts are known to the file by these numbers."""
    values = np.fromiter(chain.from_iterable(sample.values.values() for sample in samples), np.float64)
    numbers, present = to_numbers(values, np.concatenate([factors(tuple(sample.values)) for sample in samples]))
    return Batch(
        np.array(servers, np.int64),
        np.array(layouts, np.int64),
        np.rint(np.array([sample.at for sample in samples]) * 1000).astype(np.int64),
        _starts(np.array([len(sample.values) for sample in samples])),
        numbers,
        present,
    )


def _starts(sizes: Ints) -> Ints:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))


def join(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    present = None
    if any(b.present is not None for b in batches):
        present = np.concatenate(
            [np.ones(len(b.numbers), np.bool_) if b.present is None else b.present for b in batches]
        )
    return Batch(
        np.concatenate([b.servers for b in batches]),
        np.concatenate([b.layouts for b in batches]),
        np.concatenate([b.at_ms for b in batches]),
        _starts(np.concatenate([np.diff(b.starts) for b in batches])),
        np.concatenate([b.numbers for b in batches]),
        present,
    )


def loose_blocks(batches: Sequence[Batch], names_of: NamesOf, layout_of: Callable[[Names], int]) -> Iterator[Stored]:
    """The batches as loose blocks, one for each server and hour, each in the order of time."""
    head = join(batches)
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
