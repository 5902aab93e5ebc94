"""Logging in, being refused, and being slowed down."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from argon2 import PasswordHasher
from sqlalchemy import func, select, text, update

from server_monitor.auth import sessions, throttle, users
from server_monitor.auth.actor import Role
from server_monitor.auth.login import LoginFailed, Logins, RefusalTally, Source
from server_monitor.auth.passwords import STRANGERS, Lane
from server_monitor.auth.users import Edit
from server_monitor.db import tables
from server_monitor.db.engine import Database
from server_monitor.errors import AuditUnavailable, Invalid, TooMany
from server_monitor.telemetry import metrics
from tests.auth.conftest import NOON, PASSWORD, ROOT, SECRET, MakeUser
from tests.support.patience import PATIENCE_S, until

HOME = Source("192.0.2.10", "Firefox")
STRANGER = Source("203.0.113.66", "curl")
SECOND = timedelta(seconds=1)


async def records(db: Database, action: str) -> list[dict]:
    """The audit records of an action, oldest first."""
    rows = tables.audit_records
    async with db.reading() as conn:
        found = await conn.execute(select(rows.c.body).where(rows.c.action == action).order_by(rows.c.seq))
        return [orjson.loads(body) for body in found.scalars()]


async def fail(logins: Logins, name: str, source: Source, now=NOON) -> str:
    """Try a wrong password; "failed" or "wait"."""
    try:
        await logins.login(name, "wrong wrong wrong", source, now)
    except LoginFailed:
        return "failed"
    except TooMany:
        return "wait"
    raise AssertionError("a wrong password was accepted")


def hashes() -> float:
    return metrics.registry.get_sample_value("server_monitor_password_hashes_total")


async def test_the_right_password_begins_a_session_and_is_recorded(db, logins, make_user: MakeUser):
    await make_user("ada", Role.ADMIN)

    logged_in = await logins.login("ADA", PASSWORD, HOME, NOON)

    async with db.reading() as conn:
        actor = await sessions.authenticate(conn, logged_in.started.cookie, NOON)
    assert (actor.name, actor.role) == ("ada", Role.ADMIN)
    (record,) = await records(db, "auth.login")
    assert (record["actor"]["name"], record["actor"]["session"]) == ("ada", actor.session_id)


@pytest.mark.parametrize("name", ["ada", "nobody", "x" * 10_000, "a\x00b", "\ud800", "", "ada\u202e"])
async def test_a_wrong_name_looks_like_a_wrong_password_and_costs_the_same_work(db, logins, make_user, name):
    await make_user("ada")
    before = hashes()

    with pytest.raises(LoginFailed) as refused:
        await logins.login(name, "wrong wrong wrong", HOME, NOON)

    assert str(refused.value) == "The name or the password is wrong."
    assert hashes() - before == 1


@pytest.mark.parametrize("password", ["", "x" * 100_000, "nul\x00nul\x00nul", "\ud800" * 20])
async def test_any_text_at_all_can_be_a_wrong_password(sqlite_db, password):
    with pytest.raises(LoginFailed):
        await Logins(sqlite_db, SECRET).login("ada", password, HOME, NOON)


async def test_a_disabled_user_is_refused_like_a_wrong_password(db, logins, make_user):
    ada = await make_user("ada")
    await users.edit(db, ada.id, Edit(disabled=True), actor=ROOT)

    with pytest.raises(LoginFailed) as refused:
        await logins.login("ada", PASSWORD, HOME, NOON)

    assert str(refused.value) == "The name or the password is wrong."
    (record,) = await records(db, "auth.login_failed")
    assert (record["reason"], record["outcome"]) == ("disabled", "failure")


async def test_a_user_who_is_disabled_while_their_password_is_checked_does_not_get_in(db, logins, make_user):
    ada = await make_user("ada")
    hashing = threading.Event()
    with STRANGERS.place() as place:
        busy = place._threads.submit(hashing.wait, PATIENCE_S)
        login = asyncio.ensure_future(logins.login("ada", PASSWORD, HOME, NOON))
        await _until(lambda: _is_charged(db))
        await users.edit(db, ada.id, Edit(disabled=True), actor=ROOT)
        hashing.set()
        await asyncio.wrap_future(busy)

    with pytest.raises(LoginFailed):
        await login
    assert await _count(db, tables.sessions) == 0


async def test_after_five_wrong_passwords_the_next_try_is_not_even_looked_at(db, logins, make_user):
    await make_user("ada")
    assert [await fail(logins, "ada", STRANGER) for _ in range(5)] == ["failed"] * 5
    before = hashes()

    with pytest.raises(TooMany) as refused:
        await logins.login("ada", PASSWORD, STRANGER, NOON)

    assert hashes() == before
    assert refused.value.retry_after_s >= 1


async def test_an_unknown_name_is_slowed_down_just_the_same(db, logins, make_user):
    await make_user("ada")

    known = [await fail(logins, "ada", STRANGER) for _ in range(8)]
    unknown = [await fail(logins, "nobody", replace(STRANGER, ip="203.0.113.67")) for _ in range(8)]

    assert known == unknown


async def test_whoever_waited_long_enough_gets_in_and_starts_afresh(db, logins, make_user):
    await make_user("ada")
    await count_failures(db, "ada", STRANGER, 5)

    await logins.login("ada", PASSWORD, STRANGER, NOON + 2 * SECOND)

    later = NOON + 3 * SECOND
    elsewhere = Source("203.0.113.67")
    assert [await fail(logins, "ada", elsewhere, later) for _ in range(5)] == ["failed"] * 5


async def test_hundreds_of_tries_at_once_are_no_way_around_the_count(db, logins, make_user):
    await make_user("ada")
    before = hashes()

    outcomes = await asyncio.gather(*(fail(logins, "ada", STRANGER) for _ in range(300)))

    assert outcomes.count("failed") <= 5
    assert hashes() - before <= 5


async def test_guessing_at_one_account_keeps_nobody_else_out(db, logins, make_user):
    await make_user("ada")
    await make_user("bob")
    await count_failures(db, "ada", STRANGER, 40)

    assert await logins.login("bob", PASSWORD, STRANGER, NOON)


async def count_failures(db: Database, name: str, source: Source, number: int) -> None:
    """What so many wrong passwords leave behind, without the tenth of a second that each of them takes."""
    keys = throttle.keys(SECRET, name, source.ip, browser=None, is_known_address=False)
    async with db.transaction() as conn:
        for _ in range(number):
            await throttle.charge(conn, keys, NOON)


async def attack_from_everywhere(db: Database, logins: Logins, name: str) -> None:
    """Wrong passwords from many addresses, until the account itself is slowed down for strangers."""
    for host in range(1, 40):
        await count_failures(db, name, Source(f"198.51.100.{host}"), 1)
    assert await fail(logins, name, Source("198.51.100.99")) == "wait"


async def test_many_strangers_together_do_not_lock_a_user_out_where_they_are_logged_in(db, logins, make_user):
    await make_user("ada")
    await logins.login("ada", PASSWORD, HOME, NOON)

    await attack_from_everywhere(db, logins, "ada")

    assert await logins.login("ada", PASSWORD, HOME, NOON)


async def test_nobody_is_locked_out_of_a_browser_they_have_used_before(db, logins, make_user):
    await make_user("ada")
    first = await logins.login("ada", PASSWORD, HOME, NOON)
    async with db.transaction() as conn:
        await sessions.log_out(conn, actor=first.started.actor)
    await attack_from_everywhere(db, logins, "ada")
    assert await fail(logins, "ada", HOME) == "wait"

    assert await logins.login("ada", PASSWORD, replace(HOME, browser=first.browser), NOON)


async def test_a_stolen_browser_mark_is_no_way_to_guess_without_end(db, logins, make_user):
    await make_user("ada")
    mark = (await logins.login("ada", PASSWORD, HOME, NOON)).browser

    outcomes = [await fail(logins, "ada", replace(STRANGER, browser=mark)) for _ in range(7)]

    assert outcomes == ["failed"] * 5 + ["wait"] * 2


async def test_the_mark_of_one_user_is_worth_nothing_for_another(db, logins, make_user):
    await make_user("ada")
    await make_user("mallory")
    mark = (await logins.login("mallory", PASSWORD, STRANGER, NOON)).browser
    await count_failures(db, "ada", STRANGER, 5)

    assert await fail(logins, "ada", replace(STRANGER, browser=mark)) == "wait"


async def test_one_address_that_tries_many_names_is_slowed_down(db, logins):
    for number in range(49):
        await count_failures(db, f"user{number}", STRANGER, 1)

    assert [await fail(logins, f"other{number}", STRANGER) for number in range(2)] == ["failed", "wait"]


async def test_a_full_queue_for_hashing_refuses_at_once():
    lane = Lane("test", threads=1, waiting=1)

    with lane.place(), lane.place(), pytest.raises(TooMany) as refused, lane.place():
        pass

    assert refused.value.retry_after_s == 2
    with lane.place():
        pass


async def test_a_place_of_someone_who_gave_up_is_free_again_only_when_the_thread_is():
    lane = Lane("test", threads=1, waiting=0)
    begun, hashing = threading.Event(), threading.Event()

    async def give_up() -> None:
        with lane.place() as place:
            await place._run(lambda: (begun.set(), hashing.wait(PATIENCE_S)))

    task = asyncio.ensure_future(give_up())
    await until(begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TooMany), lane.place():
        pass
    hashing.set()
    await _until(lambda: _has_room(lane))


async def test_wrong_passwords_are_recorded_up_to_a_bound_and_the_rest_counted(db, logins, make_user):
    await make_user("ada")
    for number in range(13):
        await fail(logins, f"user{number}", STRANGER)
    assert len(await records(db, "auth.login_failed")) == 10

    await logins.settle(NOON + 60 * SECOND)

    tally = (await records(db, "auth.login_failed"))[-1]
    assert tally["reason"] == "many"
    assert (tally["meta"]["count"], tally["meta"]["addresses"]) == (3, 1)


async def test_tries_that_had_to_wait_are_counted_too(db, logins, make_user):
    await count_failures(db, "ada", STRANGER, 5)
    for _ in range(4):
        await fail(logins, "ada", STRANGER)

    await logins.settle(NOON + 60 * SECOND)

    assert (await records(db, "auth.login_failed"))[-1]["meta"]["throttled"] == 4


async def test_a_quiet_minute_leaves_no_record(db, logins):
    await logins.settle(NOON)

    assert await records(db, "auth.login_failed") == []


async def test_what_was_counted_is_recorded_when_the_console_stops(db, logins):
    await count_failures(db, "ada", STRANGER, 5)
    await fail(logins, "ada", STRANGER)
    loop = asyncio.ensure_future(logins.run())
    await asyncio.sleep(0)

    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop

    assert (await records(db, "auth.login_failed"))[-1]["reason"] == "many"


def test_the_tally_bounds_what_many_addresses_can_make_it_remember():
    tally = RefusalTally()

    recorded = sum(tally.may_record(f"2001:db8:{number:x}::/64", NOON) for number in range(20_000))

    assert recorded == 100
    assert tally.result().addresses == 10_000


async def test_a_name_that_nobody_has_is_stored_nowhere(db, logins):
    """People type their password into the field for the name."""
    slip = "my secret passphrase"

    await fail(logins, slip, STRANGER)

    (record,) = await records(db, "auth.login_failed")
    assert slip not in orjson.dumps(record).decode()
    async with db.reading() as conn:
        keys = (await conn.execute(select(tables.login_failures.c.key))).scalars().all()
    assert keys
    assert all(slip not in key for key in keys)


async def test_nobody_gets_in_without_the_audit_record(db, logins, make_user):
    await make_user("ada")
    async with db.transaction() as conn:
        await conn.execute(text("ALTER TABLE audit_head RENAME TO audit_head_gone"))

    with pytest.raises(AuditUnavailable):
        await logins.login("ada", PASSWORD, HOME, NOON)

    assert await _count(db, tables.sessions) == 0


async def test_a_refusal_stays_a_refusal_when_it_cannot_be_recorded(db, logins, make_user):
    await make_user("ada")
    async with db.transaction() as conn:
        await conn.execute(text("ALTER TABLE audit_head RENAME TO audit_head_gone"))

    assert await fail(logins, "ada", HOME) == "failed"


async def test_a_hash_with_weaker_parameters_is_replaced_at_the_next_login(db, logins, make_user):
    ada = await make_user("ada")
    weak = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    row = tables.users.c.id == ada.id
    async with db.transaction() as conn:
        await conn.execute(update(tables.users).where(row).values(password_hash=weak))

    await logins.login("ada", PASSWORD, HOME, NOON)

    async with db.reading() as conn:
        stored = (await conn.execute(select(tables.users.c.password_hash).where(row))).scalar_one()
    assert stored.startswith("$argon2id$v=19$m=47104,t=2,p=1$")
    assert await logins.login("ada", PASSWORD, HOME, NOON)


async def test_a_login_never_adopts_a_cookie_that_was_there_before(db, logins, make_user):
    """Session fixation: an attacker who plants a cookie gains nothing."""
    await make_user("ada")
    planted = "A" * 43

    logged_in = await logins.login("ada", PASSWORD, replace(HOME, session=planted), NOON)

    assert logged_in.started.cookie != planted
    async with db.reading() as conn:
        assert await sessions.authenticate(conn, planted, NOON) is None


async def test_a_login_ends_the_session_that_the_browser_had(db, logins, make_user):
    await make_user("ada")
    old = (await logins.login("ada", PASSWORD, HOME, NOON)).started

    await logins.login("ada", PASSWORD, replace(HOME, session=old.cookie), NOON)

    async with db.reading() as conn:
        assert await sessions.authenticate(conn, old.cookie, NOON) is None
    assert (await records(db, "auth.login"))[-1]["meta"] == {"replaced_session": old.actor.session_id}


async def test_secrets_do_not_show_in_what_is_passed_around(db, logins, make_user):
    await make_user("ada")

    logged_in = await logins.login("ada", PASSWORD, replace(HOME, session="s" * 43), NOON)

    assert logged_in.started.cookie not in repr(logged_in)
    assert logged_in.browser not in repr(logged_in)
    assert "s" * 43 not in repr(replace(HOME, session="s" * 43))


async def test_a_fresh_login_is_proof_enough_for_a_token(db, logins, make_user):
    await make_user("ada")
    actor = (await logins.login("ada", PASSWORD, HOME, NOON)).started.actor

    await logins.confirm(actor, None, HOME, NOON + timedelta(minutes=14))
    with pytest.raises(Invalid, match="more than 15 minutes ago"):
        await logins.confirm(actor, None, HOME, NOON + timedelta(minutes=15))
    await logins.confirm(actor, PASSWORD, HOME, NOON + timedelta(minutes=15))


async def test_whoever_sits_at_an_open_session_cannot_guess_its_password_without_end(db, logins, make_user):
    await make_user("ada")
    actor = (await logins.login("ada", PASSWORD, HOME, NOON)).started.actor
    for _ in range(5):
        with pytest.raises(Invalid, match="is not your password"):
            await logins.change_password(actor, "wrong wrong wrong", "walnut orbit cactus thirty", HOME, NOON)

    with pytest.raises(TooMany):
        await logins.change_password(actor, PASSWORD, "walnut orbit cactus thirty", HOME, NOON)
    refusals = await records(db, "auth.login_failed")
    assert [(record["actor"]["name"], record["reason"]) for record in refusals] == [("ada", "wrong_password")] * 5


async def test_another_password_ends_the_other_sessions_and_keeps_this_one(db, logins, make_user):
    await make_user("ada")
    here = (await logins.login("ada", PASSWORD, HOME, NOON)).started
    there = (await logins.login("ada", PASSWORD, Source("192.0.2.11"), NOON)).started

    await logins.change_password(here.actor, PASSWORD, "walnut orbit cactus thirty", HOME, NOON)

    async with db.reading() as conn:
        assert await sessions.authenticate(conn, here.cookie, NOON)
        assert await sessions.authenticate(conn, there.cookie, NOON) is None
    assert await logins.login("ada", "walnut orbit cactus thirty", HOME, NOON)
    with pytest.raises(LoginFailed):
        await logins.login("ada", PASSWORD, HOME, NOON)


async def test_old_failures_are_forgotten(db, logins, make_user):
    await make_user("ada")
    await count_failures(db, "ada", STRANGER, 5)

    await logins.settle(NOON + timedelta(hours=25))

    assert await _count(db, tables.login_failures) == 0


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await is_so():  # noqa: ASYNC110  # Threads and databases set no event of this loop.
            await asyncio.sleep(0)


async def _is_charged(db: Database) -> bool:
    return await _count(db, tables.login_failures) > 0


async def _count(db: Database, table) -> int:
    async with db.reading() as conn:
        return (await conn.execute(select(func.count()).select_from(table))).scalar_one()


async def _has_room(lane: Lane) -> bool:
    try:
        with lane.place():
            return True
    except TooMany:
        return False
