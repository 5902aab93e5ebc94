"""The published test vectors of docs/reference/audit-format.md hold for both verifiers."""

import base64
import json
import tarfile
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from server_monitor.audit import note, reading, segment, sources, standalone, tree
from server_monitor.audit.note import Checkpoint, Verifier
from server_monitor.errors import Unavailable
from tests.audit.test_verify_database import _verified

VECTORS = Path(__file__).resolve().parents[2] / "docs" / "reference" / "audit-vectors"
LOG: dict[str, Any] = json.loads((VECTORS / "log.json").read_text())
RECORDS = [record.encode() for record in LOG["records"]]
ROOTS = [base64.b64decode(root) for root in LOG["roots"]]
BUNDLE = VECTORS / "bundle.tar.gz"


def test_the_records_are_records_and_the_others_are_not() -> None:
    assert all(reading.read(record) and standalone.read_record(record) for record in RECORDS)
    others = [text.encode() for text in LOG["not_records"]]
    assert not any(reading.read(other) or standalone.read_record(other) for other in others)


def test_hashes_frontiers_and_roots_are_those_published() -> None:
    frontier: tuple[bytes, ...] = ()
    for size, record in enumerate(RECORDS):
        leaf = tree.leaf_hash(record)
        frontier = tree.grow(frontier, size, leaf)
        assert base64.b64encode(leaf).decode() == LOG["leaf_hashes"][size]
        assert [base64.b64encode(node).decode() for node in frontier] == LOG["frontiers"][size + 1]
        assert tree.root(frontier) == standalone.tree_root(list(frontier)) == ROOTS[size + 1]


def test_the_checkpoints_are_signed_with_the_published_key() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(LOG["seed_hex"]))
    for text in LOG["checkpoints"]:
        checkpoint = note.open_note(text, [Verifier.parse(LOG["vkey"])])
        assert (
            note.sign(Checkpoint(LOG["origin"], checkpoint.size, ROOTS[checkpoint.size]), {LOG["origin"]: key}) == text
        )
        assert standalone.Verification([standalone.parse_key(LOG["vkey"])]).is_trusted(standalone.parse_note(text))


def test_the_bundle_is_intact_and_is_made_of_these_bytes() -> None:
    manifest = segment.Manifest(LOG["origin"], 0, len(RECORDS), (), ROOTS[-1])

    report = _verified(sources.bundle(BUNDLE), [], [Verifier.parse(LOG["vkey"])])
    theirs = standalone.verify(str(BUNDLE), [standalone.parse_key(LOG["vkey"])], [])

    assert report.is_intact
    assert {theirs.verdict(verdict) for verdict in theirs.broken} == {"intact"}
    opened = segment.open_segment("b", lambda: BUNDLE.open("rb"))
    assert opened.manifest == manifest
    assert [row[1] for rows in opened.records() for row in rows] == RECORDS


@given(st.binary(max_size=64), st.binary(min_size=32, max_size=32))
@settings(max_examples=30, deadline=None)
def test_signatures_are_judged_as_the_library_judges_them(message: bytes, seed: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)

    assert standalone.has_signed(public, message, signature)
    assert not standalone.has_signed(public, message + b"x", signature)
    assert not standalone.has_signed(public, message, signature[:40] + bytes([signature[40] ^ 1]) + signature[41:])
    # The same signature with a scalar beyond the order of the group (RFC 8032, 5.1.7) is another, and wrong.
    scalar = int.from_bytes(signature[32:], "little") + standalone.ORDER
    assert not standalone.has_signed(public, message, signature[:32] + scalar.to_bytes(32, "little"))


@given(offset=st.integers(0, len(BUNDLE.read_bytes()) - 1), mask=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_no_byte_of_a_bundle_can_be_changed(offset: int, mask: int) -> None:
    """For either verifier it is broken then, or cannot be read, unless the file still holds the very same."""
    data = bytearray(BUNDLE.read_bytes())
    data[offset] ^= mask
    with NamedTemporaryFile(suffix=".tar.gz") as file:
        file.write(data)
        file.flush()
        path = Path(file.name)
        if _is_intact(path) or _is_intact_to_the_other(path):
            assert members(path) == members(BUNDLE)


def _is_intact(path: Path) -> bool:
    try:
        return _verified(sources.bundle(path), [], [Verifier.parse(LOG["vkey"])]).is_intact
    except Unavailable:
        return False


def _is_intact_to_the_other(path: Path) -> bool:
    try:
        found = standalone.verify(str(path), [standalone.parse_key(LOG["vkey"])], [])
    except standalone.Unreadable:
        return False
    return {found.verdict(verdict) for verdict in found.broken} == {"intact"}


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {entry.name: content.read() for entry in archive if (content := archive.extractfile(entry)) is not None}
