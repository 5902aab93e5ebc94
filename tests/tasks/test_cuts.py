"""The connection is cut at every place of the conversation: the command runs at most once, its task tells the truth."""

from contextlib import AsyncExitStack

import pytest

from tests.support.bad_hosts import Cutter, bad_host
from tests.support.sshd import Sshd
from tests.tasks.site import COUNT, Site, count

pytestmark = [pytest.mark.sshd, pytest.mark.long]

HOSTS = 10
CONVERSATION_BYTES = 5_500  # what starting, running and acknowledging a short command takes on the wire, and some more


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        (f"{COUNT}; echo done", b"done\n"),
        (f"{COUNT}; seq 300; sleep 0.8; seq 300", b"".join(b"%d\n" % n for n in range(1, 301)) * 2),
    ],
)
async def test_wherever_the_connection_is_cut_the_command_ran_once_or_the_task_says_that_it_did_not(
    site: Site, command: str, printed: bytes
) -> None:
    async with AsyncExitStack() as stack:
        sites: list[tuple[Sshd, Cutter, str]] = []
        servers = []
        for _ in range(HOSTS):
            host = site.sshds.start()
            cutter = Cutter(host.port)
            proxy = await stack.enter_async_context(bad_host(cutter.script))
            server = await site.add(host, port=proxy.port)
            servers.append(server)
            sites.append((host, cutter, server.id))
        worker = await stack.enter_async_context(site.worker())
        places = list(range(0, CONVERSATION_BYTES, 110))
        ends = {"success": 0, "failed": 0, "interrupted": 0}
        for start in range(0, len(places), HOSTS):
            await site.run(worker, *servers, command="true")  # the connections are open
            at = {}
            for (_, cutter, server_id), place in zip(sites, places[start : start + HOSTS], strict=False):
                cutter.arm(place)
                at[server_id] = place
            for row in await site.run(worker, *servers, command=command):
                [host] = [host for host, _, server_id in sites if server_id == row.server_id]
                ran = count(host).get(row.id, 0)
                said = (at.get(row.server_id), row.status, row.cause, row.detail, ran)
                ends[row.status] += 1
                assert ran == (1 if row.status == "success" else 0), said
                if row.status == "success":
                    assert (await site.output(row))[0] == printed, said
                else:
                    assert row.cause in {"connection_lost", "channel_refused", "never_started"}, said

        assert sum(cutter.cuts for _, cutter, _ in sites) > len(places) // 2
        assert ends["success"] >= 40, ends  # a cut before the command began costs a new connection and no more
