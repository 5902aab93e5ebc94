"""Whatever a host does: we stop in time, keep little for it, say what was wrong, and other hosts notice nothing."""

import asyncio
import socket
import tracemalloc
from dataclasses import replace

import asyncssh
import pytest

from server_monitor.errors import Unreachable
from server_monitor.ssh import command
from server_monitor.ssh.connection import MOST_REKEYS, WRITE_HIGH_WATER, Connection
from server_monitor.ssh.pool import Limits, Pool, Target
from tests.ssh.conftest import PATIENT, Fleet, MakePool
from tests.support import bad_hosts
from tests.support.bad_hosts import FakeSshd, Proxy, bad_host, fake_sshd
from tests.support.patience import PATIENCE_S, until
from tests.support.sshd import PasswordUser

SSHServerProcess = asyncssh.SSHServerProcess[bytes]

LITTLE_BYTES = 5 * 1024 * 1024


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (bad_hosts.closes_at_once, "connection_lost"),
        (bad_hosts.closes_after_its_banner, "connection_lost"),
        (bad_hosts.endless_banner_lines, "not_ssh"),
        (bad_hosts.one_endless_banner_line, "not_ssh"),
        (bad_hosts.speaks_http, "not_ssh"),
        (bad_hosts.speaks_ssh_1, "not_ssh"),
        (bad_hosts.floods_with_noise, "not_ssh"),
        (bad_hosts.announces_a_huge_packet, "protocol_error"),
        (bad_hosts.sends_ignore_packets_for_ever, "protocol_error"),
    ],
)
async def test_a_host_that_is_no_proper_ssh_server_is_left_with_a_reason(
    pool: Pool, fleet: Fleet, script: bad_hosts.Script, reason: str
) -> None:
    await left_with(reason, pool, fleet, script)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (bad_hosts.never_answers, "banner_timeout"),
        (bad_hosts.a_banner_line_now_and_then, "banner_timeout"),
        (bad_hosts.goes_silent_after_its_banner, "connect_timeout"),
    ],
)
async def test_a_host_that_never_comes_to_the_point_is_left_at_the_deadline(
    make_pool: MakePool, fleet: Fleet, script: bad_hosts.Script, reason: str
) -> None:
    await left_with(reason, make_pool(Limits(connect_timeout_s=3.0)), fleet, script)


async def left_with(reason: str, pool: Pool, fleet: Fleet, script: bad_hosts.Script) -> None:
    async with bad_host(script) as host:
        target = await fleet.add(host.host, host.port)
        tracemalloc.start()
        try:
            with pytest.raises(Unreachable) as failure:
                await pool.connect(target)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await asyncio.wait_for(host.left.wait(), PATIENCE_S)

    assert failure.value.reason == reason
    assert peak_bytes < LITTLE_BYTES


# --- after a proper handshake -----------------------------------------------------------------------------------------


async def reach(fleet: Fleet, fake: FakeSshd, *, password: str = "secret") -> Target:
    """A fake host as a server whose key was accepted, with a password to log in with."""
    credential_id = await fleet.add_password(PasswordUser("root", password))
    target = await fleet.add(fake.host, fake.port, auth="password", credential_id=credential_id)
    await fleet.trust(target, fake.host_key)
    return target


async def says_hello(process: SSHServerProcess) -> None:
    process.stdout.write(b"hello\n")
    process.exit(0)


async def hello(pool: Pool, target: Target) -> bytes:
    return (await command.run(pool, target, "hello", timeout_s=PATIENCE_S, output_limit_bytes=100)).stdout


async def test_a_host_that_asks_for_the_password_by_another_name_gets_it(pool: Pool, fleet: Fleet) -> None:
    async with fake_sshd(says_hello, needs_login=True, prompts=[("Passwort: ", False)], password="secret") as fake:
        assert await hello(pool, await reach(fleet, fake)) == b"hello\n"


