"""What we ask of a host while connecting, and what we answer: its key, and its questions about us."""

from collections.abc import Callable, Sequence

import asyncssh
from typing_extensions import override

from server_monitor.errors import Unreachable
from server_monitor.ssh.failures import Stage
from server_monitor.ssh.hostkeys import HostKey, HostKeyChanged, HostKeyUnknown

MOST_PROMPTS = 4


class Peer(asyncssh.SSHClient):
    """Judges the host key, answers the host's questions, and knows how far the connection has come."""

    def __init__(self, pinned: Sequence[HostKey], password: str | None) -> None:
        self._pinned = {key.blob: key for key in pinned}
        self._password = password
        self._prompts = 0
        self.stage = Stage.BANNER
        self.refused: HostKey | None = None
        self.on_lost: Callable[[Exception | None], None] | None = None

    @override
    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Also asked at every later key exchange: a host may not change its key in mid-connection either."""
        if key.public_data in self._pinned:
            return True
        self.refused = HostKey.of(key.get_algorithm(), key.public_data)
        return False

    def judgement(self) -> Unreachable | None:
        """Why the host key was refused; None when it was not."""
        if self.refused is None:
            return None
        pinned = list(self._pinned.values())
        return HostKeyChanged(self.refused, pinned) if pinned else HostKeyUnknown(self.refused)

    @override
    def begin_auth(self, username: str) -> None:
        self.stage = Stage.LOGIN

    @override
    def auth_completed(self) -> None:
        self.stage = Stage.OPEN
        self._password = None

    @override
    def password_auth_requested(self) -> str | None:
        """The password, once: a wrong one that is tried in two ways counts twice towards a lock-out on the host."""
        answer, self._password = self._password, None
        return answer

    @override
    def kbdint_auth_requested(self) -> str | None:
        return None if self._password is None else ""

    @override
    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        """The password for one hidden prompt, nothing for a mere notice, and no more than a few of either."""
        self._prompts += 1
        if self._prompts > MOST_PROMPTS:
            return None
        if not prompts:
            return []
        if len(prompts) != 1 or prompts[0][1] or self._password is None:
            return None
        answer, self._password = self._password, None
        return [answer]

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self.on_lost is not None:
            self.on_lost(exc)
            self.on_lost = None
