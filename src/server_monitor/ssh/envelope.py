"""How a secret is sealed: AES-256-GCM under a key of its own, which is wrapped by a master key.

    1 byte    version of this format, 1
    12 bytes  nonce of the wrapping
    48 bytes  the data key, wrapped: 32 bytes and a 16-byte tag
    12 bytes  nonce of the secret
    n bytes   the secret, and a 16-byte tag

Both layers authenticate where the secret belongs (table, row, column) and the version, so a sealed value that is moved
to another row or column does not open. The wrapping also authenticates the id of its master key. Nonces are 96 random
bits; a data key seals one secret once, and a master key wraps far fewer than the 2^32 data keys that random nonces
allow (NIST SP 800-38D, section 8.3). The key that wraps is derived from the configured secret with HKDF-SHA256.
"""

import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = 1
_NONCE_BYTES = 12
_KEY_BYTES = 32
_TAG_BYTES = 16
_WRAPPED_BYTES = _NONCE_BYTES + _KEY_BYTES + _TAG_BYTES
_SHORTEST = 1 + _WRAPPED_BYTES + _NONCE_BYTES + _TAG_BYTES


class TamperedError(Exception):
    """The sealed bytes are not what was sealed for this place under this key."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A key that wraps data keys. `key_id` names it without telling anything about it."""

    key_id: str
    key: bytes = field(repr=False)

    @classmethod
    def derive(cls, secret: str, purpose: str = "vault") -> "MasterKey":
        """The key for one purpose: the same secret, given for two of them, makes two keys."""
        label = f"server-monitor {purpose}".encode()
        return cls(_hkdf(secret, label + b" key id", 8).hex(), _hkdf(secret, label, 32))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value is stored, and nowhere else."""

    table: str
    row_id: str
    column: str

    @property
    def bound(self) -> bytes:
        """What both layers authenticate: each part with its length, so that no two places look alike."""
        parts = (self.table.encode(), self.row_id.encode(), self.column.encode(), bytes([VERSION]))
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def seal(secret: bytes, place: Place, master: MasterKey) -> bytes:
    data_key = secrets.token_bytes(_KEY_BYTES)
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return (
        bytes([VERSION]) + _wrap(data_key, place, master) + nonce + AESGCM(data_key).encrypt(nonce, secret, place.bound)
    )


def unseal(sealed: bytes, place: Place, master: MasterKey) -> bytes:
    """The secret. Raises TamperedError when a byte differs, or the place or the master key is another."""
    wrapped, nonce, ciphertext = _parts(sealed)
    try:
        return AESGCM(_unwrap(wrapped, place, master)).decrypt(nonce, ciphertext, place.bound)
    except InvalidTag:
        raise TamperedError from None


def rewrap(sealed: bytes, place: Place, old: MasterKey, new: MasterKey) -> bytes:
    """The same secret under the same data key, wrapped by `new`. The secret itself is never opened."""
    wrapped, nonce, ciphertext = _parts(sealed)
    return bytes([VERSION]) + _wrap(_unwrap(wrapped, place, old), place, new) + nonce + ciphertext


def _wrap(data_key: bytes, place: Place, master: MasterKey) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(master.key).encrypt(nonce, data_key, place.bound + master.key_id.encode())


def _unwrap(wrapped: bytes, place: Place, master: MasterKey) -> bytes:
    nonce, ciphertext = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
    try:
        return AESGCM(master.key).decrypt(nonce, ciphertext, place.bound + master.key_id.encode())
    except InvalidTag:
        raise TamperedError from None


def _parts(sealed: bytes) -> tuple[bytes, bytes, bytes]:
    if len(sealed) < _SHORTEST or sealed[0] != VERSION:
        raise TamperedError
    rest = sealed[1 + _WRAPPED_BYTES :]
    return sealed[1 : 1 + _WRAPPED_BYTES], rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]


def _hkdf(secret: str, purpose: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose).derive(secret.encode())
