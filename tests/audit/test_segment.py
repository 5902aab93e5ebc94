"""Records outside the database: the same always make the same bytes, and no other bytes are accepted."""

import base64
import io
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server_monitor.audit import segment
from server_monitor.audit.segment import Manifest
from server_monitor.audit.verify import Unreadable

MANIFEST = Manifest("n/server-monitor/audit/1", 2, 5, (b"p" * 32,), b"r" * 32)
NOTES = [
    f"n/server-monitor/audit/1\n{size}\n{base64.b64encode(b'r' * 32).decode()}\n\n— n/server-monitor/audit/1 AAAAAAAA\n"
    for size in (3, 5)
]
BODIES = [b'{"seq":2}', b'{"seq":3}', '{"name":"é","seq":4}'.encode()]
PACKED = b"".join(segment.pack(MANIFEST, NOTES, BODIES))


def unpacked(data: bytes) -> tuple[Manifest, list[str], list[bytes]]:
    opened = segment.open_segment("s", lambda: io.BytesIO(data))
    notes = [stored.note for stored in opened.notes()]
    return opened.manifest, notes, [row[1] for rows in opened.records() for row in rows]


def test_what_was_packed_is_read_back() -> None:
    assert unpacked(PACKED) == (MANIFEST, NOTES, BODIES)


def test_the_same_records_make_the_same_bytes() -> None:
    assert b"".join(segment.pack(MANIFEST, NOTES, BODIES)) == PACKED


def test_records_fill_several_members() -> None:
    bodies = [b"x" * 1_000_000] * 10
    packed = b"".join(segment.pack(MANIFEST, NOTES * 1000, bodies))

    assert unpacked(packed) == (MANIFEST, NOTES * 1000, bodies)


def test_a_flipped_bit_changes_nothing_unnoticed() -> None:
    """A few bits only choose between two spellings of the same content for gzip, and may be either."""
    noticed = 0
    for position in range(len(PACKED) * 8):
        flipped = bytearray(PACKED)
        flipped[position // 8] ^= 1 << position % 8
        try:
            assert unpacked(bytes(flipped)) == (MANIFEST, NOTES, BODIES)
        except Unreadable:
            noticed += 1
    assert noticed > len(PACKED) * 7


@pytest.mark.parametrize("data", [b"", PACKED[:-1], PACKED + b"\0", PACKED + PACKED, b"\x1f\x8b" + b"\0" * 100])
def test_any_other_file_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable):
        unpacked(data)


@given(st.binary(max_size=200), st.integers(0, len(PACKED)))
@settings(max_examples=200)
def test_a_damaged_file_is_refused_or_still_the_same(noise: bytes, position: int) -> None:
    damaged = PACKED[:position] + noise + PACKED[position + len(noise) :]
    try:
        assert unpacked(damaged) == (MANIFEST, NOTES, BODIES)
    except Unreadable:
        return


@pytest.mark.parametrize("members", [["evil.txt"], ["../manifest.json"], ["manifest.json/x"], ["records/0.ndjson"]])
def test_a_file_with_other_members_is_refused(members: Sequence[str]) -> None:
    packer = segment.Packer()
    packed = packer.begin(MANIFEST, [(name, b"x") for name in members]) + packer.end()

    with pytest.raises(Unreadable):
        unpacked(packed)
