"""Signed checkpoints as C2SP notes, so that tools of others can check ours. Pure.

A checkpoint says that at this moment the log had this many records and this root, for example::

    0193f1c2-…/server-monitor/audit/1
    1037
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — 0193f1c2-…/server-monitor/audit/1 Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q…

Specifications: c2sp.org/signed-note, c2sp.org/tlog-checkpoint; keys are Ed25519, signature type 0x01.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from server_monitor.audit.tree import HASH_BYTES
from server_monitor.errors import Invalid

ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_DASH = "\N{EM DASH} "
SIZE_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log claims about itself. `root` is 32 bytes."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key and the name it signs under."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.public_key).digest()[:_KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The key as one line that can be pinned: name, key id and key."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(ED25519 + self.public_key).decode()}"

    @classmethod
    def parse(cls, vkey: str) -> "Verifier":
        """Read a pinned line. Raises Invalid when it is not an Ed25519 key or its id is not its own."""
        name, _, rest = vkey.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        key = _unbase64(encoded, "public key")
        if not _is_name(name) or key[:1] != ED25519 or len(key) != 1 + 32:
            raise Invalid.one("public key", "is not a line of the form name+id+key with an Ed25519 key")
        verifier = cls(name, key[1:])
        if verifier.key_id.hex() != key_id:
            raise Invalid.one("public key", "has an id that is not its own; copy the whole line again")
        return verifier

    def has_signed(self, text: str, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


def verifier_of(name: str, key: Ed25519PrivateKey) -> Verifier:
    return Verifier(name, key.public_key().public_bytes_raw())


def sign(checkpoint: Checkpoint, keys: Mapping[str, Ed25519PrivateKey]) -> str:
    """The checkpoint as a note, signed under each name by its key."""
    lines = []
    for name, key in keys.items():
        signature = verifier_of(name, key).key_id + key.sign(checkpoint.text.encode())
        lines.append(f"{_DASH}{name} {base64.b64encode(signature).decode()}\n")
    return f"{checkpoint.text}\n{''.join(lines)}"


def read(note: str) -> tuple[Checkpoint, list[tuple[str, bytes, bytes]]]:
    """A note taken apart, with nothing verified: the checkpoint, and (name, key id, signature) of each signature.

    Raises Invalid for anything that is not exactly in the form of the specification.
    """
    if len(note) > SIZE_LIMIT_BYTES:
        raise Invalid.one("checkpoint", "is too long to be one")
    text, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise Invalid.one("checkpoint", "is not a signed note: the text, an empty line, the signatures")
    checkpoint = _parse(text + "\n")
    return checkpoint, [_signature(line) for line in signatures[:-1].split("\n")]


def open_note(note: str, verifiers: Mapping[str, Verifier] | list[Verifier]) -> Checkpoint:
    """The checkpoint of a note that one of the pinned keys has signed.

    Raises Invalid when none has, or when a pinned key's signature is wrong.
    """
    known = list(verifiers.values()) if isinstance(verifiers, Mapping) else verifiers
    checkpoint, signatures = read(note)
    signed = False
    for name, key_id, signature in signatures:
        for verifier in known:
            if (verifier.name, verifier.key_id) != (name, key_id):
                continue
            if not verifier.has_signed(checkpoint.text, signature):
                raise Invalid.one("checkpoint", f"the signature of {name} is wrong")
            signed = True
    if not signed:
        raise Invalid.one("checkpoint", "is signed by none of the keys you trust")
    return checkpoint


def _parse(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise Invalid.one("checkpoint", "is not origin, size and root, a line each")
    origin, size, root = lines[:3]
    if not _is_name(origin) or not size.isdecimal() or not size.isascii() or str(int(size[:20])) != size:
        raise Invalid.one("checkpoint", "has a malformed origin or size")
    hashed = _unbase64(root, "checkpoint")
    checkpoint = Checkpoint(origin, int(size), hashed)
    if len(hashed) != HASH_BYTES or checkpoint.text != text:
        raise Invalid.one("checkpoint", "has a malformed root")
    return checkpoint


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not _is_name(name):
        raise Invalid.one("checkpoint", "has a malformed signature line")
    signature = _unbase64(encoded, "checkpoint")
    if len(signature) <= _KEY_ID_BYTES:
        raise Invalid.one("checkpoint", "has a signature that is too short")
    return name, signature[:_KEY_ID_BYTES], signature[_KEY_ID_BYTES:]


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name)


def _unbase64(encoded: str, field: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid.one(field, "holds something that is not base64") from None
