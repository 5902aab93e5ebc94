"""What is measured: the one place a metric is defined.

A *series* is a metric of one server, or of one device of a server. Its name is the metric's name, followed for a
device by a colon and the device: `cpu_percent`, `filesystem_percent:/var`, `interface_rx_bytes_per_second:eth0`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Metric:
    """A kind of number. `per` names the device it exists for (`cpu`, `disk`, …), or is None for the whole server."""

    name: str
    unit: str
    meaning: str
    per: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """All values of one server at one instant.

    `at` is Unix seconds by the console's clock; `values` maps series names to finite floats.
    """

    server_id: str
    at: float
    values: dict[str, float]


_CATALOGUE = (
    Metric("cpu_percent", "%", "Share of time all CPUs were busy: everything but idle and waiting for disks."),
    Metric("cpu_user_percent", "%", "Share of CPU time in programs, niced ones included."),
    Metric("cpu_system_percent", "%", "Share of CPU time in the kernel, interrupts included."),
    Metric("cpu_iowait_percent", "%", "Share of CPU time idle while a disk was awaited."),
    Metric("cpu_steal_percent", "%", "Share of CPU time the hypervisor gave to somebody else."),
    Metric("cpu_core_percent", "%", "Share of time one CPU was busy; only while the server's page is open.", "cpu"),
    Metric("load1", "processes", "Processes running, runnable or waiting for a disk, averaged over 1 minute."),
    Metric("load5", "processes", "The same over 5 minutes."),
    Metric("load15", "processes", "The same over 15 minutes."),
    Metric("memory_percent", "%", "Share of memory that programs could not have: total less available."),
    Metric("memory_total_bytes", "B", "Memory the kernel manages."),
    Metric("memory_used_bytes", "B", "Total less available."),
    Metric("memory_available_bytes", "B", "What programs could still get without swapping."),
    Metric("memory_cached_bytes", "B", "File cache, buffers and reclaimable slabs, without shared memory."),
    Metric("memory_shared_bytes", "B", "Shared memory and files in tmpfs."),
    Metric("memory_dirty_bytes", "B", "Written by programs and not yet by the disks."),
    Metric("swap_percent", "%", "Share of swap in use; absent without swap."),
    Metric("swap_total_bytes", "B", "Swap space."),
    Metric("swap_used_bytes", "B", "Swap space in use."),
    Metric("pressure_cpu_percent", "%", "Share of time some task waited for a CPU (PSI)."),
    Metric("pressure_memory_percent", "%", "Share of time some task waited for memory (PSI)."),
    Metric("pressure_memory_full_percent", "%", "Share of time every task waited for memory (PSI)."),
    Metric("pressure_io_percent", "%", "Share of time some task waited for a disk (PSI)."),
    Metric("pressure_io_full_percent", "%", "Share of time every task waited for a disk (PSI)."),
    Metric("disk_percent", "%", "Space in use on the fullest local filesystem."),
    Metric("filesystem_percent", "%", "Space in use, of what an ordinary user may use, as in `df`.", "filesystem"),
    Metric("filesystem_size_bytes", "B", "Size of a filesystem.", "filesystem"),
    Metric("filesystem_used_bytes", "B", "Space in use on a filesystem.", "filesystem"),
    Metric("filesystem_available_bytes", "B", "Space an ordinary user can still write.", "filesystem"),
    Metric("filesystem_inodes_percent", "%", "Inodes in use; absent where they are not counted.", "filesystem"),
    Metric("disk_read_bytes_per_second", "B/s", "Read from all physical disks."),
    Metric("disk_write_bytes_per_second", "B/s", "Written to all physical disks."),
    Metric("disk_reads_per_second", "1/s", "Finished reads of all physical disks."),
    Metric("disk_writes_per_second", "1/s", "Finished writes of all physical disks."),
    Metric("disk_busy_percent", "%", "Share of time the busiest disk had requests in flight."),
    Metric("device_read_bytes_per_second", "B/s", "Read from a block device.", "disk"),
    Metric("device_write_bytes_per_second", "B/s", "Written to a block device.", "disk"),
    Metric("device_reads_per_second", "1/s", "Finished reads of a block device.", "disk"),
    Metric("device_writes_per_second", "1/s", "Finished writes of a block device.", "disk"),
    Metric("device_busy_percent", "%", "Share of time a block device had requests in flight.", "disk"),
    Metric("device_wait_ms", "ms", "Mean time of a request in queue and device; absent while idle.", "disk"),
    Metric("net_rx_bytes_per_second", "B/s", "Received by all physical interfaces."),
    Metric("net_tx_bytes_per_second", "B/s", "Sent by all physical interfaces."),
    Metric("net_errors_per_second", "1/s", "Receive and send errors of all physical interfaces."),
    Metric("net_drops_per_second", "1/s", "Packets dropped by all physical interfaces."),
    Metric("interface_rx_bytes_per_second", "B/s", "Received by an interface.", "interface"),
    Metric("interface_tx_bytes_per_second", "B/s", "Sent by an interface.", "interface"),
    Metric("interface_rx_packets_per_second", "1/s", "Packets received by an interface.", "interface"),
    Metric("interface_tx_packets_per_second", "1/s", "Packets sent by an interface.", "interface"),
    Metric("interface_errors_per_second", "1/s", "Receive and send errors of an interface.", "interface"),
    Metric("interface_drops_per_second", "1/s", "Packets an interface dropped.", "interface"),
    Metric("fds", "files", "Open files of the whole host."),
    Metric("fds_percent", "%", "Open files, of the most the kernel allows; absent where it sets no limit."),
    Metric("processes", "processes", "Processes that exist."),
    Metric("threads", "threads", "Threads that exist, kernel threads included."),
    Metric("threads_running", "threads", "Threads running or ready to run."),
    Metric("uptime_seconds", "s", "Time since the host booted."),
    Metric("temperature_celsius", "°C", "A temperature sensor.", "sensor"),
    Metric("probe_cpu_percent", "%", "What the probe itself costs the host, of one CPU."),
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _CATALOGUE})

# What a list of servers shows of each.
HEADLINE = (
    "cpu_percent",
    "memory_percent",
    "load1",
    "disk_percent",
    "net_rx_bytes_per_second",
    "net_tx_bytes_per_second",
    "uptime_seconds",
)


def series_name(metric: str, device: str | None = None) -> str:
    return metric if device is None else f"{metric}:{device}"


def split_series(name: str) -> tuple[str, str | None]:
    """The metric and the device of a series; a device may itself hold colons."""
    metric, colon, device = name.partition(":")
    return metric, device if colon else None