@pytest.mark.parametrize(
    "prompts",
    [
        [("Password: ", False), ("Token: ", False)],
        [("Your name: ", True)],
        [("Password: ", False)],
        [],
    ],
    ids=["two questions", "a question in the open", "the same question for ever", "notices for ever"],
)
async def test_endless_questions_are_not_answered(pool: Pool, fleet: Fleet, prompts: list[tuple[str, bool]]) -> None:
    async with fake_sshd(needs_login=True, prompts=prompts, password="another") as fake:
        target = await reach(fleet, fake)

        with pytest.raises(Unreachable) as failure:
            await pool.connect(target)

    assert failure.value.reason == "auth_failed"
    assert len(fake.answers) <= 5
    assert sum(answer == ["secret"] for answer in fake.answers) <= 1


async def test_a_host_cannot_open_channels_to_us(pool: Pool, fleet: Fleet) -> None:
    """Neither our agent nor our display nor our network can be reached through a connection we made."""
    async with fake_sshd(says_hello) as fake:
        target = await reach(fleet, fake)
        await pool.connect(target)
        [host_side] = fake.connections

        for opening in (
            host_side.create_connection(asyncssh.SSHTCPSession, "127.0.0.1", 22),
            host_side.create_unix_connection(asyncssh.SSHUNIXSession, "/tmp/socket"),  # type: ignore[arg-type]
            host_side.create_x11_connection(asyncssh.SSHTCPSession),
            host_side.create_agent_connection(asyncssh.SSHUNIXSession),
        ):
            with pytest.raises(asyncssh.ChannelOpenError):
                await opening
        assert await hello(pool, target) == b"hello\n"


async def test_a_host_key_cannot_change_in_mid_connection(pool: Pool, fleet: Fleet) -> None:
    async with fake_sshd(never_ends) as fake:
        target = await reach(fleet, fake)
        closed: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        await pool.open_channel(target, "wait", on_data=lambda data: None, on_closed=closed.set_result)

        fake.present_another_key()

        await fake.exchange_keys()

        assert await asyncio.wait_for(closed, PATIENCE_S) == "host_key_changed"


async def test_a_host_may_exchange_keys_again_and_not_for_ever(pool: Pool, fleet: Fleet) -> None:
    async with fake_sshd(never_ends) as fake:
        target = await reach(fleet, fake)
        closed: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        await pool.open_channel(target, "wait", on_data=lambda data: None, on_closed=closed.set_result)

        exchanges = 0
        while await fake.exchange_keys():
            exchanges += 1

        assert exchanges == MOST_REKEYS  # with the connection's own one more than allowed
        assert await asyncio.wait_for(closed, PATIENCE_S) == "protocol_error"


async def test_a_flood_of_output_is_cut_to_the_limit_and_the_end_is_still_known(pool: Pool, fleet: Fleet) -> None:
    async def floods(process: SSHServerProcess) -> None:
        for _ in range(200):
            process.stdout.write(b"y" * 32_768)
            await process.stdout.drain()
        process.exit(7)

    async with fake_sshd(floods) as fake:
        finished = await command.run(
            pool, await reach(fleet, fake), "yes", timeout_s=PATIENCE_S, output_limit_bytes=1000
        )

    assert finished.stdout == b"y" * 1000
    assert finished.truncated
    assert finished.exit_status == 7


async def test_endless_output_ends_with_the_deadline_and_takes_no_memory(pool: Pool, fleet: Fleet) -> None:
    async def floods(process: SSHServerProcess) -> None:
        while True:
            process.stdout.write(b"y" * 32_768)
            process.stderr.write(b"e" * 32_768)
            await process.stdout.drain()
            await process.stderr.drain()

    async with fake_sshd(floods) as fake:
        target = await reach(fleet, fake)
        await pool.connect(target)
        tracemalloc.start()
        try:
            finished = await command.run(pool, target, "yes", timeout_s=3.0, output_limit_bytes=1000)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert (finished.timed_out, finished.truncated, finished.exit_status) == (True, True, None)
    assert len(finished.stderr) == 1000
    assert peak_bytes < LITTLE_BYTES


