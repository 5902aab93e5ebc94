"""What is stored is what a person sees, and never silently something else."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.series.precision import DECIMALS, decimals, factors, to_numbers, to_values
from server_monitor.series.sample import METRICS

_SERIES = ("cpu_percent", "filesystem_used_bytes:/var", "uptime_seconds", "something_new")


def test_every_unit_of_the_catalogue_has_a_precision() -> None:
    assert {metric.unit for metric in METRICS.values()} <= set(DECIMALS)


def test_devices_are_as_exact_as_their_metric() -> None:
    assert decimals("filesystem_percent:/var:odd") == decimals("filesystem_percent") == 2


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e14, max_value=1e14), min_size=4, max_size=4)
)
def test_a_value_comes_back_within_half_a_unit(values: list[float]) -> None:
    array, by = np.array([values]), factors(_SERIES)
    back = to_values(*to_numbers(array, by), by)[0]
    assert back[0] == pytest.approx(values[0], abs=0.00501 + abs(values[0]) * 1e-15)
    assert back[1] == pytest.approx(values[1], abs=0.5)
    assert back[2] == pytest.approx(values[2], abs=0.5)
    assert back[3] == values[3], "a series nobody declared is kept bit for bit"


@given(st.integers(-(2**53), 2**53))
def test_whole_bytes_stay_exact_up_to_2_to_the_53(value: int) -> None:
    by = factors(("memory_total_bytes",))
    assert to_values(*to_numbers(np.array([[float(value)]]), by), by)[0, 0] == value


@given(st.floats(min_value=0, max_value=1e6).map(lambda value: round(value, 2)))
def test_rounding_twice_changes_nothing(value: float) -> None:
    """Merging blocks again and again must not let values creep."""
    by = factors(("cpu_percent",))
    assert to_values(*to_numbers(np.array([[value]]), by), by)[0, 0] == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("series", ["cpu_percent", "memory_total_bytes"])
def test_what_is_no_measurement_is_missing(series: str, value: float) -> None:
    by = factors((series, "load1"))
    back = to_values(*to_numbers(np.array([[value, 1.25]]), by), by)
    assert math.isnan(back[0, 0])
    assert back[0, 1] == 1.25
