"""One command on one server: started, watched, and over by its deadline."""

import asyncio
from dataclasses import dataclass

from server_monitor.errors import Unreachable
from server_monitor.ssh.channel import OnClosed
from server_monitor.ssh.pool import Pool, Target

LONGEST_STDIN = 1_048_576


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended. `exit_status` is None when a signal ended it, or the deadline did.

    `stdout` and `stderr` hold the first bytes of each, up to the limit; `truncated` says that there were more.
    """

    exit_status: int | None
    signal: str | None
    stdout: bytes
    stderr: bytes
    truncated: bool
    timed_out: bool


class _Output:
    """The first bytes of a stream; the rest is counted out."""

    def __init__(self, limit_bytes: int) -> None:
        self.kept = bytearray()
        self.truncated = False
        self._limit = limit_bytes

    def take(self, data: bytes) -> None:
        room = self._limit - len(self.kept)
        self.kept += data[:room]
        self.truncated |= len(data) > room


async def run(
    pool: Pool, target: Target, command: str, *, timeout_s: float, output_limit_bytes: int, stdin: bytes = b""
) -> Finished:
    """Run `command` and wait for its end, `timeout_s` after it was started at the latest.

    Raises Unreachable when it cannot be started or the connection breaks under it.
    """
    assert len(stdin) <= LONGEST_STDIN, "feed larger input through a channel, which can wait for the host"
    stdout, stderr = _Output(output_limit_bytes), _Output(output_limit_bytes)
    closed: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    channel = await pool.open_channel(target, command, stdout.take, _settle(closed), on_stderr=stderr.take)
    timed_out = False
    try:
        channel.write(stdin)
        channel.write_eof()
        async with asyncio.timeout(timeout_s):
            reason = await closed
    except TimeoutError:
        timed_out, reason = True, None
    finally:
        channel.terminate()
    if reason is not None:
        raise Unreachable(reason, f"The connection to {target.place} was lost while a command ran.")
    return Finished(
        exit_status=channel.exit_status,
        signal=channel.exit_signal,
        stdout=bytes(stdout.kept),
        stderr=bytes(stderr.kept),
        truncated=stdout.truncated or stderr.truncated,
        timed_out=timed_out,
    )


def _settle(closed: "asyncio.Future[str | None]") -> OnClosed:
    def settle(reason: str | None) -> None:
        if not closed.done():
            closed.set_result(reason)

    return settle
