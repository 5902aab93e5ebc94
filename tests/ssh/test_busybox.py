"""A host that has BusyBox and nothing else, behind a real sshd: its shell, its awk, its stat."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from server_monitor.collect import linux, probe
from server_monitor.collect.lines import Filesystem, Hello, Line, ProcessCount, Reading, decode
from server_monitor.ssh.pool import Pool
from tests.ssh.conftest import Fleet
from tests.support.awks import CAPTURES
from tests.support.patience import PATIENCE_S
from tests.support.sshd import Sshd, Sshds

BUSYBOX = shutil.which("busybox") or "/bin/busybox"
CAPTURE = CAPTURES / "busybox-sshd"


@pytest.fixture
def host(sshds: Sshds, tmp_path: Path) -> Sshd:
    """A host whose commands are all BusyBox's, the shell that runs ours among them."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "busybox").symlink_to(BUSYBOX)
    subprocess.run([BUSYBOX, "--install", "-s", str(programs)], check=True, capture_output=True, timeout=PATIENCE_S)
    login = f'exec env -i PATH={programs} {programs}/sh -c "$SSH_ORIGINAL_COMMAND"'
    return sshds.start(options={"ForceCommand": login})


async def answered(pool: Pool, fleet: Fleet, host: Sshd, ticks: Sequence[str]) -> list[Line]:
    """What the probe says on its way to the end of its input."""
    said, complaints, closed = bytearray(), bytearray(), asyncio.Event()
    target = await fleet.add_sshd(host)
    channel = await pool.open_channel(target, probe.command(), said.extend, lambda _: closed.set(), complaints.extend)
    channel.write("".join(f"{tick}\n" for tick in ticks).encode())
    channel.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        await closed.wait()
    assert complaints == b""
    return [decode(line) for line in bytes(said).splitlines()]


@pytest.mark.sshd
async def test_a_host_with_nothing_but_busybox_is_watched(pool: Pool, fleet: Fleet, host: Sshd) -> None:
    hello, *lines = await answered(pool, fleet, host, ["tm", "tmcp", "tf"])

    assert isinstance(hello, Hello)
    assert hello.awk == "busybox"
    assert {"cpu", "memory", "disks", "interfaces"} <= set(hello.sections)
    readings = [line for line in lines if isinstance(line, Reading)]
    assert len(readings) == 3
    assert all(reading.cpu and reading.memory for reading in readings)
    assert readings[1].cores
    assert readings[1].top
    assert any(isinstance(line, Filesystem) and line.mount_point == "/" for line in lines)
    assert any(isinstance(line, ProcessCount) for line in lines)


def test_what_such_a_host_said_has_the_values_worked_out_by_hand() -> None:
    hello, *lines = [decode(line) for line in (CAPTURE / "lines").read_bytes().splitlines()]
    expected: dict[str, Any] = json.loads((CAPTURE / "values.json").read_text())

    assert isinstance(hello, Hello)
    assert (hello.awk, hello.hostname, hello.cpus) == ("busybox", "web-1", 2)
    earlier, later = (line for line in lines if isinstance(line, Reading))
    elapsed_s = later.uptime_s - earlier.uptime_s
    assert elapsed_s == pytest.approx(expected.pop("elapsed_s"))
    values = {**linux.gauges(later), **linux.slow_gauges(later), **linux.rates(earlier, later, elapsed_s)}
    assert earlier.pressure is not None
    assert later.pressure is not None
    values |= linux.pressure_rates(earlier.pressure, later.pressure, elapsed_s)
    assert {name: values.get(name) for name in expected} == pytest.approx(expected, rel=1e-5)
    assert ProcessCount(174) in lines
    assert Filesystem("/", 4096, 66053021, 58824319, 19369026, 16777216, 16112525) in lines
