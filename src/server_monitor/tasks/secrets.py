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
    """Replaces secrets in a stream by as many asterisks, so that every byte keeps its place."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = sorted(secrets, key=len, reverse=True)
        self.held = b""

    def feed(self, data: bytes) -> bytes:
        """The stream so far, masked; the end of it is held back while it may be the beginning of a secret."""
        data = self._masked(self.held + data)
        keep = max((_overlap(data, secret) for secret in self._secrets), default=0)
        self.held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def rest(self) -> bytes:
        held, self.held = self.held, b""
        return held

    def _masked(self, data: bytes) -> bytes:
        for secret in self._secrets:
            data = data.replace(secret, b"*" * len(secret))
        return data


def _overlap(data: bytes, secret: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of `secret`."""
    for length in range(min(len(data), len(secret) - 1), 0, -1):
        if data.endswith(secret[:length]):
            return length
    return 0
