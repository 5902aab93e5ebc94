"""Whatever a host does: we stop in time, keep little for it, say what was wrong, and other hosts notice nothing."""

import asyncio
import tracemalloc

import pytest

from server_monitor.errors import Unreachable
from server_monitor.ssh.pool import Limits
from tests.ssh.conftest import Fleet, MakePool
from tests.support import bad_hosts
from tests.support.bad_hosts import bad_host

LITTLE_BYTES = 5 * 1024 * 1024


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (bad_hosts.never_answers, "banner_timeout"),
        (bad_hosts.a_banner_line_now_and_then, "banner_timeout"),
        (bad_hosts.closes_at_once, "connection_lost"),
        (bad_hosts.closes_after_its_banner, "connection_lost"),
        (bad_hosts.goes_silent_after_its_banner, "connect_timeout"),
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
    make_pool: MakePool, fleet: Fleet, script: bad_hosts.Script, reason: str
) -> None:
    pool = make_pool(Limits(connect_timeout_s=2.0))
    async with bad_host(script) as host:
        target = await fleet.add(host.host, host.port)
        tracemalloc.start()
        try:
            with pytest.raises(Unreachable) as failure:
                await pool.connect(target)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await asyncio.wait_for(host.left.wait(), 5)

    assert failure.value.reason == reason
    assert peak_bytes < LITTLE_BYTES
