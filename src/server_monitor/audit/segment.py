"""Records outside the database: a segment of an archive, or a bundle for an auditor, as one `.tar.gz`. Pure.

The members, in this order, and nothing else::

    README.txt verify.py vkeys.txt      only in a bundle
    manifest.json                       what it holds, see `Manifest`
    checkpoints/000000.txt …            signed notes, one after the other, by size
    records/000000000000.ndjson …       canonical records, one a line, named by the first

The same records and notes always make the same bytes: no times, no names of users, one gzip header. Both packing and
reading go through the bytes once. Packing keeps one member in memory, because its size stands before it; reading keeps
a piece of one. Reading accepts only what packing writes.
"""

import base64
import binascii
import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from server_monitor.audit import chain, note
from server_monitor.audit.reading import RECORD_LIMIT_BYTES
from server_monitor.audit.verify import Part, Row, StoredNote, Unreadable
from server_monitor.errors import Invalid

FORMAT = "server-monitor audit log"
VERSION = 1
CHUNK_BYTES = 4 * 1024 * 1024  # a member is closed once it has as much
MANIFEST_LIMIT_BYTES = 64 * 1024
MANIFEST = "manifest.json"
CHECKPOINTS = "checkpoints/"
RECORDS = "records/"
BESIDE = ("README.txt", "verify.py", "vkeys.txt")

_BLOCK_BYTES = 512
_MEMBER_LIMIT_BYTES = CHUNK_BYTES + RECORD_LIMIT_BYTES
_READ_BYTES = 256 * 1024
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no flags, no time, unknown system
_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a file says about itself; nothing of it is believed before a signed checkpoint says the same.

    `prefix` is the frontier of the tree of `first_seq` records, `root` the root of the tree of `end_seq`.
    """

    origin: str
    first_seq: int
    end_seq: int
    prefix: tuple[bytes, ...]
    root: bytes

    def encoded(self) -> bytes:
        return chain.canonical(
            {
                "format": FORMAT,
                "version": VERSION,
                "origin": self.origin,
                "first_seq": self.first_seq,
                "end_seq": self.end_seq,
                "prefix": [base64.b64encode(node).decode() for node in self.prefix],
                "root": base64.b64encode(self.root).decode(),
            }
        )


class Packer:
    """Makes the bytes of one file, piece by piece, in the order in which they are given."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = self._length = 0
        self._chunk = bytearray(_BLOCK_BYTES)  # the records of a member, behind room for its header
        self._chunk_records = 0
        self._next_seq = 0

    def begin(self, manifest: Manifest, beside: Iterable[tuple[str, bytes]] = ()) -> bytes:
        self._next_seq = manifest.first_seq
        first = b"".join(self._member(name, data) for name, data in beside)
        return _GZIP_HEADER + first + self._member(MANIFEST, manifest.encoded())

    def checkpoints(self, notes: Iterable[str]) -> Iterator[bytes]:
        """All checkpoints, ordered by size; before any record."""
        number = 0
        chunk: list[bytes] = []
        for text in notes:
            chunk.append(text.encode())
            if sum(map(len, chunk)) >= note.SIZE_LIMIT_BYTES:
                yield self._member(f"{CHECKPOINTS}{number:06}.txt", b"".join(chunk))
                number, chunk = number + 1, []
        if chunk:
            yield self._member(f"{CHECKPOINTS}{number:06}.txt", b"".join(chunk))

    def records(self, bodies: Iterable[bytes]) -> bytes:
        """The next records."""
        packed = []
        for body in bodies:
            self._chunk += body
            self._chunk += b"\n"
            self._chunk_records += 1
            if len(self._chunk) >= _BLOCK_BYTES + CHUNK_BYTES:
                packed.append(self._close_chunk())
        return b"".join(packed)

    def end(self) -> bytes:
        last = self._close_chunk() if self._chunk_records else b""
        last += self._packed(b"\0" * (2 * _BLOCK_BYTES)) + self._deflate.flush()
        return last + self._crc.to_bytes(4, "little") + (self._length & 0xFFFFFFFF).to_bytes(4, "little")

    def _close_chunk(self) -> bytes:
        size = len(self._chunk) - _BLOCK_BYTES
        self._chunk[:_BLOCK_BYTES] = _header(f"{RECORDS}{self._next_seq:012}.ndjson", size)
        self._chunk += b"\0" * (-size % _BLOCK_BYTES)
        self._next_seq += self._chunk_records
        packed = self._packed(self._chunk)
        self._chunk, self._chunk_records = bytearray(_BLOCK_BYTES), 0
        return packed

    def _member(self, name: str, data: bytes) -> bytes:
        return self._packed(_header(name, len(data)) + data + b"\0" * (-len(data) % _BLOCK_BYTES))

    def _packed(self, data: bytes | bytearray) -> bytes:
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)
        return self._deflate.compress(data)


def pack(manifest: Manifest, notes: Iterable[str], bodies: Iterable[bytes]) -> Iterator[bytes]:
    """A whole segment, as pieces of bytes."""
    packer = Packer()
    yield packer.begin(manifest)
    yield from packer.checkpoints(notes)
    for body in bodies:
        if packed := packer.records((body,)):
            yield packed
    yield packer.end()


