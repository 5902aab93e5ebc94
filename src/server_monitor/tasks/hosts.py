"""Where commands run: a channel to a server over its SSH connection, or to a process here for the console's machine."""

import os
import pwd
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from server_monitor.errors import Unreachable
from server_monitor.ssh import local
from server_monitor.ssh.pool import Target
from server_monitor.tasks.wrapper import Script

OnData = Callable[[bytes], None]
OnClosed = Callable[[str | None], None]


class Channel(Protocol):
    """What a script runs on. `exit_status` is known once it is closed, unless it was cut off."""

    exit_status: int | None

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...


OpenRemote = Callable[..., Awaitable[Channel]]
"""`ssh.pool.Pool.open_channel`: (target, command, on_data, on_closed, on_stderr) -> Channel."""


class Hosts:
    """Opens channels for scripts. `target` is None for the console's own machine."""

    def __init__(self, open_remote: OpenRemote) -> None:
        self._open_remote = open_remote

    async def open(
        self,
        target: Target | None,
        script: Script,
        on_data: OnData,
        on_closed: OnClosed,
        on_stderr: OnData | None = None,
    ) -> Channel:
        """Start a script and give it its input.

        Raises Unreachable, and Unavailable when a connection has to be made and the database cannot be asked how.
        """
        if target is not None:
            channel = await self._open_remote(target, script.line, on_data, on_closed, on_stderr)
            channel.write(script.stdin)
            return channel
        try:
            here = await local.open_channel(
                script.words, on_data, on_closed, on_stderr, home=_own_home(), takes_all=True
            )
            here.write(script.stdin)
        except OSError as error:
            raise Unreachable("internal", f"No process can be started here: {error.strerror}") from error
        return here


def say(channel: Channel, data: bytes) -> None:
    """Write to a script that may have ended."""
    with suppress(BrokenPipeError):
        channel.write(data)


def _own_home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"
