"""What a Linux host's counters mean: gauges of one reading, and rates between two.

All values are finite, none is negative, and all names are in `series.sample.METRICS`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from server_monitor.collect.lines import (
    CpuTimes,
    Disk,
    Filesystem,
    Interface,
    Load,
    MemoryKib,
    OpenFiles,
    OwnCost,
    PressureUs,
    Process,
    Reading,
    Sensor,
    text,
)

SECTOR_BYTES: Final = 512
# The host's uptime ticks in hundredths, so a shorter span would turn rounding into rates.
SHORTEST_SPAN_S: Final = 0.2

# Traffic and requests of these pass through a physical device as well, and would be counted twice in a total.
_STACKED_INTERFACE = re.compile(
    r"bond|team|br[-\d]|bridge|docker|podman|cni|flannel|cilium|kube|nodelocaldns|virbr|lxdbr|incusbr|vmbr|ovs|"
    r"vxlan|geneve|gre|erspan|sit|tunl|ip6|ip_vti|tun|tap|wg|tailscale|zt|ppp|ipvlan|macv|vlan|nlmon|[^.]+\.\d+$"
)
_STACKED_DISK = re.compile(r"dm-|md\d|drbd|bcache|zd\d")


class CounterResetError(Exception):
    """The later reading is from before the earlier one: the host has booted in between."""


def rates(earlier: Reading, later: Reading, elapsed_s: float) -> dict[str, float]:
    """What happened between two readings of one boot, for each second or as a share of the time.

    A counter of a device that went backwards was reset with its device: that device has no rates this time.
    Raises CounterResetError when the host rebooted in between.
    """
    if later.uptime_s < earlier.uptime_s:
        raise CounterResetError
    values: dict[str, float] = {}
    if elapsed_s < SHORTEST_SPAN_S:
        return values
    if earlier.cpu is not None and later.cpu is not None:
        _cpu(values, earlier.cpu, later.cpu)
    if earlier.cores is not None and later.cores is not None:
        _cores(values, earlier.cores, later.cores)
    if earlier.disks is not None and later.disks is not None:
        _disks(values, earlier.disks, later.disks, elapsed_s)
    if earlier.interfaces is not None and later.interfaces is not None:
        _interfaces(values, earlier.interfaces, later.interfaces, elapsed_s)
    return values


def gauges(reading: Reading) -> dict[str, float]:
    """What is true at one instant and is in every reading."""
    values = {"uptime_seconds": reading.uptime_s}
    if reading.memory is not None:
        _memory(values, reading.memory)
    return values


def slow_gauges(reading: Reading) -> dict[str, float]:
    """What changes slowly and is asked for less often."""
    values: dict[str, float] = {}
    if reading.load is not None:
        _load(values, reading.load)
    if reading.files is not None:
        _files(values, reading.files)
    if reading.sensors:
        _sensors(values, reading.sensors)
    return values


def filesystem_gauges(filesystems: Iterable[Filesystem]) -> dict[str, float]:
    """Space and inodes of each filesystem, and `disk_percent` of the fullest."""
    values: dict[str, float] = {}
    fullest: float | None = None
    for found in filesystems:
        percent = _filesystem(values, found)
        if percent is not None and (fullest is None or percent > fullest):
            fullest = percent
    if fullest is not None:
        values["disk_percent"] = fullest
    return values


def probe_cpu_percent(earlier: OwnCost, later: OwnCost, elapsed_s: float) -> float | None:
    """What the probe cost, of one CPU; None when the two do not belong to one process."""
    used_s = later.cpu_s() - earlier.cpu_s()
    if used_s < 0 or elapsed_s < SHORTEST_SPAN_S:
        return None
    return used_s / elapsed_s * 100


def pressure_rates(earlier: PressureUs, later: PressureUs, elapsed_s: float) -> dict[str, float]:
    """Shares of the time in which something waited; empty for a span that is too short, or that a reboot lies in."""
    if elapsed_s < SHORTEST_SPAN_S:
        return {}
    share = 1e-4 / elapsed_s
    return {
        name: min(waited_us * share, 100.0)
        for name, waited_us in (
            ("pressure_cpu_percent", later.cpu - earlier.cpu),
            ("pressure_memory_percent", later.memory - earlier.memory),
            ("pressure_memory_full_percent", later.memory_full - earlier.memory_full),
            ("pressure_io_percent", later.io - earlier.io),
            ("pressure_io_full_percent", later.io_full - earlier.io_full),
        )
        if waited_us >= 0
    }


def _cpu(values: dict[str, float], earlier: CpuTimes, later: CpuTimes) -> None:
    # Single counters may step back a little (proc_stat(5) says so of iowait), hence a floor for each.
    user = max(later.user - earlier.user, 0) + max(later.nice - earlier.nice, 0)
    system = (
        max(later.system - earlier.system, 0)
        + max(later.irq - earlier.irq, 0)
        + max(later.softirq - earlier.softirq, 0)
    )
    iowait = max(later.iowait - earlier.iowait, 0)
    steal = max(later.steal - earlier.steal, 0)
    total = user + system + iowait + steal + max(later.idle - earlier.idle, 0)
    if total == 0:
        return
    # Multiplied first: times 100/total, a busy host would come to 100.00000000000001.
    values["cpu_percent"] = (user + system + steal) * 100 / total
    values["cpu_user_percent"] = user * 100 / total
    values["cpu_system_percent"] = system * 100 / total
    values["cpu_iowait_percent"] = iowait * 100 / total
    values["cpu_steal_percent"] = steal * 100 / total


def _cores(values: dict[str, float], earlier: Sequence[CpuTimes], later: Sequence[CpuTimes]) -> None:
    for number, (before, after) in enumerate(zip(earlier, later, strict=False)):
        core: dict[str, float] = {}
        _cpu(core, before, after)
        if core:
            values[f"cpu_core_percent:{number}"] = core["cpu_percent"]


@lru_cache(maxsize=4096)
def _disk_series(name: str) -> tuple[str, str, str, str, str, str]:
    device = text(name)
    return (
        f"device_read_bytes_per_second:{device}",
        f"device_write_bytes_per_second:{device}",
        f"device_reads_per_second:{device}",
        f"device_writes_per_second:{device}",
        f"device_busy_percent:{device}",
        f"device_wait_ms:{device}",
    )


@lru_cache(maxsize=4096)
def is_stacked_disk(name: str) -> bool:
    """Does this device pass its requests on to other disks of the host?"""
    return _STACKED_DISK.match(name) is not None


def _disks(values: dict[str, float], earlier: list[Disk], later: list[Disk], elapsed_s: float) -> None:
    # Taking each name out once also settles what a line says twice.
    before_by_name = {disk.name: disk for disk in earlier}
    count_all = all(is_stacked_disk(disk.name) for disk in later)
    read_bytes = written_bytes = reads = writes = busiest = 0.0
    per_s = 1 / elapsed_s
    for disk in later:
        before = before_by_name.pop(disk.name, None)
        if before is None:
            continue
        read_rate = (disk.sectors_read - before.sectors_read) * SECTOR_BYTES * per_s
        write_rate = (disk.sectors_written - before.sectors_written) * SECTOR_BYTES * per_s
        read_count = disk.reads - before.reads
        write_count = disk.writes - before.writes
        busy = min((disk.busy_ms - before.busy_ms) * per_s * 0.1, 100.0)
        if read_rate < 0 or write_rate < 0 or read_count < 0 or write_count < 0 or busy < 0:
            continue
        names = _disk_series(disk.name)
        values[names[0]] = read_rate
        values[names[1]] = write_rate
        values[names[2]] = read_count * per_s
        values[names[3]] = write_count * per_s
        values[names[4]] = busy
        waited_ms = disk.reading_ms - before.reading_ms + disk.writing_ms - before.writing_ms
        if (read_count or write_count) and waited_ms >= 0:
            values[names[5]] = waited_ms / (read_count + write_count)
        if count_all or not is_stacked_disk(disk.name):
            read_bytes += read_rate
            written_bytes += write_rate
            reads += read_count * per_s
            writes += write_count * per_s
            busiest = max(busiest, busy)
    values["disk_read_bytes_per_second"] = read_bytes
    values["disk_write_bytes_per_second"] = written_bytes
    values["disk_reads_per_second"] = reads
    values["disk_writes_per_second"] = writes
    values["disk_busy_percent"] = busiest


@lru_cache(maxsize=4096)
def _interface_series(name: str) -> tuple[str, str, str, str, str, str]:
    device = text(name)
    return (
        f"interface_rx_bytes_per_second:{device}",
        f"interface_tx_bytes_per_second:{device}",
        f"interface_rx_packets_per_second:{device}",
        f"interface_tx_packets_per_second:{device}",
        f"interface_errors_per_second:{device}",
        f"interface_drops_per_second:{device}",
    )


@lru_cache(maxsize=4096)
def is_stacked_interface(name: str) -> bool:
    """Does the traffic of this interface also pass through another one of the host?"""
    return _STACKED_INTERFACE.match(name) is not None


def _interfaces(values: dict[str, float], earlier: list[Interface], later: list[Interface], elapsed_s: float) -> None:
    before_by_name = {interface.name: interface for interface in earlier}
    count_all = all(is_stacked_interface(interface.name) for interface in later)
    rx_total = tx_total = errors_total = drops_total = 0.0
    per_s = 1 / elapsed_s
    for interface in later:
        before = before_by_name.pop(interface.name, None)
        if before is None:
            continue
        rx = (interface.rx_bytes - before.rx_bytes) * per_s
        tx = (interface.tx_bytes - before.tx_bytes) * per_s
        rx_packets = (interface.rx_packets - before.rx_packets) * per_s
        tx_packets = (interface.tx_packets - before.tx_packets) * per_s
        errors = (interface.rx_errors - before.rx_errors + interface.tx_errors - before.tx_errors) * per_s
        drops = (interface.rx_drops - before.rx_drops + interface.tx_drops - before.tx_drops) * per_s
        if rx < 0 or tx < 0 or rx_packets < 0 or tx_packets < 0 or errors < 0 or drops < 0:
            continue
        names = _interface_series(interface.name)
        values[names[0]] = rx
        values[names[1]] = tx
        values[names[2]] = rx_packets
        values[names[3]] = tx_packets
        values[names[4]] = errors
        values[names[5]] = drops
        if count_all or not is_stacked_interface(interface.name):
            rx_total += rx
            tx_total += tx
            errors_total += errors
            drops_total += drops
    values["net_rx_bytes_per_second"] = rx_total
    values["net_tx_bytes_per_second"] = tx_total
    values["net_errors_per_second"] = errors_total
    values["net_drops_per_second"] = drops_total


def _memory(values: dict[str, float], memory: MemoryKib) -> None:
    total = memory.total
    reclaimable = memory.reclaimable or 0
    cached = max(memory.buffers + memory.cached + reclaimable - memory.shared, 0)
    # Before Linux 3.14 the kernel does not say what is available; this is how `free` guessed then.
    available = min(memory.free + cached if memory.available is None else memory.available, total)
    values["memory_total_bytes"] = total * 1024.0
    values["memory_available_bytes"] = available * 1024.0
    values["memory_used_bytes"] = (total - available) * 1024.0
    values["memory_cached_bytes"] = cached * 1024.0
    values["memory_shared_bytes"] = memory.shared * 1024.0
    values["memory_dirty_bytes"] = memory.dirty * 1024.0
    if total:
        values["memory_percent"] = (total - available) * 100 / total
    if memory.swap_total:
        used = max(memory.swap_total - memory.swap_free, 0)
        values["swap_total_bytes"] = memory.swap_total * 1024.0
        values["swap_used_bytes"] = used * 1024.0
        values["swap_percent"] = used * 100 / memory.swap_total


def _load(values: dict[str, float], load: Load) -> None:
    values["load1"] = load.load1
    values["load5"] = load.load5
    values["load15"] = load.load15
    values["threads"] = float(load.threads)
    values["threads_running"] = float(load.running)


def _files(values: dict[str, float], files: OpenFiles) -> None:
    values["fds"] = float(files.used)
    # Since Linux 5.10 the default limit is the largest number there is, which is no limit at all.
    if files.limit and files.limit < 2**53:
        values["fds_percent"] = files.used * 100 / files.limit


def _sensors(values: dict[str, float], sensors: Iterable[Sensor]) -> None:
    for sensor in sensors:
        if sensor.millidegrees is not None:
            values.setdefault(f"temperature_celsius:{text(sensor.name)}", sensor.millidegrees / 1000)


def _filesystem(values: dict[str, float], found: Filesystem) -> float | None:
    used = found.blocks - found.free
    usable = used + found.available
    if found.blocks == 0 or used < 0 or usable == 0:
        return None
    mount_point = found.mount_point
    percent = used * 100 / usable
    values[f"filesystem_percent:{mount_point}"] = percent
    values[f"filesystem_size_bytes:{mount_point}"] = float(found.blocks * found.block_bytes)
    values[f"filesystem_used_bytes:{mount_point}"] = float(used * found.block_bytes)
    values[f"filesystem_available_bytes:{mount_point}"] = float(found.available * found.block_bytes)
    if 0 < found.inodes >= found.inodes_free:
        values[f"filesystem_inodes_percent:{mount_point}"] = (found.inodes - found.inodes_free) * 100 / found.inodes
    return percent


# What /proc counts in, whatever the kernel's own clock: USER_HZ of proc(5), and the page of every common machine.
_JIFFIES_PER_SECOND = 100
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What one process uses. `cpu_percent` is of one core; None in the first list: nothing to compare it with."""

    pid: int
    name: str
    cpu_percent: float | None
    memory_bytes: int


def process_uses(top: Sequence[Process], elapsed_s: float | None) -> list[ProcessUse]:
    """The list of top processes in units a person reads; `elapsed_s` lies between it and the list before."""
    share = None if not elapsed_s or elapsed_s <= 0 else 100 / (_JIFFIES_PER_SECOND * elapsed_s)
    return [
        ProcessUse(one.pid, one.name, None if share is None else round(one.jiffies * share, 1), one.pages * _PAGE_BYTES)
        for one in top
    ]