@dataclass(frozen=True, slots=True)
class Segment:
    """A file opened for reading: `open_file` opens it anew from its start."""

    name: str
    manifest: Manifest
    open_file: Callable[[], BinaryIO]

    def notes(self) -> Iterator[StoredNote]:
        """The checkpoints in it. Raises Unreadable."""
        with self.open_file() as file:
            for name, pieces in _members(file):
                if name.startswith(RECORDS):
                    return
                if name.startswith(CHECKPOINTS):
                    for text in split_notes(_text(name, b"".join(pieces))):
                        yield StoredNote(text, place=self.name)

    def records(self) -> Iterator[Sequence[Row]]:
        """Every record, some at a time, and every byte of the file up to its end. Raises Unreadable."""
        with self.open_file() as file:
            for name, pieces in _members(file):
                if name.startswith(RECORDS):
                    piece = rest = b""
                    for piece in pieces:
                        *bodies, rest = (rest + piece).split(b"\n")
                        yield [(None, body) for body in bodies]
                    if not piece.endswith(b"\n"):
                        raise Unreadable(f"{name} ends in the middle of a record")

    def part(self, *, is_prunable: bool) -> Part:
        said = self.manifest
        return Part(
            self.name,
            said.first_seq,
            said.prefix,
            self.records(),
            end_seq=said.end_seq,
            end_root=said.root,
            origin=said.origin,
            ends_signed=True,
            is_prunable=is_prunable,
        )


def open_segment(name: str, open_file: Callable[[], BinaryIO]) -> Segment:
    """What the file says it holds. Raises Unreadable."""
    with open_file() as file:
        for member, pieces in _members(file):
            if member == MANIFEST:
                return Segment(name, _manifest(b"".join(pieces)), open_file)
            if member not in BESIDE:
                break
    raise Unreadable("it does not begin with a manifest")


def split_notes(text: str) -> list[str]:
    """Notes that were written one after the other: each ends where its signatures end."""
    notes: list[list[str]] = [[]]
    was_signature = False
    for line in text.splitlines(keepends=True):
        is_signature = line.startswith("\N{EM DASH} ")
        if was_signature and not is_signature:
            notes.append([])
        if notes[-1] or line.strip():
            notes[-1].append(line)
        was_signature = is_signature
    return ["".join(lines) for lines in notes if lines]


def _manifest(data: bytes) -> Manifest:
    try:
        said = json.loads(data)
        if said["format"] != FORMAT or said["version"] != VERSION:
            raise Unreadable("it is of a version that this program does not know")
        manifest = Manifest(
            str(said["origin"]),
            int(said["first_seq"]),
            int(said["end_seq"]),
            tuple(base64.b64decode(node, validate=True) for node in said["prefix"]),
            base64.b64decode(said["root"], validate=True),
        )
        if manifest.encoded() != data or not 0 <= manifest.first_seq <= manifest.end_seq:
            raise Unreadable("its manifest is malformed")
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError, binascii.Error, Invalid) as error:
        raise Unreadable("its manifest is malformed") from error
    return manifest


def _members(file: BinaryIO) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Every member with its bytes, piece by piece, then that nothing follows. Raises Unreadable."""
    plain = _Plain(file)
    while (block := plain.read(_BLOCK_BYTES)) != b"\0" * _BLOCK_BYTES:
        name, size = _entry(block)
        pieces = plain.pieces(size)
        yield name, pieces
        for _ in pieces:  # Those that nobody wanted count for the checksum all the same.
            pass
        if plain.read(-size % _BLOCK_BYTES).strip(b"\0"):
            raise Unreadable(f"{name} is followed by something that belongs to nothing")
    plain.end()


def _entry(block: bytes) -> tuple[str, int]:
    try:
        name, size = block[:100].rstrip(b"\0").decode("ascii"), int(block[124:135], 8)
        is_ours = 0 <= size <= _MEMBER_LIMIT_BYTES and _header(name, size) == block
    except (ValueError, tarfile.TarError) as error:
        raise Unreadable("it is damaged") from error
    is_known = name == MANIFEST or name in BESIDE or name.startswith((CHECKPOINTS, RECORDS))
    if not is_ours or not is_known:
        raise Unreadable("it holds something that does not belong into it")
    return name, size


def _header(name: str, size: int) -> bytes:
    """The header of a member: mode 0644, no times, no users."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


class _Plain:
    """The bytes inside a gzip file that `Packer` made; any other is refused."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._ready = b""
        self._crc = self._length = 0
        if self._raw(len(_GZIP_HEADER)) != _GZIP_HEADER:
            raise Unreadable("it is not a segment or bundle of an audit log")

    def read(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._ready and not self._more():
                raise Unreadable("it ends too early")
            piece, self._ready = self._ready[:size], self._ready[size:]
            size -= len(piece)
            if piece:
                yield piece

    def end(self) -> None:
        """One more block of zeros, the right checksum, and no byte more."""
        if self.read(_BLOCK_BYTES).strip(b"\0") or self._ready or self._more():
            raise Unreadable("something follows its end")
        rest = self._inflate.unused_data + self._raw(_READ_BYTES)
        if rest != self._crc.to_bytes(4, "little") + (self._length & 0xFFFFFFFF).to_bytes(4, "little"):
            raise Unreadable("its checksum is wrong: it was damaged or changed")

    def _more(self) -> bool:
        if self._inflate.eof:
            return False
        try:
            fed = self._inflate.unconsumed_tail or self._raw(_READ_BYTES)
            data = self._inflate.decompress(fed, _READ_BYTES)
        except zlib.error as error:
            raise Unreadable("it is damaged") from error
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)
        self._ready = data
        return bool(data) or bool(fed)

    def _raw(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise Unreadable(f"it cannot be read: {error.strerror}") from error


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"{name} is not text") from error
