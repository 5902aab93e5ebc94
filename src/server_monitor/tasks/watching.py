"""What running tasks print, for commands on the console's machine: a socket in the data directory.

Whoever may open it may read the files beside it as well, so nobody is asked who they are. A connection carries one
stream: the command writes `<task id> <stream> <offset>`, and reads the stream from there on in frames until the task is
over, or nothing when it does not run here. Whoever stops reading holds up nobody.
"""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from server_monitor.tasks.frames import Frames, Piece, frame
from server_monitor.tasks.output import READ_BYTES, STREAMS, Outputs
from server_monitor.telemetry.logs import logger

log = logger(__name__)

NAME: Final = "output.sock"
WATCHERS_MAX: Final = 256  # more of them see nothing before the end
QUESTION_MAX_BYTES: Final = 128
QUESTION_WITHIN_S: Final = 5.0
ACCEPT_AGAIN_S: Final = 1.0


class Window:
    """Shows to whoever asks at the socket what tasks print here. For the holder of the data directory alone."""

    def __init__(self, data_dir: Path, outputs: Outputs) -> None:
        self._data_dir = data_dir
        self._outputs = outputs
        self._watchers = 0

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            listener = _listen(self._data_dir)
        except OSError as error:
            # Not every file system has sockets. Commands then show what was printed when it is over.
            log.warning("task_output_has_no_socket", cause=error.strerror)
            await asyncio.Event().wait()
            return
        with closing(listener):
            try:
                await self._accept(listener)
            finally:
                (self._data_dir / NAME).unlink(missing_ok=True)

    async def _accept(self, listener: socket.socket) -> None:
        async with asyncio.TaskGroup() as watchers:
            while True:
                try:
                    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                except OSError as error:  # No descriptor is free.
                    log.warning("task_output_not_shown", cause=error.strerror)
                    await asyncio.sleep(ACCEPT_AGAIN_S)
                else:
                    watchers.create_task(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        self._watchers += 1
        try:
            with closing(connection):
                if self._watchers <= WATCHERS_MAX:
                    await self._show(connection)
        finally:
            self._watchers -= 1

    async def _show(self, connection: socket.socket) -> None:
        question = b""
        with suppress(OSError):  # of which TimeoutError is one
            async with asyncio.timeout(QUESTION_WITHIN_S):
                question = await asyncio.get_running_loop().sock_recv(connection, QUESTION_MAX_BYTES)
        task_id, stream, offset = (*question.decode("ascii", "replace").split(), "", "", "")[:3]
        live = self._outputs.live(task_id)
        if live is None or stream not in STREAMS or not offset.isdecimal():
            return
        async with asyncio.TaskGroup() as both:
            sending = both.create_task(_send(connection, live.read_on(stream, int(offset))))
            await _left(connection)
            sending.cancel()


async def watch(data_dir: Path, task_id: str, stream: str, offset: int) -> AsyncGenerator[Piece, None]:
    """What a task prints in the console that holds the data directory, from `offset` on, as it comes.

    Ends when the task is over, at once when it does not run there, and when the console goes away.
    """
    loop = asyncio.get_running_loop()
    with closing(_socket()) as connection, suppress(OSError):
        with _short(data_dir) as path:
            await loop.sock_connect(connection, path)
        await loop.sock_sendall(connection, f"{task_id} {stream} {offset}".encode())
        frames = Frames()
        while data := await loop.sock_recv(connection, READ_BYTES):
            for piece in frames.feed(data):
                yield piece


async def _send(connection: socket.socket, pieces: AsyncGenerator[Piece, None]) -> None:
    with suppress(OSError):  # Whoever watched has left.
        async with aclosing(pieces):
            async for piece in pieces:
                await asyncio.get_running_loop().sock_sendall(connection, frame(piece))
        connection.shutdown(socket.SHUT_WR)


async def _left(connection: socket.socket) -> None:
    """Whoever watched has closed their side: they write nothing after their question."""
    with suppress(OSError):
        while await asyncio.get_running_loop().sock_recv(connection, QUESTION_MAX_BYTES):
            pass


def _listen(data_dir: Path) -> socket.socket:
    """The socket, in the place of one that a console left behind when it was killed."""
    (data_dir / NAME).unlink(missing_ok=True)
    listener = _socket()
    try:
        with _short(data_dir) as path:
            listener.bind(path)
        (data_dir / NAME).chmod(0o600)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    return made


@contextmanager
def _short(data_dir: Path) -> Iterator[str]:
    """A path to the socket that fits into an address, which has room for 107 bytes."""
    directory = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{NAME}"
    finally:
        os.close(directory)
