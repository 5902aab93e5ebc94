import asyncio
import json
import sys

import asyncssh

from bench.harness import ROOT
from bench.simulated_fleet import Host
from server_monitor.collect import linux
from server_monitor.collect.lines import Filesystem, Hello, ProcessCount, Reading, decode
from tests.support.patience import PATIENCE_S


def test_a_simulated_host_speaks_the_protocol_of_the_probe():
    host = Host("simulated-00001")
    lines = [line.encode() for line in (host.hello() + "\n" + host.answer("tmcpf")).splitlines()]

    kinds = [type(decode(line)) for line in lines]

    assert kinds == [Hello, Reading, ProcessCount, Filesystem]


def test_the_counters_of_a_simulated_host_make_believable_rates():
    host = Host("simulated-00001")
    earlier, later = (decode(host.answer("tmc").encode().strip()) for _ in range(2))
    assert isinstance(earlier, Reading)
    assert isinstance(later, Reading)

    elapsed_s = max(later.uptime_s - earlier.uptime_s, 1.0)
    values = linux.rates(earlier, later, elapsed_s) | linux.gauges(later)

    assert len(values) > 30
    assert all(0 <= value <= 100 for name, value in values.items() if "_percent" in name)


async def test_the_fleet_answers_over_real_ssh():
    command = [sys.executable, "-m", "bench.simulated_fleet"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    facts = json.loads(await process.stdout.readline())
    known = ([asyncssh.import_public_key(facts["host_key"])], [], [])
    key = asyncssh.generate_private_key("ssh-ed25519")

    async with (
        asyncio.timeout(PATIENCE_S),
        asyncssh.connect(
            "127.0.0.1", facts["port"], username="simulated-1", client_keys=[key], known_hosts=known, agent_path=None
        ) as connection,
        connection.create_process("exec awk") as probe,
    ):
        hello = await probe.stdout.readline()
        probe.stdin.write("t\n")
        reading = await probe.stdout.readline()
    process.stdin.write(b"\n")
    counted = json.loads(await process.stdout.readline())
    process.stdin.close()

    assert isinstance(decode(hello.strip().encode()), Hello)
    assert isinstance(decode(reading.strip().encode()), Reading)
    assert counted == {"lines": 1, "logins": 1, "commands": 0}
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
