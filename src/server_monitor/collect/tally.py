"""What the readings of one server amount to: values from two readings, and from what is asked for less often."""

from typing import Final

from msgspec.structs import replace

from server_monitor.collect import linux
from server_monitor.collect.lines import Filesystem, OwnCost, PressureUs, ProcessCount, Reading
from server_monitor.telemetry import metrics

# Each device has series of its own for years, so a host may not invent new ones for ever.
DEVICE_LIMIT: Final = 1024
FORGET_DEVICES_AFTER_S: Final = 86_400
# From here on the room that is left is looked at more often.
FILLING_PERCENT: Final = 80.0
_KEPT: Final[tuple[str, ...]] = ("processes", "probe_cpu_percent")
_FULLNESS: Final = ("filesystem_percent:", "filesystem_inodes_percent:")


class ClockStandsStillError(Exception):
    """Two readings in a row are of the same instant."""


class Tally:
    """Remembers one reading, and what rarer answers said, for the samples to come. `now` is monotonic seconds."""

    __slots__ = (
        "_carried",
        "_device_names",
        "_devices",
        "_devices_since",
        "_earlier",
        "_filesystems",
        "_own",
        "_pressure",
        "_pressure_read",
        "_space",
        "is_filling",
    )

    def __init__(self) -> None:
        self._devices: set[str] = set()
        self._devices_since = float("-inf")
        self.begin()

    def begin(self) -> None:
        """Start anew with a new probe; only the names of devices are remembered."""
        self._earlier: Reading | None = None
        self._own: tuple[OwnCost, float] | None = None
        self._pressure_read: tuple[PressureUs, float] | None = None
        self._pressure: dict[str, float] = {}
        self._carried: dict[str, float] = {}
        self._filesystems: dict[str, Filesystem] = {}
        self._space: dict[str, float] | None = None
        # Has a filesystem little room left, for bytes or for files? So too while none is known.
        self.is_filling = True
        self._device_names: list[str] = []

    def read(self, reading: Reading, now: float) -> dict[str, float] | None:
        """All values of this instant; None for the first reading, which has nothing to be compared with.

        Raises CounterResetError when the host rebooted since the last one, ClockStandsStillError.
        """
        reading = self._with_admitted_devices(reading, now)
        if reading.load is not None:
            self._carry(reading, now)
        if reading.pressure is not None:
            self._press(reading.pressure, reading.uptime_s)
        earlier = self._earlier
        if earlier is None:
            self._earlier = reading
            return None
        elapsed_s = reading.uptime_s - earlier.uptime_s
        if 0 <= elapsed_s < linux.SHORTEST_SPAN_S:
            raise ClockStandsStillError
        self._earlier = reading
        rates = linux.rates(earlier, reading, elapsed_s)
        if self._space is None:
            self._space = linux.filesystem_gauges(self._filesystems.values())
            percents = [value for name, value in self._space.items() if name.startswith(_FULLNESS)]
            self.is_filling = not percents or max(percents) >= FILLING_PERCENT
        return {**self._carried, **self._space, **self._pressure, **linux.gauges(reading), **rates}

    def weigh(self, own: OwnCost, uptime_s: float) -> float | None:
        """What the probe cost the host since the last time, in percent of one CPU; None when that is not known."""
        before, self._own = self._own, (own, uptime_s)
        if before is None:
            return None
        percent = linux.probe_cpu_percent(before[0], own, uptime_s - before[1])
        if percent is not None:
            self._carried["probe_cpu_percent"] = percent
        return percent

    def forget_filesystems(self) -> None:
        """A new answer begins: what is not in it has been unmounted."""
        self._filesystems.clear()

    def found(self, found: Filesystem | ProcessCount, now: float) -> None:
        if isinstance(found, ProcessCount):
            self._carried["processes"] = float(found.processes)
        elif self._is_admitted(found.mount_point, now):
            self._filesystems.setdefault(found.mount_point, found)
            self._space = None

    def _press(self, pressure: PressureUs, uptime_s: float) -> None:
        """Pressure is a total, read every ten seconds or every second: a value is of the whole span since the last."""
        before, self._pressure_read = self._pressure_read, (pressure, uptime_s)
        if before is not None:
            self._pressure = linux.pressure_rates(before[0], pressure, uptime_s - before[1])

    def _carry(self, reading: Reading, now: float) -> None:
        """Keep what is asked for rarely, until it is asked for again."""
        kept = {name: self._carried[name] for name in _KEPT if name in self._carried}
        sensors = [sensor for sensor in reading.sensors or () if self._is_admitted(sensor.name, now)]
        self._carried = {**linux.slow_gauges(replace(reading, sensors=sensors)), **kept}

    def _with_admitted_devices(self, reading: Reading, now: float) -> Reading:
        """The reading without devices beyond the number that a host may name in a day."""
        disks, interfaces = reading.disks or (), reading.interfaces or ()
        names = [device.name for device in (*disks, *interfaces)]
        if names == self._device_names:
            return reading
        refused = {name for name in names if not self._is_admitted(name, now)}
        self._device_names = [] if refused else names
        if not refused:
            return reading
        return replace(
            reading,
            disks=[disk for disk in disks if disk.name not in refused],
            interfaces=[interface for interface in interfaces if interface.name not in refused],
        )

    def _is_admitted(self, device: str, now: float) -> bool:
        if device in self._devices:
            return True
        if now - self._devices_since > FORGET_DEVICES_AFTER_S:
            self._devices.clear()
            self._devices_since = now
        if len(self._devices) >= DEVICE_LIMIT:
            metrics.probe_sections_refused.inc()
            return False
        self._devices.add(device)
        return True
