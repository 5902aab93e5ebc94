"""Filters: each mistake is named, nothing is cut silently, and a day is a whole day."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select

from server_monitor.audit import log, search
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import Actor, audited
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records
from server_monitor.errors import Invalid

INJECTION = "x' OR '1'='1"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("from", "2026-13-01"),
        ("from", "yesterday"),
        ("to", "2026-02-30"),
        ("to", "9999-12-31"),
        ("to", INJECTION),
        ("to", "2026-W05-6"),
        ("to", "2026W056"),
        ("to", "2026-W05"),
        ("to", "2026W056T12:00"),
        ("from", "20261301"),
        ("from", "2026-031"),
        ("from", "2026031"),
        ("from", "٢٠٢٦-٠١-٠١"),
        ("action", "auth.nothing"),
        ("action", "*"),
        ("action", INJECTION),
        ("outcome", "fine"),
        ("user_id", ""),
        ("user_id", "a" * 257),
        ("target_id", "a\nb"),
        ("ip", "1.2.3.4\x00"),
        ("colour", "red"),
    ],
)
def test_a_wrong_filter_is_named(name: str, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        search.parse({name: text})

    assert [error.field for error in caught.value.errors] == [name]


def test_every_mistake_is_listed() -> None:
    with pytest.raises(Invalid) as caught:
        search.parse({"from": "x", "action": "y", "outcome": "z"})

    assert [error.field for error in caught.value.errors] == ["from", "action", "outcome"]


@pytest.mark.parametrize("text", ["0", "-1", "50001", "1e9", "x", "", "1.5", "٣", "9" * 400])
def test_a_limit_that_cannot_be_kept_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="limit"):
        search.parse_limit(text)


def test_limits_that_can_are_kept() -> None:
    assert [search.parse_limit(text) for text in (None, "1", "50000")] == [10_000, 1, 50_000]


def test_a_date_means_the_whole_day_and_an_offset_is_understood() -> None:
    filters = search.parse({"from": "2026-01-31", "to": "2026-01-31"})

    assert filters.from_at == datetime(2026, 1, 31, tzinfo=UTC)
    assert filters.to_at == datetime(2026, 2, 1, tzinfo=UTC)
    assert search.parse({"from": "2026-01-31T12:00:00+02:00"}).from_at == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert filters.document() == {"from": "2026-01-31T00:00:00.000000Z", "to": "2026-02-01T00:00:00.000000Z"}


def test_a_date_without_hyphens_is_the_same_day() -> None:
    assert search.parse({"from": "20260131", "to": "20260131"}) == search.parse(
        {"from": "2026-01-31", "to": "2026-01-31"}
    )


@example("20260131")
@example("2026-01-31")
@example("2026-01-31T12")
@given(st.from_regex(r"[0-9W:T.+Z -]{1,26}", fullmatch=True))
def test_what_is_taken_for_a_time_is_one_and_what_has_no_time_is_a_day(text: str) -> None:
    try:
        begin, end = search.parse({"from": text}).from_at, search.parse({"to": text}).to_at
    except Invalid:
        return
    assert begin is not None
    assert end is not None
    has_time = len(text) > 10
    assert end - begin == timedelta(days=0 if has_time else 1)


def test_a_time_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(Invalid, match="to: is not after"):
        search.parse({"from": "2026-02-01", "to": "2026-01-01"})


async def test_filters_choose_records(db: Database, admin: Actor) -> None:
    async with db.transaction() as conn:
        await log.append(
            conn,
            Event("auth.login", audited(admin)),
            Event("auth.login_failed", audited(admin), outcome="denied"),
            Event("server.create", audited(admin), AuditTarget("server", INJECTION)),
        )

    async def found(**given: str) -> list[int]:
        rows = select(audit_records.c.seq).where(*search.parse(given).where()).order_by(audit_records.c.seq)
        async with db.reading() as conn:
            return list((await conn.execute(rows)).scalars())

    assert await found() == [0, 1, 2]
    assert await found(action="auth.*") == [0, 1]
    assert await found(action="auth.login") == [0]
    assert await found(outcome="denied") == [1]
    assert await found(target_id=INJECTION) == [2]
    assert await found(user_id=str(admin.id), target_type="server") == [2]
    assert await found(to="2020-01-01") == []
