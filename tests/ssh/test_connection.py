import asyncio
import gc
import tracemalloc

import asyncssh
import pytest

from server_monitor.ssh.pool import Pool
from tests.ssh.conftest import Fleet, key_of
from tests.support.sshd import Sshd

pytestmark = pytest.mark.sshd

LENT = (  # what connection.py and dial.py use of asyncssh without its promise
    "_options",
    "_password",
    "_client_keys",
    "_inpbuf",
    "_transport",
    "_loop",
    "_server_version",
    "_server_kexinit",
    "_client_kexinit",
    "_server_sig_algs",
    "_send_seq",
)


async def test_asyncssh_still_has_the_insides_that_are_relied_on(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    connection = await pool.connect(await fleet.add_sshd(sshd))

    assert [name for name in LENT if name not in vars(connection)] == []
    for name in ("_force_close", "data_received", "send_newkeys", "pause_writing", "resume_writing", "close"):
        assert callable(getattr(asyncssh.SSHClientConnection, name))
    for name in ("_open", "_make_request", "process_open_confirmation", "log_received_packet"):
        assert callable(getattr(asyncssh.SSHClientChannel, name))
    assert connection._server_version.startswith(b"SSH-2.0-OpenSSH")


async def test_nothing_of_the_handshake_stays_in_memory(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    connection = await pool.connect(await fleet.add_sshd(sshd))

    assert connection._client_keys == []
    assert connection._password is None
    assert (connection._client_kexinit, connection._server_kexinit) == (b"", b"")
    assert connection._options is (await pool.connect(await fleet.add_sshd(sshd)))._options


async def test_a_connection_with_a_channel_takes_less_than_30_kib(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    credential_id = await fleet.add_key(sshd.private_key)
    targets = []
    for _ in range(40):
        targets.append(
            await fleet.add(sshd.host, sshd.port, username=sshd.username, auth="key", credential_id=credential_id)
        )
        await fleet.trust(targets[-1], key_of(sshd))
    channels = [await pool.open_channel(targets[0], "cat", lambda data: None, lambda reason: None)]
    gc.collect()
    tracemalloc.start()
    try:
        channels += [
            await pool.open_channel(target, "cat", lambda data: None, lambda reason: None) for target in targets[1:]
        ]
        await asyncio.sleep(0)
        gc.collect()
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held_bytes / len(targets[1:]) < 30 * 1024
