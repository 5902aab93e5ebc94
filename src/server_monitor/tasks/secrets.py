"""Secrets of a command: sealed in the run's row until it is over, given to the host by standard input, and masked in
what the command prints.
"""

from collections.abc import Mapping, Sequence

import orjson

from server_monitor.ssh.vault import Sealed, Vault

_TABLE, _COLUMN = "runs", "secrets"


def seal(vault: Vault, run_id: str, secrets: Mapping[str, str]) -> Sealed:
    return vault.seal(orjson.dumps(dict(secrets)), table=_TABLE, row_id=run_id, column=_COLUMN)


def unseal(vault: Vault, run_id: str, sealed: tuple[bytes, str]) -> dict[str, str]:
    """Raises VaultUnreadable when the master key is missing or the bytes were changed or moved."""
    opened: dict[str, str] = orjson.loads(vault.open(Sealed(*sealed), table=_TABLE, row_id=run_id, column=_COLUMN))
    return opened


class Mask:
    """Replaces secrets in a stream by as many asterisks, so that every byte keeps its place.

    A byte is masked when it lies in any secret, of several that overlap in each of them, however the stream is cut.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)
        self.held = b""  # not masked: what it belongs to shows only later
        self._covered = 0  # bytes at its beginning that belong to a secret which began before it

    def feed(self, data: bytes) -> bytes:
        """The stream so far, masked; the end of it is held back while it may be the beginning of a secret."""
        data = self.held + data
        return self._release(data, max((_overlap(data, secret) for secret in self._secrets), default=0))

    def rest(self) -> bytes:
        return self._release(self.held, 0)

    def _release(self, data: bytes, keep: int) -> bytes:
        masked = bytearray(data)
        end = len(data) - keep
        masked[: self._covered] = b"*" * self._covered
        reaches = self._covered
        for secret in self._secrets:
            at = data.find(secret)
            while at != -1:
                masked[at : at + len(secret)] = b"*" * len(secret)
                if at < end:
                    reaches = max(reaches, at + len(secret))
                at = data.find(secret, at + 1)
        self.held, self._covered = data[end:], max(0, reaches - end)
        return bytes(masked[:end])


def _overlap(data: bytes, secret: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of `secret`."""
    at = data.find(secret[:1], max(0, len(data) - len(secret) + 1))
    while at != -1 and not secret.startswith(data[at:]):
        at = data.find(secret[:1], at + 1)
    return 0 if at == -1 else len(data) - at
