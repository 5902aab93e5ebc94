"""A command or a shell running at the other end of a connection, as bytes in and bytes out."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import asyncssh
from asyncssh.packet import SSHPacket, String
from typing_extensions import override

from server_monitor.ssh.connection import Connection
from server_monitor.ssh.failures import Stage, unreachable

TERM = "xterm-256color"
DEFAULT_WINDOW = 131_072  # bytes a host may send ahead of what we have taken
PACKET = 32_768  # bytes of data that a host may send at once

# A shell's terminal speaks UTF-8. Its line discipline is told (RFC 8160), so that it rubs out whole characters, and so
# is the shell, which has no locale on many hosts and would take each byte for a character. The host may ignore both:
# most accept LANG, and one whose own login sets it (PAM, a profile) goes on doing so.
_MODES = {asyncssh.PTY_IUTF8: 1}
_ENVIRONMENT = {b"LANG": b"C.UTF-8"}

OnData = Callable[[bytes], None]
OnClosed = Callable[[str | None], None]


@dataclass(frozen=True, slots=True)
class Pty:
    """The terminal that a shell gets on its host."""

    cols: int
    rows: int


class Channel(asyncssh.SSHClientSession[bytes]):
    """What `open_channel` gives: write to it, pause it, close it; its bytes come by the callbacks.

    `on_closed` is called once, after the last bytes, with None when the command ended or we closed the channel, else
    with the reason why it was cut off.
    """

    def __init__(self, on_data: OnData, on_closed: OnClosed, on_stderr: OnData | None) -> None:
        self._on_data = on_data
        self._on_closed = on_closed
        self._on_stderr = on_stderr
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._connection: Connection | None = None
        self._closed_by_us = False
        self.on_writable: Callable[[], None] | None = None
        self.exit_status: int | None = None
        self.exit_signal: str | None = None

    @property
    def unsent_bytes(self) -> int:
        """What was written and the host has not yet let us send. `on_writable` is called when it has become little."""
        return 0 if self._channel is None else self._channel.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Send to the command's standard input. A closed channel takes nothing and says nothing."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(data)

    def write_eof(self) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write_eof()

    def resize(self, cols: int, rows: int) -> None:
        """Tell the shell's terminal its new size."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.change_terminal_size(cols, rows)

    def pause(self) -> None:
        """Take no more bytes. The host may send one window ahead and then waits."""
        if self._channel is not None:
            self._channel.pause_reading()

    def resume(self) -> None:
        if self._channel is not None:
            self._channel.resume_reading()

    def close(self) -> None:
        """End the channel now. What still arrives is dropped; the command notices when it next reads or writes."""
        self._closed_by_us = True
        if self._channel is not None:
            self._channel.abort()

    def terminate(self) -> None:
        """Ask the host to send SIGTERM to the command, then end the channel.

        OpenSSH does so for every account but root; there a command that neither reads nor writes goes on.
        """
        if self._channel is not None:
            with suppress(OSError):  # The host has closed its side already.
                self._channel.terminate()
        self.close()

    def is_carried_by(self, connection: Connection) -> None:
        self._connection = connection

    @override
    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    @override
    def resume_writing(self) -> None:
        if self.on_writable is not None:
            self.on_writable()

    @override
    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype is None:
            self._on_data(data)
        elif self._on_stderr is not None:
            self._on_stderr(data)

    @override
    def eof_received(self) -> bool:
        return True  # Our half stays open: the host may still tell how the command ended.

    @override
    def exit_status_received(self, status: int) -> None:
        self.exit_status = status

    @override
    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.exit_signal = signal

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._channel = None
        self._on_closed(self._why(exc))

    def _why(self, exc: Exception | None) -> str | None:
        if exc is not None:
            return _reason(exc)
        ended = self.exit_status is not None or self.exit_signal is not None
        ours = self._closed_by_us or (self._connection is not None and self._connection.closed_by_us)
        return None if ended or ours else "connection_lost"


class _Wire(asyncssh.SSHClientChannel[bytes]):
    """asyncssh's side of a channel, opened in the task of whoever asked for it: its own way takes two more of them."""

    def __init__(self, connection: Connection, window_bytes: int) -> None:
        super().__init__(connection, asyncio.get_running_loop(), "replace", None, "strict", window_bytes, PACKET)
        self._is_abandoned = False

    async def start(self, session: Channel, what: str | Pty) -> None:
        """Open it and start what is to run. Whoever stops waiting leaves a channel that is closed once it is open."""
        try:
            if isinstance(what, Pty):
                await self._start_shell(session, what)
            else:
                await self._start_command(session, what)
        except asyncio.CancelledError:
            self._is_abandoned = True
            session.close()
            if self._send_state == "open":
                self.abort()  # It was confirmed in this very turn, and the session has not heard of it.
            raise

    async def _start_command(self, session: Channel, command: str) -> None:
        await self._open(b"session")
        self._session = session
        session.connection_made(self)
        if not await self._make_request(b"exec", String(command)):
            self.close()
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_REQUEST_SESSION_FAILED, "Session request failed")
        self._loop.call_soon(self._deliver)

    async def _start_shell(self, session: Channel, pty: Pty) -> None:
        await self.create(
            lambda: session,
            command=None,
            subsystem=None,
            env=_ENVIRONMENT,
            request_pty=True,
            term_type=TERM,
            term_size=(pty.cols, pty.rows),
            term_modes=_MODES,
            x11_forwarding=False,
            x11_display=None,
            x11_auth_path=None,
            x11_single_connection=False,
            agent_forwarding=False,
        )

    def _deliver(self) -> None:
        """Bytes come once whoever asked has the channel, unless they have paused it at once."""
        if self._recv_paused == "starting":
            self.resume_reading()

    @override
    def process_open_confirmation(self, send_chan: int, send_window: int, send_pktsize: int, packet: SSHPacket) -> None:
        super().process_open_confirmation(send_chan, send_window, send_pktsize, packet)
        if self._is_abandoned:
            self.abort()

    @override
    def log_received_packet(self, pkttype: int, pktid: int | None, packet: object, note: str = "") -> None:
        """Nothing, as `Connection` does for what is sent."""


async def open_on(connection: Connection, channel: Channel, what: str | Pty, window_bytes: int) -> None:
    """Start a command, or the account's own shell in a terminal. The caller sets the deadline and maps the errors.

    When the caller stops waiting, the channel is closed as soon as the host has opened it: an abandoned one would stay
    open there and count against its MaxSessions.
    """
    channel.is_carried_by(connection)
    await _Wire(connection, window_bytes).start(channel, what)


def _reason(exc: Exception) -> str:
    return unreachable(exc, Stage.OPEN, "the host").reason
