"""The console's own machine: the same probe over a pipe, without SSH."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from server_monitor.collect import probe

# The probe needs a path and nothing else; the console's own environment holds secrets.
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class LocalChannel(asyncio.SubprocessProtocol):
    """A running probe on this machine, in the shape of an SSH channel."""

    def __init__(
        self,
        on_data: Callable[[bytes], None],
        on_closed: Callable[[str | None], None],
        on_stderr: Callable[[bytes], None] | None,
    ) -> None:
        self._on_data = on_data
        self._on_closed = on_closed
        self._on_stderr = on_stderr
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._gone = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Raises BrokenPipeError when the probe has ended."""
        if self._stdin is None or self._stdin.is_closing():
            raise BrokenPipeError("the local probe has ended")
        self._stdin.write(data)

    def close(self) -> None:
        """End the probe. `on_closed` follows."""
        if self._transport is not None:
            self._transport.close()

    async def wait_closed(self) -> None:
        """Until the process has ended and has been waited for."""
        await self._gone.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self._stdin = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self._on_data(data)
        elif self._on_stderr is not None:
            self._on_stderr(data)

    def process_exited(self) -> None:
        # The pipes may stay open in a background statfs that hangs; the probe itself is gone.
        if self._transport is not None:
            self._transport.close()
        self._on_closed(None)

    def connection_lost(self, _error: Exception | None) -> None:
        self._gone.set()


async def open_channel(
    on_data: Callable[[bytes], None],
    on_closed: Callable[[str | None], None],
    on_stderr: Callable[[bytes], None] | None = None,
) -> LocalChannel:
    """Start the probe here. Raises OSError when this machine cannot start a process."""
    # A session of its own, so that Ctrl-C in the console's terminal does not reach the probe before the drain.
    _, channel = await asyncio.get_running_loop().subprocess_exec(
        lambda: LocalChannel(on_data, on_closed, on_stderr),
        *probe.arguments(),
        env=_ENVIRONMENT,
        start_new_session=True,
    )
    return channel
