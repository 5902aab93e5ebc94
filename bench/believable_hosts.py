"""Values of hosts that do not exist and could: for measuring how history stores them.

What the probe counts is simulated (jiffies, packets, blocks, pages) and turned into values the way `collect.linux`
does, so that values have the granularity, the noise and the repetitions of real ones. A fleet has idle machines,
ordinary ones and busy ones; each has its own day, its own bursts, its own devices.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server_monitor.series.sample import Sample

Array = NDArray[np.float64]

_HERTZ = 100  # jiffies a second of each CPU
_BLOCK = 4096
_KIND_SHARES = {"idle": 0.3, "ordinary": 0.5, "busy": 0.2}
_LOAD = {"idle": 0.01, "ordinary": 0.12, "busy": 0.55}  # of all CPUs
_PACKETS = {"idle": 3.0, "ordinary": 120.0, "busy": 4000.0}  # a second
_WRITES = {"idle": 0.6, "ordinary": 12.0, "busy": 180.0}


@dataclass(frozen=True, slots=True)
class Shape:
    """One stretch of time: `count` samples, `every_s` apart, from Unix second `start` on."""

    start: float
    count: int
    every_s: float


class BelievableHost:
    """One host. Its state goes on from stretch to stretch."""

    def __init__(self, number: int, seed: int) -> None:
        self.name = f"host{number:04d}"
        self._random = np.random.default_rng((seed, number))
        random = self._random
        self._kind = str(random.choice(list(_KIND_SHARES), p=list(_KIND_SHARES.values())))
        self._cpus = int(random.choice([1, 2, 4, 8, 16]))
        self._memory_total = float(random.choice([1, 2, 4, 8, 16, 64])) * 2**30 - 4096 * int(random.integers(20_000))
        self._available = self._memory_total * random.uniform(0.2, 0.9)
        self._cached = self._memory_total * random.uniform(0.02, 0.1)
        self._fs_size = float(random.choice([20, 50, 200, 1000])) * 2**30
        self._fs_used = self._fs_size * random.uniform(0.05, 0.9) // _BLOCK * _BLOCK
        self._uptime = float(random.uniform(1e4, 3e7))
        self._threads = float(random.integers(120, 900))
        self._fds = float(random.integers(30, 200)) * 32
        self._phase = random.uniform(0, 86_400)
        self._mood = 0.0
        self._loads = [0.1, 0.1, 0.1]
        self._disk, self._interface = (
            str(random.choice(["sda", "vda", "nvme0n1"])),
            str(random.choice(["eth0", "ens3"])),
        )

    def samples(self, shape: Shape) -> Iterator[Sample]:
        at = shape.start + np.arange(shape.count) * shape.every_s + np.abs(self._random.normal(0, 0.002, shape.count))
        values = self._values(shape)
        names = tuple(values)
        for when, row in zip(at.tolist(), np.stack(list(values.values()), axis=1).tolist(), strict=True):
            there = dict(zip(names, row, strict=True))
            wait_ms = f"device_wait_ms:{self._disk}"
            if there[wait_ms] != there[wait_ms]:  # NaN: no request in this interval
                del there[wait_ms]
            yield Sample(self.name, when, there)

    def _values(self, shape: Shape) -> dict[str, Array]:
        random, count = self._random, shape.count
        # The host's own clock has hundredths; that is what rates are divided by.
        elapsed = np.round(shape.every_s + random.choice([-0.01, 0, 0, 0, 0, 0, 0.01], count), 2)
        intensity = self._intensity(shape)
        return (
            self._cpu(intensity, elapsed)
            | self._memory(intensity, count)
            | self._pressure(intensity, elapsed)
            | self._disks(intensity, elapsed)
            | self._filesystems(shape)
            | self._network(intensity, elapsed)
            | self._rest(intensity, elapsed)
        )

    def _intensity(self, shape: Shape) -> Array:
        """How busy the host is, around 1: its day, a slow mood, and bursts such as backups and deployments."""
        random, count = self._random, shape.count
        day = 1 + 0.5 * np.sin((shape.start + np.arange(count) * shape.every_s + self._phase) * (2 * np.pi / 86_400))
        kept = np.exp(-shape.every_s / 300)
        moods = _decaying(random.normal(0, 0.35 * np.sqrt(1 - kept**2), count), kept, self._mood)
        self._mood = float(moods[-1])
        bursts = np.zeros(count)
        for _ in range(random.poisson(count * shape.every_s / 5400)):
            first = int(random.integers(count))
            bursts[first : first + max(1, int(random.exponential(120) / shape.every_s))] += random.uniform(0.5, 4)
        return day * np.exp(moods) + bursts

    def _cpu(self, intensity: Array, elapsed: Array) -> dict[str, Array]:
        random = self._random
        total = np.round(elapsed * _HERTZ * self._cpus + random.integers(-1, 2, len(elapsed)))
        busy = np.minimum(_LOAD[self._kind] * intensity, 0.97) * total
        user, system = random.poisson(busy * 0.7), random.poisson(busy * 0.3)
        waiting = random.poisson(np.minimum(0.002 * intensity * total, 0.2 * total))
        steal = random.poisson(0.0005 * total) if self._kind == "busy" else np.zeros(len(total))
        over = np.maximum((user + system + waiting + steal) / total, 1)
        running = np.minimum(busy / total * self._cpus, self._cpus * 1.0)
        loads = []
        for place, minutes in enumerate((1, 5, 15)):
            kept = np.exp(-float(np.mean(elapsed)) / (60 * minutes))
            found = _decaying(random.poisson(running) * (1 - kept), kept, self._loads[place])
            self._loads[place] = float(found[-1])
            loads.append(np.round(found, 2))
        return {
            "load1": loads[0],
            "load5": loads[1],
            "load15": loads[2],
            "cpu_percent": 100 * (user + system + steal) / over / total,
            "cpu_user_percent": 100 * user / over / total,
            "cpu_system_percent": 100 * system / over / total,
            "cpu_iowait_percent": 100 * waiting / over / total,
            "cpu_steal_percent": 100 * steal / over / total,
        }

    def _memory(self, intensity: Array, count: int) -> dict[str, Array]:
        random, total = self._random, self._memory_total
        # Most intervals move some pages; now and then a process starts or ends.
        moves = random.normal(0, 60 if self._kind == "idle" else 900, count) * np.minimum(intensity, 3)
        moves[random.random(count) < 0.3] = 0
        moves += np.where(random.random(count) < 0.002, random.normal(0, total / _BLOCK / 200, count), 0)
        available = _bounded(self._available + np.cumsum(np.round(moves)) * _BLOCK, 0.05 * total, 0.95 * total)
        cached = _bounded(
            self._cached + np.cumsum(random.poisson(np.minimum(3 * intensity, 40)) - 3.0) * _BLOCK, 0, total / 2
        )
        self._available, self._cached = float(available[-1]), float(cached[-1])
        dirty = random.gamma(2, 20 * np.minimum(intensity, 5) + 1) // 1 * _BLOCK
        return {
            "memory_total_bytes": np.full(count, total),
            "memory_available_bytes": available // 1024 * 1024,
            "memory_used_bytes": total - available // 1024 * 1024,
            "memory_cached_bytes": cached // 1024 * 1024,
            "memory_shared_bytes": np.full(count, 9_068_544.0),
            "memory_dirty_bytes": dirty,
            "memory_percent": 100 * (total - available) / total,
        }

    def _pressure(self, intensity: Array, elapsed: Array) -> dict[str, Array]:
        random, count = self._random, len(elapsed)

        def some(share: float, often: float) -> Array:
            microseconds = np.round(random.exponential(share * intensity * elapsed * 1e6))
            return np.where(random.random(count) < often, np.minimum(microseconds / elapsed / 1e4, 100), 0.0)

        often = {"idle": 0.3, "ordinary": 0.9, "busy": 1.0}[self._kind]
        return {
            "pressure_cpu_percent": some(_LOAD[self._kind] / 20, often),
            "pressure_memory_percent": some(0.0005, 0.002),
            "pressure_memory_full_percent": np.zeros(count),
            "pressure_io_percent": some(0.002, often / 2),
            "pressure_io_full_percent": some(0.001, often / 3),
        }

    def _disks(self, intensity: Array, elapsed: Array) -> dict[str, Array]:
        random = self._random
        writes = random.poisson(_WRITES[self._kind] * np.minimum(intensity, 8) * elapsed).astype(float)
        reads = random.poisson(_WRITES[self._kind] * 0.05 * np.minimum(intensity, 8) * elapsed).astype(float)
        written = writes * _BLOCK + random.poisson(writes * 1.3) * _BLOCK
        read = reads * _BLOCK + random.poisson(reads * 4) * _BLOCK
        took_ms = random.poisson(writes * 0.6 + reads * 0.3).astype(float)
        requests = reads + writes
        wait = np.divide(took_ms * 1.3 // 1, requests, out=np.full(len(requests), np.nan), where=requests > 0)
        busy = np.minimum(took_ms / elapsed / 10, 100)
        rates = {
            "read_bytes_per_second": read / elapsed,
            "write_bytes_per_second": written / elapsed,
            "reads_per_second": reads / elapsed,
            "writes_per_second": writes / elapsed,
            "busy_percent": busy,
        }
        return (
            {f"device_{name}:{self._disk}": values for name, values in rates.items()}
            | {f"device_wait_ms:{self._disk}": wait}
            | {f"disk_{name}": values for name, values in rates.items()}
        )

    def _filesystems(self, shape: Shape) -> dict[str, Array]:
        random, count = self._random, shape.count
        # Asked once a minute, and carried in between.
        asked = np.arange(count) * shape.every_s // 60
        growth = (
            random.poisson(20, int(asked[-1]) + 1) * _BLOCK - random.choice([0, 0, 0, 20], int(asked[-1]) + 1) * _BLOCK
        )
        used = (self._fs_used + np.cumsum(growth))[asked.astype(np.intp)]
        self._fs_used = float(used[-1])
        usable = self._fs_size * 0.95
        percent = 100 * used / usable
        return {
            "filesystem_percent:/": percent,
            "filesystem_size_bytes:/": np.full(count, self._fs_size),
            "filesystem_used_bytes:/": used,
            "filesystem_available_bytes:/": usable - used,
            "filesystem_inodes_percent:/": 5 + np.floor(asked / 7) * 0.0003,
            "disk_percent": percent,
        }

    def _network(self, intensity: Array, elapsed: Array) -> dict[str, Array]:
        random = self._random
        flow = _PACKETS[self._kind] * np.minimum(intensity, 10) * elapsed
        received, sent = random.poisson(flow).astype(float), random.poisson(flow * 0.9).astype(float)
        rx = np.round(received * np.clip(random.normal(420, 60, len(flow)), 60, 1500))
        tx = np.round(sent * np.clip(random.normal(700, 120, len(flow)), 60, 1500))
        rates = {
            "rx_bytes_per_second": rx / elapsed,
            "tx_bytes_per_second": tx / elapsed,
        }
        nothing = np.zeros(len(flow))
        return (
            {f"interface_{name}:{self._interface}": values for name, values in rates.items()}
            | {
                f"interface_rx_packets_per_second:{self._interface}": received / elapsed,
                f"interface_tx_packets_per_second:{self._interface}": sent / elapsed,
                f"interface_errors_per_second:{self._interface}": nothing,
                f"interface_drops_per_second:{self._interface}": nothing,
            }
            | {f"net_{name}": values for name, values in rates.items()}
            | {"net_errors_per_second": nothing, "net_drops_per_second": nothing}
        )

    def _rest(self, intensity: Array, elapsed: Array) -> dict[str, Array]:
        random, count = self._random, len(elapsed)
        threads = self._threads + np.cumsum(random.choice([-1, 0, 0, 0, 0, 0, 0, 1], count))
        fds = self._fds + np.cumsum(random.choice([-32, 0, 0, 0, 0, 0, 0, 0, 0, 32], count))
        self._threads, self._fds = float(threads[-1]), float(fds[-1])
        uptime = self._uptime + np.cumsum(elapsed)
        self._uptime = float(uptime[-1])
        return {
            "threads": threads,
            "threads_running": 1
            + random.poisson(np.minimum(_LOAD[self._kind] * intensity * self._cpus, 50)).astype(float),
            "processes": np.floor(threads * 0.7),
            "fds": fds,
            "fds_percent": fds * 100 / 9_223_372,
            "uptime_seconds": uptime,
        }


def _decaying(inputs: Array, kept: float, before: float) -> Array:
    """Each value is the one before it times `kept`, plus its input."""
    found = np.empty(len(inputs))
    for place, value in enumerate(inputs.tolist()):
        before = before * kept + value
        found[place] = before
    return found


def _bounded(values: Array, low: float, high: float) -> Array:
    """Values reflected at the bounds, so that a walk stays inside and goes on walking."""
    span = high - low
    folded = np.mod(values - low, 2 * span)
    return low + np.minimum(folded, 2 * span - folded)
