"""A command on the console's own machine, in the shape of an SSH channel: bytes in, bytes out, and how it ended."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, cast

# A command gets a path and a home and nothing else; the console's own environment holds secrets.
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DRAIN_S: Final = 0.02  # so long nothing comes any more once the process is gone
DRAIN_MOST_S: Final = 5.0


class LocalChannel(asyncio.SubprocessProtocol):
    """A running process on this machine. `on_closed` follows its end, after its last bytes."""

    def __init__(
        self,
        on_data: Callable[[bytes], None],
        on_closed: Callable[[str | None], None],
        on_stderr: Callable[[bytes], None] | None,
        *,
        takes_all: bool,
    ) -> None:
        self._on_data = on_data
        self._on_closed = on_closed
        self._on_stderr = on_stderr
        self._takes_all = takes_all
        self._received = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._outputs: list[asyncio.ReadTransport] = []
        self._gone = asyncio.Event()
        self.exit_status: int | None = None

    def write(self, data: bytes) -> None:
        """Raises BrokenPipeError when the process has ended."""
        if self._stdin is None or self._stdin.is_closing():
            raise BrokenPipeError("the process has ended")
        self._stdin.write(data)

    def write_eof(self) -> None:
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write_eof()

    def pause(self) -> None:
        """Take no more bytes: the process waits when its pipes are full."""
        for output in self._outputs:
            output.pause_reading()

    def resume(self) -> None:
        for output in self._outputs:
            if not output.is_closing():
                output.resume_reading()

    def close(self) -> None:
        """End the process. `on_closed` follows."""
        if self._transport is not None:
            self._transport.close()

    async def wait_closed(self) -> None:
        """Until the process has ended and has been waited for."""
        await self._gone.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self._stdin = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))
        pipes = [self._transport.get_pipe_transport(fd) for fd in (1, 2)]
        self._outputs = [cast("asyncio.ReadTransport", pipe) for pipe in pipes if pipe is not None]

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._received += len(data)
        if fd == 1:
            self._on_data(data)
        elif self._on_stderr is not None:
            self._on_stderr(data)

    def process_exited(self) -> None:
        if self._transport is None:
            return
        self.exit_status = self._transport.get_returncode()
        if self._takes_all:
            self._drain(self._loop.time() + DRAIN_MOST_S)
        else:
            self._transport.close()
            self._on_closed(None)

    def connection_lost(self, _error: Exception | None) -> None:
        self._gone.set()
        if self._takes_all:
            self._on_closed(None)

    def _drain(self, until_s: float) -> None:
        """What we started is gone; its last bytes may be on their way. The end of the pipes is no sign of the end of
        those: a child that lives on may hold them for ever, even one whose own output goes elsewhere, because uvloop
        leaves the pipes open in it under other numbers.
        """
        before = self._received

        def look() -> None:
            if self._received != before and self._loop.time() < until_s:
                self._drain(until_s)
            else:
                self.close()

        self._loop.call_later(DRAIN_S, look)


async def open_channel(
    words: Sequence[str],
    on_data: Callable[[bytes], None],
    on_closed: Callable[[str | None], None],
    on_stderr: Callable[[bytes], None] | None = None,
    *,
    home: str | None = None,
    takes_all: bool = False,
) -> LocalChannel:
    """Start a program here. Raises OSError when this machine cannot start a process.

    `takes_all`: once it is gone, what it has still written is taken before `on_closed`.
    """
    environment = {"PATH": PATH} | ({} if home is None else {"HOME": home})
    # A session of its own, so that Ctrl-C in the console's terminal does not reach it before the drain.
    _, channel = await asyncio.get_running_loop().subprocess_exec(
        lambda: LocalChannel(on_data, on_closed, on_stderr, takes_all=takes_all),
        *words,
        env=environment,
        start_new_session=True,
    )
    return channel
