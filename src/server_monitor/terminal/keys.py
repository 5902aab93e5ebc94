"""The keys of recordings. Each recording has one of its own, wrapped under ENCRYPTION_KEY as `ssh/envelope.py` seals.

A chunk is sealed with AES-256-GCM: 12 random bytes of nonce, the ciphertext, a tag of 16 bytes. What is authenticated
with it is the head of the chain before it, and so every byte of the recording that comes before: a chunk that is moved,
left out or taken from elsewhere does not open, even where no audit log is at hand.
"""

import secrets
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from server_monitor.errors import Unavailable
from server_monitor.ssh import envelope
from server_monitor.ssh.envelope import MasterKey, Place, TamperedError

PURPOSE: Final = "recordings"
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_KEY_BYTES: Final = 32


class RecordingUnreadable(Unavailable):
    """The key of a recording cannot be opened with the keys at hand, or is not what was stored."""


@dataclass(frozen=True, slots=True)
class RecordingKey:
    """The key of one recording. `wrapped` is what the file holds of it; `wrapped_by` names the key that opens it."""

    wrapped: bytes
    wrapped_by: str
    key: bytes = field(repr=False)

    def seal(self, plain: bytes, head: bytes) -> bytes:
        """The chunk as it is stored after `head`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + AESGCM(self.key).encrypt(nonce, plain, head)

    def open(self, sealed: bytes, head: bytes) -> bytes:
        """What was sealed. Raises TamperedError when this is not what was sealed here."""
        if len(sealed) < NONCE_BYTES + TAG_BYTES:
            raise TamperedError
        try:
            return AESGCM(self.key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], head)
        except InvalidTag:
            raise TamperedError from None


class Keyring:
    """Makes keys under ENCRYPTION_KEY, and opens what was made under it or an earlier one."""

    def __init__(self, current: SecretStr, previous: SecretStr = SecretStr("")) -> None:  # noqa: B008  # Immutable.
        self._current = _master(current.get_secret_value())
        older = previous.get_secret_value()
        # A key may hold commas itself, so the whole text is one of those that are tried.
        texts = {older.strip(), *(part.strip() for part in older.split(","))} - {""}
        self._by_id = {key.key_id: key for key in (self._current, *map(_master, texts))}

    def make(self, session_id: str) -> RecordingKey:
        """A new key for the recording of this session."""
        key = secrets.token_bytes(_KEY_BYTES)
        return RecordingKey(envelope.seal(key, _place(session_id), self._current), self._current.key_id, key)

    def open(self, session_id: str, wrapped: bytes, wrapped_by: str) -> RecordingKey:
        """The key that a file holds. Raises RecordingUnreadable, and TamperedError when it is not what was stored."""
        master = self._by_id.get(wrapped_by)
        if master is None:
            raise RecordingUnreadable(
                f"The recording was made under the key {wrapped_by}, which is not configured. "
                "Add the ENCRYPTION_KEY of that time to ENCRYPTION_PREVIOUS_KEY and restart."
            )
        return RecordingKey(wrapped, wrapped_by, envelope.unseal(wrapped, _place(session_id), master))


def _master(secret: str) -> MasterKey:
    return MasterKey.derive(secret, PURPOSE)


def _place(session_id: str) -> Place:
    return Place("terminal_sessions", session_id, "recording")
