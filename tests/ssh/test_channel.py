import asyncio
from typing import Any

import asyncssh
import pytest

from server_monitor.errors import Unreachable
from server_monitor.ssh.channel import Pty
from server_monitor.ssh.pool import Pool
from tests.ssh.conftest import Fleet
from tests.support.patience import PATIENCE_S, until
from tests.support.sshd import Sshd, Sshds

pytestmark = pytest.mark.sshd


class Heard:
    """What a channel's callbacks were told."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.stderr = bytearray()
        self.closed: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()

    def on_data(self, data: bytes) -> None:
        assert not self.closed.done(), "bytes after the end"
        self.data += data
        self._news.set()

    def on_stderr(self, data: bytes) -> None:
        self.stderr += data

    async def until(self, expected: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self.data.endswith(expected):
                self._news.clear()
                await self._news.wait()

    async def end(self) -> str | None:
        return await asyncio.wait_for(asyncio.shield(self.closed), PATIENCE_S)


async def test_a_channel_carries_bytes_in_both_directions_untouched(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target, heard = await fleet.add_sshd(sshd), Heard()
    channel = await pool.open_channel(target, "cat", heard.on_data, heard.closed.set_result)

    everything = bytes(range(256))
    channel.write(everything)
    await heard.until(everything)
    channel.write_eof()

    assert await heard.end() is None
    assert bytes(heard.data) == everything


async def test_a_write_is_one_packet_and_no_other(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    """A thousand hosts are asked every second: a second packet for each would be felt."""
    target, heard = await fleet.add_sshd(sshd), Heard()
    channel = await pool.open_channel(target, "cat", heard.on_data, heard.closed.set_result)
    connection = await pool.connect(target)
    before = connection._send_seq

    for number in range(10):
        channel.write(b"%d\n" % number)
    await heard.until(b"9\n")

    assert connection._send_seq - before == 10


async def test_standard_error_comes_apart_or_not_at_all(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)
    both, one = Heard(), Heard()

    await pool.open_channel(target, "echo out; echo err >&2", both.on_data, both.closed.set_result, both.on_stderr)
    await pool.open_channel(target, "echo out; echo err >&2", one.on_data, one.closed.set_result)

    assert await both.end() is None
    assert await one.end() is None
    assert (both.data, both.stderr) == (b"out\n", b"err\n")
    assert one.data == b"out\n"


async def test_the_end_of_a_command_is_known_with_its_status_or_signal(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)
    failed, killed = Heard(), Heard()

    failing = await pool.open_channel(target, "exit 127", failed.on_data, failed.closed.set_result)
    dying = await pool.open_channel(target, "kill -KILL $$", killed.on_data, killed.closed.set_result)

    assert [await failed.end(), await killed.end()] == [None, None]
    assert (failing.exit_status, failing.exit_signal) == (127, None)
    assert (dying.exit_status, dying.exit_signal) == (None, "KILL")


async def test_closing_a_channel_ends_it_without_a_reason_and_the_others_go_on(
    pool: Pool, fleet: Fleet, sshd: Sshd
) -> None:
    target, ended, other = await fleet.add_sshd(sshd), Heard(), Heard()
    channel = await pool.open_channel(target, "cat", ended.on_data, ended.closed.set_result)
    going_on = await pool.open_channel(target, "cat", other.on_data, other.closed.set_result)

    channel.close()

    assert await ended.end() is None
    channel.write(b"nobody hears this")
    channel.close()
    going_on.write(b"still here\n")
    await other.until(b"still here\n")


async def test_nothing_arrives_while_a_channel_is_paused_and_nothing_is_lost(
    pool: Pool, fleet: Fleet, sshd: Sshd
) -> None:
    target, heard = await fleet.add_sshd(sshd), Heard()
    channel = await pool.open_channel(
        target, "head -c 1000000 /dev/zero; echo end", heard.on_data, heard.closed.set_result, window_bytes=32_768
    )
    channel.pause()
    at_pause = len(heard.data)
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(heard.data) == at_pause < 1_000_000

    channel.resume()

    assert await heard.end() is None
    assert len(heard.data) == 1_000_004


async def test_a_host_that_allows_no_session_says_so(pool: Pool, fleet: Fleet, sshds: Sshds) -> None:
    target = await fleet.add_sshd(sshds.start(options={"MaxSessions": "0"}))
    heard = Heard()

    with pytest.raises(Unreachable) as failure:
        await pool.open_channel(target, "true", heard.on_data, heard.closed.set_result)

    assert failure.value.reason == "channel_refused"


@pytest.mark.parametrize("is_shell", [False, True])
async def test_whoever_gives_up_in_the_turn_in_which_the_host_opens_leaves_no_channel(
    pool: Pool, fleet: Fleet, sshds: Sshds, monkeypatch: pytest.MonkeyPatch, is_shell: bool
) -> None:
    target = await fleet.add_sshd(sshds.start(options={"MaxSessions": "2"}))
    await pool.connect(target)
    opening: list[asyncio.Task[object]] = []
    confirmed = asyncssh.SSHClientChannel.process_open_confirmation

    def and_given_up(channel: asyncssh.SSHClientChannel[bytes], *told: Any) -> None:
        confirmed(channel, *told)
        opening.pop().cancel()

    monkeypatch.setattr(asyncssh.SSHClientChannel, "process_open_confirmation", and_given_up)
    for _ in range(5):
        heard = Heard()
        if is_shell:
            work = pool.open_shell(target, Pty(80, 24), heard.on_data, heard.closed.set_result)
        else:
            work = pool.open_channel(target, "cat", heard.on_data, heard.closed.set_result)
        opening.append(asyncio.create_task(work))
        [given_up] = await asyncio.gather(opening[0], return_exceptions=True)
        assert isinstance(given_up, asyncio.CancelledError)
    monkeypatch.undo()

    connection = await pool.connect(target)
    await until(lambda: not connection._channels)
    heard = Heard()
    channel = await pool.open_channel(target, "echo free", heard.on_data, heard.closed.set_result)
    await heard.until(b"free\n")
    channel.close()
