"""Blocks give back every number, or say that they are damaged."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from server_monitor.series.blocks import Block, Damaged, Effort, Table, encode

_INT64 = st.integers(-(2**63), 2**63 - 1)
_NEAR = st.integers(-300, 300)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    rows, cols = draw(st.integers(1, 40)), draw(st.integers(0, 6))
    numbers = draw(hnp.arrays(np.int64, (rows, cols), elements=draw(st.sampled_from([_NEAR, _INT64]))))
    present = draw(st.none() | hnp.arrays(np.bool_, (rows, cols)))
    if present is not None and (present.size == 0 or present.all()):
        present = None
    at_ms = np.cumsum(draw(hnp.arrays(np.int64, rows, elements=st.integers(0, 2**40))))
    return Table(at_ms, numbers, present)


def same(one: Table, other: Table) -> bool:
    if (one.present is None) != (other.present is None):
        return False
    there = np.ones(one.numbers.shape, np.bool_) if one.present is None else one.present
    return bool(
        np.array_equal(one.at_ms, other.at_ms)
        and (one.present is None or np.array_equal(one.present, other.present))
        and np.array_equal(one.numbers[there], other.numbers[there])
    )


@given(tables(), st.sampled_from(Effort))
def test_every_number_comes_back(table: Table, effort: Effort) -> None:
    assert same(Block(encode(table, effort)).table(), table)


@given(tables(), st.data())
def test_a_few_series_come_back_alone(table: Table, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, table.numbers.shape[1] - 1), max_size=4)) if table.numbers.size else []
    part = Block(encode(table, Effort.SETTLED)).table(chosen)
    whole = Block(encode(table, Effort.SETTLED)).table()
    assert np.array_equal(part.numbers, whole.numbers[:, chosen])
    if whole.present is not None:
        there = np.ones(part.numbers.shape, np.bool_) if part.present is None else part.present
        assert np.array_equal(there, whole.present[:, chosen])


@pytest.mark.parametrize(
    "column",
    [
        np.arange(0, 4096_000, 4096),  # a counter: all differences alike
        np.array([2**63 - 1, -(2**63)] * 500),  # differences that wrap
        np.full(1000, -7),
        np.cumsum(np.arange(1000)),  # differences of differences
        np.where(np.arange(1000) == 500, 2**62, 3),  # one giant among dwarfs
    ],
)
def test_columns_of_every_shape_come_back(column: np.ndarray) -> None:
    table = Table(np.arange(1000, dtype=np.int64) * 1000, column[:, None].astype(np.int64))
    assert same(Block(encode(table, Effort.SETTLED)).table(), table)


def test_what_does_not_change_costs_nothing() -> None:
    """Forty constant series for an hour take less than a byte for each minute of each."""
    at_ms = np.arange(3600, dtype=np.int64) * 1000
    assert len(encode(Table(at_ms, np.full((3600, 40), 123_456_789)), Effort.SETTLED)) < 300


@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    table = Table(np.arange(50, dtype=np.int64), np.arange(150, dtype=np.int64).reshape(50, 3) ** 2)
    block = bytearray(encode(table, Effort.SETTLED))
    place = data.draw(st.integers(0, len(block) - 1))
    block[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Damaged):
        assert same(Block(bytes(block)).table(), table), "an unnoticed change must at least change nothing"


@given(st.binary(max_size=200))
def test_anything_else_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        Block(data)


def test_a_block_cut_short_is_damaged() -> None:
    whole = encode(Table(np.arange(50, dtype=np.int64), np.zeros((50, 3), np.int64)), Effort.SETTLED)
    for size in range(len(whole)):
        with pytest.raises(Damaged):
            Block(whole[:size])
