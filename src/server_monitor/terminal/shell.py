"""A shell at the other end: what a bridge needs of it, and how one is opened on a server."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from server_monitor.db.engine import Database
from server_monitor.errors import NotFound, Unreachable
from server_monitor.fleet import servers as fleet
from server_monitor.ssh.channel import Pty
from server_monitor.ssh.pool import Pool
from server_monitor.terminal.states import Size

OnData = Callable[[bytes], None]
OnClosed = Callable[[str | None], None]


class Shell(Protocol):
    """A running shell. `exit_status` is known once it has ended, unless a signal or a cut ended it."""

    exit_status: int | None
    exit_signal: str | None
    on_writable: Callable[[], None] | None

    @property
    def unsent_bytes(self) -> int: ...
    def write(self, data: bytes) -> None: ...
    def resize(self, cols: int, rows: int) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...


OpenShell = Callable[[str, Size, OnData, OnClosed], Awaitable[Shell]]
"""server id, size, on_data, on_closed -> a running shell. Raises Unreachable."""


def opener(db: Database, pool: Pool) -> OpenShell:
    """Opens the login shell of the account that the server is used with."""

    async def open_shell(server_id: str, size: Size, on_data: OnData, on_closed: OnClosed) -> Shell:
        async with db.reading() as conn:
            try:
                target = await fleet.target_of(conn, server_id)
            except NotFound:
                raise Unreachable("server_unfit", "The server was removed.") from None
        if target is None:
            raise Unreachable("server_unfit", "The console's own machine has no terminal.")
        return await pool.open_shell(target, Pty(size.cols, size.rows), on_data, on_closed)

    return open_shell
