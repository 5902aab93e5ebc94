import pytest

from server_monitor.ssh import command
from server_monitor.ssh.pool import Pool
from tests.ssh.conftest import Fleet
from tests.support.sshd import Sshd

pytestmark = pytest.mark.sshd


async def test_a_command_gives_its_output_and_its_exit_status(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)

    finished = await command.run(
        pool, target, "cat; echo oops >&2; exit 3", timeout_s=10, output_limit_bytes=1000, stdin=b"in\n"
    )

    assert (finished.exit_status, finished.stdout, finished.stderr) == (3, b"in\n", b"oops\n")
    assert not finished.truncated
