"""The probe in real awks: on this machine, and over captures of others."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server_monitor.collect import linux, probe
from server_monitor.collect.lines import Disk, Filesystem, Hello, Line, ProcessCount, Reading, decode, text
from tests.support.awks import AWKS, CAPTURES, COMMANDS, run_probe
from tests.support.patience import PATIENCE_S

SHELLS = (["dash", "-c"], ["bash", "-c"], ["busybox", "ash", "-c"], ["zsh", "-c"], ["fish", "-c"], ["tcsh", "-c"])
HOSTS = tuple(sorted(path.parent.name for path in CAPTURES.glob("*/expected.json")))
each_awk = pytest.mark.parametrize("awk", AWKS)


def decoded(awk: str, ticks: list[str], root: Path | None = None) -> list[Line]:
    return [decode(line) for line in run_probe(awk, ticks, root)]


def reading(awk: str, tick: str, root: Path | None = None) -> Reading:
    found = decoded(awk, [tick], root)[1]
    assert isinstance(found, Reading)
    return found


def test_all_three_awks_are_here() -> None:
    assert AWKS == ("mawk", "gawk", "busybox"), "apt install mawk gawk busybox"


@each_awk
def test_greets_then_answers_each_tick_with_one_line_and_ends_at_end_of_file(awk: str) -> None:
    found = decoded(awk, ["t", "t", "tm"])
    assert [type(line) for line in found] == [Hello, Reading, Reading, Reading]


@each_awk
def test_hello_tells_who_the_host_is(awk: str) -> None:
    hello = decoded(awk, [])[0]
    assert isinstance(hello, Hello)
    assert hello.version == 1
    assert hello.awk == awk
    assert hello.cpus == os.cpu_count()
    assert text(hello.hostname) == Path("/proc/sys/kernel/hostname").read_text().strip()
    assert hello.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert {"cpu", "memory", "disks", "interfaces"} <= set(hello.sections)


@each_awk
@pytest.mark.parametrize("host", HOSTS)
def test_values_of_captured_hosts_are_those_worked_out_by_hand(awk: str, host: str) -> None:
    expected: dict[str, Any] = json.loads((CAPTURES / host / "expected.json").read_text())
    earlier = reading(awk, "tm", CAPTURES / host / "earlier")
    later = reading(awk, "tm", CAPTURES / host / "later")
    elapsed_s = later.uptime_s - earlier.uptime_s
    assert elapsed_s == pytest.approx(expected.pop("elapsed_s"))
    values = {**linux.gauges(later), **linux.slow_gauges(later), **linux.rates(earlier, later, elapsed_s)}
    if earlier.pressure is not None and later.pressure is not None:
        values |= linux.pressure_rates(earlier.pressure, later.pressure, elapsed_s)
    assert {name: values.get(name) for name in expected} == pytest.approx(expected, rel=1e-5)


@each_awk
@pytest.mark.parametrize("host", HOSTS)
def test_captured_hosts_introduce_themselves(awk: str, host: str) -> None:
    hello = decoded(awk, [], CAPTURES / host / "later")[0]
    assert isinstance(hello, Hello)
    names = {"debian-12": "Debian GNU/Linux 12", "alpine-3": "Alpine Linux v3.20", "rocky-9": "Rocky Linux 9.4"}
    assert hello.system.startswith(names[host])
    assert ("pressure" in hello.sections) == (host == "debian-12")


@each_awk
def test_partitions_and_memory_disks_are_left_out_and_stacked_disks_are_not(awk: str) -> None:
    found = reading(awk, "t", CAPTURES / "rocky-9" / "later")
    assert found.disks is not None
    assert [disk.name for disk in found.disks] == ["sda", "nvme0n1", "dm-0", "dm-1", "dm-10"]
    found = reading(awk, "t", CAPTURES / "alpine-3" / "later")
    assert found.disks is not None
    assert [disk.name for disk in found.disks] == ["mmcblk0"]


@each_awk
def test_ends_of_virtual_cables_and_unused_interfaces_are_left_out(awk: str) -> None:
    found = reading(awk, "t", CAPTURES / "rocky-9" / "later")
    assert found.interfaces is not None
    assert [each.name for each in found.interfaces] == ["eno1", "eno2", "bond0", "bond0.100", "docker0"]


@each_awk
def test_a_single_disk_is_read_by_itself_between_two_looks_at_all_disks(awk: str, tmp_path: Path) -> None:
    """What was listed last is asked for in its own file; where that cannot be read, all of them are listed again."""
    root = tmp_path / "host"
    shutil.copytree(CAPTURES / "debian-12" / "later", root)
    (root / "proc/diskstats").write_text("   8 0 sda 100 0 200 30 400 0 500 60 0 70 90\n")
    own = root / "sys/block/sda/stat"
    own.parent.mkdir(parents=True)
    own.write_text("  101  0  201  31  401  0  501  61  0  71  92  0 0 0 0 0 0\n")

    listed, alone = decoded(awk, ["tm", "t"], root)[1:]
    own.unlink()
    again = decoded(awk, ["tm", "t"], root)[2]

    assert isinstance(listed, Reading)
    assert isinstance(alone, Reading)
    assert isinstance(again, Reading)
    assert listed.disks == again.disks == [Disk("sda", 100, 200, 30, 400, 500, 60, 70)]
    assert alone.disks == [Disk("sda", 101, 201, 31, 401, 501, 61, 71)]


@each_awk
@pytest.mark.parametrize(("tick", "has_pressure"), [("t", False), ("tm", True), ("tc", True), ("tf", False)])
def test_pressure_comes_with_the_slow_gauges_and_with_each_cpu(awk: str, tick: str, has_pressure: bool) -> None:
    assert (reading(awk, tick, CAPTURES / "debian-12" / "later").pressure is not None) == has_pressure


@each_awk
def test_each_cpu_and_the_top_processes_come_on_demand(awk: str) -> None:
    plain, detailed = decoded(awk, ["t", "tcp"])[1:]
    assert isinstance(plain, Reading)
    assert isinstance(detailed, Reading)
    assert plain.cores is None
    assert plain.top is None
    assert detailed.cores is not None
    assert len(detailed.cores) == os.cpu_count()
    assert detailed.top
    assert len({process.pid for process in detailed.top}) == len(detailed.top) <= 20


@each_awk
def test_filesystems_and_process_count_come_by_lines_of_their_own(awk: str) -> None:
    found = decoded(awk, ["tf"])
    root = next(line for line in found if isinstance(line, Filesystem) and line.mount_point == "/")
    count = next(line for line in found if isinstance(line, ProcessCount))
    space = os.statvfs("/")
    assert root.blocks * root.block_bytes == space.f_blocks * space.f_frsize
    assert root.inodes == space.f_files
    assert count.processes > 3


@each_awk
def test_a_hanging_filesystem_holds_up_no_tick(awk: str, tmp_path: Path) -> None:
    stuck = tmp_path / "stat"
    stuck.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\necho F 1 1 1 1 1 1 /stuck\nexec sleep 600\n")
    stuck.chmod(0o755)
    command = [*COMMANDS[awk], "-v", "STAT_F=1", "--", probe.program()]
    environment = {"LC_ALL": "C", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        _ask(running, b"tf\n", Filesystem)
        stuck_pid = int((tmp_path / "pid").read_text())
        try:
            for _ in range(3):
                _ask(running, b"t\n", Reading)
            running.stdin.close()
            assert running.wait(PATIENCE_S) == 0
        finally:
            os.kill(stuck_pid, signal.SIGKILL)


def _ask(running: "subprocess.Popen[bytes]", tick: bytes, kind: type) -> None:
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write(tick)
    running.stdin.flush()
    while not isinstance(decode(running.stdout.readline().rstrip()), kind):
        assert running.poll() is None


@each_awk
def test_only_local_filesystems_are_touched_and_odd_mount_points_are_quoted(awk: str, tmp_path: Path) -> None:
    """NFS, CIFS, FUSE, containers, bind mounts and snaps are not asked; blanks and quotes reach stat as they are."""
    asked = tmp_path / "asked"
    fake = tmp_path / "stat"
    fake.write_text(f'#!/bin/sh\nshift 3\nfor each in "$@"; do printf "%s\\n" "$each"; done >{asked}\n')
    fake.chmod(0o755)
    for host, expected in (
        ("rocky-9", ["/", "/boot", "/srv/it's data"]),
        ("alpine-3", ["/", "/boot", "/media/usb disk"]),
    ):
        root = CAPTURES / host / "later"
        run_probe(awk, ["tf"], root, path=f"{tmp_path}:/usr/bin:/bin")
        assert asked.read_text().splitlines() == [f"{root}{mount_point}" for mount_point in expected]


@each_awk
def test_names_of_any_bytes_become_ascii(awk: str, tmp_path: Path) -> None:
    root = tmp_path / "host"
    shutil.copytree(CAPTURES / "debian-12" / "later", root)
    name = 'we"b\\1\t\x01é\u202e\xff'.encode("utf-8", "surrogateescape")[:-2] + b"\xfe"
    (root / "proc/sys/kernel/hostname").write_bytes(name + b"\n")
    first, _ = run_probe(awk, ["t"], root)
    assert first.isascii()
    hello = decode(first)
    assert isinstance(hello, Hello)
    assert hello.hostname.encode("latin-1") == name
    assert text(hello.hostname) == 'we"b\\1\ufffd\ufffdé\ufffd\ufffd'


@each_awk
def test_a_host_without_the_files_still_answers(awk: str, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/uptime").write_text("12.34 5.00\n")
    found = decoded(awk, ["tmcp"], tmp_path)
    assert isinstance(found[0], Hello)
    assert found[0].sections == []
    assert isinstance(found[1], Reading)
    assert found[1].cpu is None
    assert found[1].uptime_s == 12.34


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell[0])], ids=lambda shell: shell[0])
def test_any_login_shell_starts_the_probe(shell: list[str]) -> None:
    finished = subprocess.run(
        [*shell, probe.command()], check=False, input=b"t\n", capture_output=True, timeout=PATIENCE_S
    )
    assert finished.stderr == b""
    hello, answer = finished.stdout.splitlines()
    assert isinstance(decode(hello), Hello)
    assert isinstance(decode(answer), Reading)


def test_the_command_has_no_letter_that_any_shell_would_change() -> None:
    """fish gives a meaning to a backslash within single quotes, tcsh to a newline and an exclamation mark."""
    outer, launcher, between, program, rest = probe.command().split("'")
    assert (outer, between, rest) == ("exec sh -c ", " ", "")
    for word in (launcher, program):
        assert word.isascii()
        assert word.isprintable()
        assert "\\" not in word
        assert "!" not in word.replace("!=", "")


@pytest.mark.parametrize(
    ("there", "expected"), [([], "refused no_awk"), (["gawk"], '["hello",1,"gawk"'), (["busybox"], '["hello",1,"busy')]
)
def test_finds_the_awk_that_a_host_has(tmp_path: Path, there: list[str], expected: str) -> None:
    for program in ("sh", "uname", "cat", *there):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)
    finished = subprocess.run(
        ["/bin/sh", "-c", probe.command()],
        check=False,
        input=b"",
        capture_output=True,
        timeout=PATIENCE_S,
        env={"PATH": str(tmp_path)},
    )
    assert finished.stdout.decode().startswith(expected)
