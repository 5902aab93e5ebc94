"""The arithmetic of slowing down."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.auth import throttle
from server_monitor.auth.throttle import BOUNDS, Failures
from tests.auth.conftest import NOON, SECRET


@pytest.mark.parametrize(
    ("failures", "wait_s"), [(0, 0), (4, 0), (5, 1), (6, 2), (7, 4), (10, 32), (14, 512), (15, 900), (10_000, 900)]
)
def test_the_wait_doubles_up_to_a_bound(failures, wait_s):
    assert throttle.wait_s("pair", failures) == wait_s


@given(st.sampled_from(sorted(BOUNDS)), st.integers(0, 10**6))
def test_more_failures_never_mean_less_waiting(kind, failures):
    bound = BOUNDS[kind]

    assert throttle.wait_s(kind, failures) <= throttle.wait_s(kind, failures + 1) <= bound.longest_wait_s


@given(st.lists(st.integers(0, 4000), max_size=60))
def test_no_account_is_kept_from_its_owner_at_a_new_place_for_longer_than_half_a_minute(gaps_s):
    found, now = None, NOON
    for gap_s in gaps_s:
        now += timedelta(seconds=gap_s)
        found = throttle.one_more("account:x", found, now)

    assert found is None or throttle.blocked_s({"account:x": found}, now) <= 31


def test_failures_are_forgotten_after_a_quiet_time():
    old = Failures(300, NOON, NOON + timedelta(minutes=15))

    assert throttle.one_more("pair:x", old, NOON + timedelta(hours=23)).count == 301
    assert throttle.one_more("pair:x", old, NOON + timedelta(hours=24)).count == 1


def test_a_wait_is_rounded_up_so_that_whoever_keeps_to_it_gets_through():
    found = {"pair:x": Failures(5, NOON, NOON + timedelta(seconds=1))}

    wait_s = throttle.blocked_s(found, NOON + timedelta(milliseconds=300))

    assert throttle.blocked_s(found, NOON + timedelta(milliseconds=300, seconds=wait_s)) == 0


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("nonsense", "unknown"),
    ],
)
def test_an_address_is_what_one_user_has_for_themselves(ip, network):
    assert throttle.network_of(ip) == network


def test_names_that_are_the_same_user_are_counted_together():
    def keys(name: str) -> tuple[str, ...]:
        return throttle.keys(SECRET, name, "192.0.2.1", browser=None, is_known_address=False)

    assert keys("Ada") == keys("ADA") == keys("ａｄａ")
    assert keys("ada") != keys("bob")


def test_keys_fit_their_column_however_long_the_name():
    for key in throttle.keys(SECRET, "x" * 10_000, "2001:db8::1", browser=None, is_known_address=False):
        assert len(key) <= 256


def test_a_text_longer_than_any_name_is_counted_as_it_is_written():
    """Folding takes the square of its length for some texts, and anybody may send one."""

    def keys(name: str) -> tuple[str, ...]:
        return throttle.keys(SECRET, name, "192.0.2.1", browser=None, is_known_address=False)

    assert keys("A" * 65) != keys("a" * 65)
    assert keys("a" + "\u0301" * 250_000 + "\u0316" * 250_000) != keys("a")


def test_a_browser_is_known_by_a_mark_that_nobody_can_make():
    mark = throttle.browser_cookie(SECRET, "ada", "b" * 16, NOON)

    assert throttle.known_browser(SECRET, "ada", mark, NOON) == "b" * 16
    assert throttle.known_browser(SECRET, "bob", mark, NOON) is None
    assert throttle.known_browser(SECRET, "ada", mark, NOON + timedelta(days=180)) is None


@given(st.one_of(st.none(), st.text(max_size=300)))
def test_no_other_text_is_a_mark(text):
    assert throttle.known_browser(SECRET, "ada", text, NOON) is None
