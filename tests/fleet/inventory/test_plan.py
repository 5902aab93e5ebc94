"""What an import would do, compared with the servers that exist."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.fleet.inventory.entries import Entry, Parsed
from server_monitor.fleet.inventory.formats import Format, read
from server_monitor.fleet.inventory.plan import Known, Plan, plan


def planned(*entries: Entry, existing: Mapping[str, Known] | None = None, username: str | None = "me") -> Plan:
    return plan(Parsed(entries), existing or {}, username)


def entry(line: int, name: str, jump: str | None = None) -> Entry:
    return Entry(line=line, name=name, host="10.0.0.1", username="root", jump=jump)


def test_a_name_on_two_lines_is_a_mistake_on_the_second() -> None:
    found = planned(entry(3, "a"), entry(9, "a"))
    assert [(error.line, error.field, error.message) for error in found.errors] == [
        (9, "name", "“a” is already on line 3.")
    ]


def test_a_server_that_is_here_just_the_same_is_skipped() -> None:
    found = planned(entry(1, "a"), entry(2, "b"), existing={"a": Known("id", "10.0.0.1", 22, "root")})
    assert [one.name for one in found.create] == ["b"]
    assert [one.name for one in found.skipped] == ["a"]


def test_a_server_that_is_here_with_another_address_is_a_mistake() -> None:
    found = planned(entry(1, "a"), existing={"a": Known("id", "10.9.9.9", 22, "root")})
    assert "exists with another address" in found.errors[0].message
    assert found.create == ()


def test_a_server_that_is_only_a_way_may_exist_in_any_form() -> None:
    gate = Entry(line=1, name="gate", host="gate", username="root", implied=True)
    found = planned(gate, entry(1, "a", jump="gate"), existing={"gate": Known("id", "10.9.9.9", 2200, "ops")})
    assert [one.name for one in found.create] == ["a"]
    assert found.errors == ()


def test_who_names_no_account_gets_the_default_and_a_note() -> None:
    nameless = Entry(line=1, name="a", host="10.0.0.1")
    (only,) = planned(nameless).create
    assert only.username == "me"
    assert only.notes == ("No account is named: logs in as me.",)
    assert planned(nameless, username=None).errors[0].field == "username"


def test_jump_servers_come_before_those_behind_them() -> None:
    found = planned(entry(1, "c", "b"), entry(2, "b", "a"), entry(3, "a"), entry(4, "d", "b"))
    assert [one.name for one in found.create] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("jump", ["nowhere", "here"])
def test_a_way_through_nothing_is_a_mistake(jump: str) -> None:
    found = planned(entry(5, "a", jump), existing={"here": Known("id", "local", 22, "local")})
    assert [(error.line, error.field) for error in found.errors] == [(5, "jump")]


def test_a_way_that_leads_through_itself_is_a_mistake_for_each_on_it() -> None:
    found = planned(entry(1, "a", "b"), entry(2, "b", "c"), entry(3, "c", "b"), entry(4, "self", "self"))
    assert [(error.line, error.field) for error in found.errors] == [(2, "jump"), (3, "jump"), (4, "jump")]


def test_a_way_has_at_most_eight_servers_counting_those_that_exist() -> None:
    chain = [entry(n, f"s{n}", f"s{n - 1}") for n in range(1, 8)]
    assert planned(*chain, existing={"s0": Known("id", "h", 22, "u", jumps=1)}).errors == ()
    assert [error.line for error in planned(*chain, existing={"s0": Known("id", "h", 22, "u", jumps=2)}).errors] == [7]


def test_ten_thousand_lines_with_mistakes_list_each_of_them_in_order() -> None:
    rows = ["name,host,port,username,jump"]
    for number in range(2, 10_001):
        bad = number % 3
        name = f"w{number - 1 if bad == 1 and number > 2 else number}"
        rows.append(f"{name},{'bad host' if bad == 0 else '10.0.0.1'},{'x' if bad == 2 else 22},root,")
    found = plan(read("\n".join(rows), Format.CSV), {}, None)
    assert found.create == ()
    assert [error.line for error in found.errors] == list(range(2, 10_001))[: len(found.errors)]
    assert {error.field for error in found.errors} == {"name", "host", "port"}


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(-1, 9)), max_size=12))
def test_whatever_the_ways_an_order_is_found_or_a_mistake(pairs: list[tuple[int, int]]) -> None:
    entries = [entry(n, f"s{one}", None if way < 0 else f"s{way}") for n, (one, way) in enumerate(pairs, start=1)]
    found = planned(*entries)
    placed: set[str] = set()
    for one in found.create:
        assert one.jump is None or one.jump in placed
        placed.add(one.name)
    assert found.errors or len(found.create) == len(entries)
