import asyncio
import contextlib
import os
import time

import psutil
import pytest

from server_monitor.errors import Unreachable
from server_monitor.ssh import command
from server_monitor.ssh.pool import Pool, Target
from tests.ssh.conftest import Fleet, key_of
from tests.support.patience import PATIENCE_S
from tests.support.sshd import PasswordUser, Sshd, Sshds

pytestmark = pytest.mark.sshd


async def test_a_command_gives_its_output_and_its_exit_status(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)

    finished = await command.run(
        pool, target, "cat; echo oops >&2; exit 3", timeout_s=PATIENCE_S, output_limit_bytes=1000, stdin=b"in\n"
    )

    assert (finished.exit_status, finished.stdout, finished.stderr) == (3, b"in\n", b"oops\n")
    assert not finished.truncated


async def test_output_over_the_limit_is_cut_and_the_end_still_known(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)

    finished = await command.run(
        pool, target, "head -c 5000000 /dev/zero; exit 4", timeout_s=PATIENCE_S, output_limit_bytes=1000
    )

    assert (len(finished.stdout), finished.truncated, finished.exit_status) == (1000, True, 4)


async def test_output_of_exactly_the_limit_is_not_cut(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    finished = await command.run(
        pool, await fleet.add_sshd(sshd), "head -c 1000 /dev/zero", timeout_s=PATIENCE_S, output_limit_bytes=1000
    )

    assert (len(finished.stdout), finished.truncated) == (1000, False)


@pytest.fixture
async def user_target(fleet: Fleet, sshds: Sshds, password_user: PasswordUser) -> Target:
    """An account that is not root: for root, OpenSSH does not deliver signals that come over the channel."""
    sshd = sshds.start(options={"PasswordAuthentication": "yes"})
    credential_id = await fleet.add_password(password_user)
    target = await fleet.add(
        sshd.host, sshd.port, username=password_user.name, auth="password", credential_id=credential_id
    )
    await fleet.trust(target, key_of(sshd))
    return target


async def test_a_command_that_does_not_end_is_stopped_on_the_host(pool: Pool, user_target: Target) -> None:
    finished = await command.run(pool, user_target, "echo $$; exec sleep 1000", timeout_s=5.0, output_limit_bytes=1000)

    assert finished.timed_out
    assert finished.exit_status is None
    await gone(int(finished.stdout))


async def test_a_command_whose_caller_gave_up_is_stopped_as_well(pool: Pool, user_target: Target) -> None:
    await pool.connect(user_target)
    seconds = 10_000 + os.getpid()
    running = asyncio.ensure_future(
        command.run(pool, user_target, f"exec sleep {seconds}", timeout_s=PATIENCE_S, output_limit_bytes=1000)
    )
    pid = await asyncio.to_thread(pid_of, ["sleep", str(seconds)])

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await gone(pid)


def pid_of(arguments: list[str]) -> int:
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        for process in psutil.process_iter(["cmdline"]):
            if process.info["cmdline"] == arguments:
                return int(process.pid)
    raise AssertionError(f"nobody runs {arguments}")


async def gone(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        await asyncio.to_thread(psutil.Process(pid).wait, PATIENCE_S)


async def test_a_command_cut_off_by_a_lost_connection_is_no_result(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)
    await pool.connect(target)
    running = asyncio.ensure_future(
        command.run(pool, target, "sleep 1000", timeout_s=PATIENCE_S, output_limit_bytes=1000)
    )
    await asyncio.to_thread(sshd.wait_for_log, "Starting session")

    sshd.drop_connections()

    with pytest.raises(Unreachable) as failure:
        await running
    assert failure.value.reason == "connection_lost"
