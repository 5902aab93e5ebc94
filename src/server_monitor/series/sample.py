"""What is measured: the one place a metric is defined.

A *series* is a metric of one server, or of one device of a server. Its name is the metric's name, followed for a
device by a colon and the device: `cpu_percent`, `filesystem_percent:/var`, `interface_rx_bytes_per_second:eth0`.
"""

from dataclasses import dataclass


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