async def test_a_paused_channel_holds_one_window_at_most(pool: Pool, fleet: Fleet) -> None:
    sent = 0

    async def floods(process: SSHServerProcess) -> None:
        nonlocal sent
        while True:
            process.stdout.write(b"y" * 8_192)
            await process.stdout.drain()
            sent += 8_192

    got = 0

    def take(data: bytes) -> None:
        nonlocal got
        got += len(data)
        if got < 100_000:
            channel.pause()

    async with fake_sshd(floods) as fake:
        target = await reach(fleet, fake)
        channel = await pool.open_channel(target, "yes", take, lambda reason: None, window_bytes=65_536)
        channel.pause()
        for _ in range(200):
            await asyncio.sleep(0)
        at_pause = got
        for _ in range(200):
            await asyncio.sleep(0)
        assert got == at_pause
        channel.close()


async def test_a_host_that_asks_and_never_reads_the_answers_is_not_read_any_more(pool: Pool, fleet: Fleet) -> None:
    """Each request is answered; without a limit the answers would pile up in our memory."""
    async with fake_sshd(never_ends) as fake:
        connection = await pool.connect(await reach(fleet, fake))
        transport = transport_of(connection)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        fake.stop_reading()

        async with asyncio.timeout(PATIENCE_S):
            while transport.is_reading():
                fake.ask(500)
                await asyncio.sleep(0.001)
        fake.ask(5_000)
        for _ in range(100):
            await asyncio.sleep(0.001)

        assert transport.get_write_buffer_size() < 2 * WRITE_HIGH_WATER


async def test_a_flood_of_small_packets_leaves_the_other_hosts_their_time(
    pool: Pool, make_pool: MakePool, fleet: Fleet
) -> None:
    strict = make_pool(replace(PATIENT, host_cpu_share=0.001))
    async with fake_sshd(says_hello) as good, fake_sshd(never_ends) as bad:
        good_target, bad_target = await reach(fleet, good), await reach(fleet, bad)
        assert await hello(pool, good_target) == b"hello\n"
        transport = transport_of(await strict.connect(bad_target))

        async with asyncio.timeout(PATIENCE_S):
            while transport.is_reading():
                bad.send_ignore_packets(2000)
                await asyncio.sleep(0)

        assert await hello(pool, good_target) == b"hello\n"


async def test_a_host_that_opens_no_channel_is_given_up(make_pool: MakePool, fleet: Fleet) -> None:
    pool = make_pool(Limits(connect_timeout_s=5.0))  # also for connecting, which it must not keep from happening
    async with fake_sshd(says_hello) as fake:
        proxy = Proxy(fake.port)
        async with bad_host(proxy.script) as host:
            fake.port = host.port
            target = await reach(fleet, fake)
            await pool.connect(target)
            proxy.cut()

            with pytest.raises(Unreachable) as failure:
                await hello(pool, target)

    assert failure.value.reason == "slow"


async def test_a_host_that_refuses_the_channel_is_told_apart(pool: Pool, fleet: Fleet) -> None:
    async with fake_sshd(None) as fake:  # no process factory: sessions are refused
        with pytest.raises(Unreachable) as failure:
            await hello(pool, await reach(fleet, fake))

    assert failure.value.reason == "channel_refused"


async def test_hosts_that_never_answer_hold_up_nobody_who_is_connected(make_pool: MakePool, fleet: Fleet) -> None:
    pool = make_pool(Limits(connect_concurrency=5, connect_timeout_s=2 * PATIENCE_S))
    async with fake_sshd(says_hello) as good, bad_host(bad_hosts.never_answers) as silent:
        target = await reach(fleet, good)
        await hello(pool, target)
        bad_targets = [await fleet.add(silent.host, silent.port) for _ in range(5)]
        waiting = [asyncio.create_task(pool.connect(bad_target)) for bad_target in bad_targets]
        await until(lambda: silent.open == 5)

        for _ in range(20):
            assert await hello(pool, target) == b"hello\n"

        assert silent.open == 5
        for connecting in waiting:
            connecting.cancel()
        await asyncio.wait(waiting)


async def never_ends(process: SSHServerProcess) -> None:
    await process.stdin.read()


def transport_of(connection: Connection) -> asyncio.Transport:
    assert connection._transport is not None
    return connection._transport
