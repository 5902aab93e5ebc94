"""What a person asks for, held against its bounds."""

from typing import Any

import pytest

from server_monitor.errors import Invalid
from server_monitor.tasks.run import Order


@pytest.mark.parametrize("field", ["timeout_s", "max_parallel", "max_failures", "canary"])
@pytest.mark.parametrize("number", [-1, 10**30])
def test_a_number_beyond_its_bounds_is_a_mistake(field: str, number: int) -> None:
    given: dict[str, Any] = {"command": "uptime", "timeout_s": 60, field: number}

    with pytest.raises(Invalid, match="lies between"):
        Order(**given).checked()


def test_as_many_as_a_run_may_have_servers_are_taken() -> None:
    order = Order("uptime", 60, max_failures=10_000, canary=10_000)

    assert order.checked() is order
