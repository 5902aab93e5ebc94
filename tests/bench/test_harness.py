import json

import pytest

from bench import harness
from bench.harness import Figure, Result, at_least, at_most


def test_sides_are_measured_in_turn():
    order: list[str] = []

    def side(name: str):
        return lambda: (order.append(name), {"n": len(order)})[1]

    measured = harness.in_turn({"ours": side("ours"), "theirs": side("theirs")}, rounds=2)

    assert order == ["ours", "theirs", "ours", "theirs"]
    assert harness.column(measured["theirs"], "n") == [2, 4]


@pytest.mark.parametrize(
    ("values", "goal", "verdict"),
    [
        ([0.1, 0.2, 0.9], at_most(0.3), "reached"),
        ([0.1, 0.4, 0.9], at_most(0.3), "short"),
        ([21.0], at_least(20), "reached"),
        ([19.9], at_least(20), "short"),
        ([1.0], None, ""),
    ],
)
def test_the_median_decides_whether_a_goal_is_reached(values, goal, verdict):
    assert Figure("something", "s", values, goal).verdict == verdict


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.000123, "0.000123"), (0.30049, "0.3"), (12.345, "12.3"), (999.6, "1,000"), (1234.5, "1,234")],
)
def test_a_number_is_written_for_people(value: float, text: str):
    assert harness.number(value) == text


def test_a_table_shows_median_range_goal_and_verdict():
    result = Result("x", "A title", [Figure("cpu", "of a core", [0.2, 0.1, 0.4], at_most(0.3))], ["A note."])

    assert "| cpu | 0.2 of a core | 0.1 to 0.4 | at most 0.3 | reached |" in harness.table(result)
    assert harness.table(result).endswith("- A note.\n")


def test_the_document_holds_every_value_and_the_machine():
    result = Result("x", "A title", [Figure("cpu", "s", [2.0, 1.0, 4.0], at_least(3)), Figure("ram", "KiB", [1])])

    found = json.loads(harness.document([result], harness.machine()))

    assert found["results"][0]["figures"][0] == {
        "what": "cpu",
        "unit": "s",
        "values": [2.0, 1.0, 4.0],
        "median": 2.0,
        "goal": "at least 3",
        "reached": False,
    }
    assert found["machine"]["kernel"]
