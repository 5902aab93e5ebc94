"""Who may have a terminal, and what becomes of one when the right to it, its server or its console goes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Delete, Update, delete, insert, update

from server_monitor.audit import log
from server_monitor.audit.chain import AuditActor, Event
from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import (
    api_tokens,
    grants,
    group_members,
    groups,
    host_keys,
    servers,
    terminal_sessions,
    users,
)
from server_monitor.db.tables import sessions as logins
from server_monitor.errors import Conflict, Denied, Invalid, NotFound, TooMany
from server_monitor.ssh.pool import Limits as PoolLimits
from server_monitor.terminal.desk import Timing
from server_monitor.terminal.library import Verdict
from server_monitor.terminal.sessions import Rules
from server_monitor.terminal.states import Purpose
from tests.support.bad_hosts import bad_host, never_answers
from tests.support.fleet import actions, records
from tests.support.patience import PATIENCE_S, until
from tests.support.sshd import Sshds
from tests.support.terminals import Person, Screen, TerminalConsole, running_terminals

pytestmark = pytest.mark.sshd


@asynccontextmanager
async def opened(terminals: TerminalConsole, role: Role = Role.OPERATOR) -> AsyncIterator[tuple[Person, str, Screen]]:
    person, server = await terminals.person(role), await terminals.host()
    async with terminals.screen(person, server) as screen:
        yield person, server, screen


async def ended_by(terminals: TerminalConsole, screen: Screen, *statements: object, action: str) -> str:
    """Make these changes as another part of the console does, and return the cause with which the session ended."""
    async with terminals.db.transaction() as conn:
        for statement in statements:
            await conn.execute(statement)
        await log.append(conn, Event(action, AuditActor("system", None, "tests")))
    await terminals.changed()
    async with asyncio.timeout(PATIENCE_S):
        closed = await screen.frame("closed")
        row = await terminals.over(screen.session_id)
    assert row.status == "interrupted"
    assert row.cause == closed["reason"]
    return str(row.cause)


# --- a right that goes ------------------------------------------------------------------------------------------------


async def test_a_login_that_ends_takes_its_terminals_along(terminals: TerminalConsole):
    async with opened(terminals) as (person, _, screen):
        statement = delete(logins).where(logins.c.id == person.actor.session_id)
        assert await ended_by(terminals, screen, statement, action="auth.logout") == "logged_out"


async def test_a_login_that_runs_out_takes_its_terminals_along(terminals: TerminalConsole):
    async with opened(terminals) as (person, _, screen):
        past = datetime.now(UTC) - timedelta(seconds=1)
        async with terminals.db.transaction() as conn:
            row = update(logins).where(logins.c.id == person.actor.session_id)
            await conn.execute(row.values(expires_at=past))
        assert (await screen.frame("closed"))["reason"] == "logged_out"  # and nobody had to say anything


async def test_a_disabled_user_loses_their_terminals(terminals: TerminalConsole):
    async with opened(terminals) as (person, _, screen):
        statement = update(users).where(users.c.id == person.actor.id).values(disabled_at=datetime.now(UTC))
        assert await ended_by(terminals, screen, statement, action="user.disable") == "logged_out"


async def test_a_role_that_is_taken_away_takes_the_terminals_along(terminals: TerminalConsole):
    async with opened(terminals) as (person, _, screen):
        statement = update(users).where(users.c.id == person.actor.id).values(role=Role.VIEWER)
        assert await ended_by(terminals, screen, statement, action="user.update") == "not_permitted"


@pytest.mark.parametrize("gone", ["grant", "member"])
async def test_a_grant_that_goes_or_a_server_that_leaves_its_group_ends_the_terminals(
    terminals: TerminalConsole, gone: str
):
    server, group = await terminals.host(), new_id()
    async with terminals.db.transaction() as conn:
        row = {"id": group, "name": "web", "description": "", "labels": {}, "created_at": datetime.now(UTC)}
        await conn.execute(insert(groups).values(**row))
        await conn.execute(insert(group_members).values(group_id=group, server_id=server))
    person = await terminals.person(None, {group: Role.OPERATOR})
    async with terminals.screen(person, server) as screen:
        statement = (
            delete(grants).where(grants.c.group_id == group)
            if gone == "grant"
            else delete(group_members).where(group_members.c.group_id == group)
        )
        assert await ended_by(terminals, screen, statement, action="group.grant") == "not_permitted"


@pytest.mark.parametrize("change", [{"capability": "run"}, {"enabled": False}, {"username": "another"}, {"port": 1}])
async def test_a_server_that_is_not_what_it_was_ends_the_terminals(terminals: TerminalConsole, change: dict):
    async with opened(terminals) as (_, server, screen):
        statement = update(servers).where(servers.c.id == server).values(**change)
        assert await ended_by(terminals, screen, statement, action="server.update") == "server_unfit"


async def test_a_removed_server_ends_the_terminals_and_their_rows_stay(terminals: TerminalConsole):
    async with opened(terminals) as (_, server, screen):
        keys = delete(host_keys).where(host_keys.c.server_id == server)
        statement = delete(servers).where(servers.c.id == server)
        assert await ended_by(terminals, screen, keys, statement, action="server.delete") == "server_unfit"
        assert (await terminals.row(screen.session_id)).server_id == server


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (delete(servers), "server_unfit"),
        (update(servers).values(enabled=False), "server_unfit"),
        (update(servers).values(port=1), "server_unfit"),
        (update(servers).values(name="renamed"), "connection_lost"),
    ],
    ids=["removed", "switched off", "moved", "only renamed"],
)
async def test_a_connection_that_is_dropped_because_of_its_server_ends_terminals_with_the_true_cause(
    sqlite_db: Database, sshds: Sshds, tmp_path: Path, change: Delete | Update, cause: str
):
    busy_elsewhere = Timing(check_s=600, tick_s=600, heads_s=600, housekeeping_s=600)
    async with (
        running_terminals(sqlite_db, sshds, tmp_path / "recordings", timing=busy_elsewhere) as terminals,
        opened(terminals) as (_, server, screen),
    ):
        async with terminals.db.transaction() as conn:
            await conn.execute(delete(host_keys).where(host_keys.c.server_id == server))
            await conn.execute(change.where(servers.c.id == server))
        await terminals.pool.drop(server)
        assert (await screen.frame("closed"))["reason"] == cause
        assert (await terminals.over(screen.session_id)).cause == cause


async def test_a_revoked_token_ends_the_terminals_it_opened(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    ticket = await terminals.ask(await terminals.token(person, "operate"), server)
    async with terminals.socket(None, ticket) as screen:
        await screen.frame("ready")
        statement = update(api_tokens).where(api_tokens.c.user_id == person.actor.id)
        past = datetime.now(UTC) - timedelta(seconds=1)
        statement = statement.values(expires_at=past)
        assert await ended_by(terminals, screen, statement, action="token.revoke") == "logged_out"


@pytest.mark.parametrize("way", ["login", "token"])
async def test_who_came_with_another_login_or_token_goes_with_it_and_the_session_waits(
    terminals: TerminalConsole, way: str
):
    async with opened(terminals) as (person, _, screen):
        other = await terminals.login(person) if way == "login" else await terminals.token(person, "operate")
        ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=other.actor)
        async with terminals.socket(other, ticket) as elsewhere:
            await elsewhere.run("true")
            async with terminals.db.transaction() as conn:
                await conn.execute(delete(logins).where(logins.c.id == other.actor.session_id))
                await conn.execute(delete(api_tokens).where(api_tokens.c.id == other.actor.token_id))
            assert await elsewhere.closed() == 1008
        assert (await terminals.row(screen.session_id)).status == "active"
        back = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=person.actor)
        async with terminals.socket(person, back) as own:
            await own.frame("ready")
            assert b"still here" in await own.run("echo still he''re")


async def test_the_login_that_a_session_was_opened_with_ends_it_whoever_types(terminals: TerminalConsole):
    async with opened(terminals) as (person, _, screen):
        other = await terminals.login(person)
        ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=other.actor)
        async with terminals.socket(other, ticket) as elsewhere:
            await elsewhere.run("true")
            statement = delete(logins).where(logins.c.id == person.actor.session_id)
            assert await ended_by(terminals, elsewhere, statement, action="auth.logout") == "logged_out"


async def test_changes_about_others_leave_a_terminal_alone(terminals: TerminalConsole):
    async with opened(terminals) as (_, _, screen):
        other = await terminals.person(Role.OPERATOR)
        async with terminals.db.transaction() as conn:
            await conn.execute(update(users).where(users.c.id == other.actor.id).values(role=None))
            await log.append(conn, Event("user.update", AuditActor("system", None, "tests")))
        await terminals.changed()
        assert b"fine" in await screen.run("sleep 0.5; echo fi''ne")


# --- asking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "role", "failure"),
    [
        ({}, Role.VIEWER, Denied),
        ({}, Role.AUDITOR, Denied),
        ({}, None, NotFound),
        ({"capability": "run"}, Role.ADMIN, Denied),
        ({"host": "local"}, Role.ADMIN, Conflict),
        ({"enabled": False}, Role.ADMIN, Conflict),
        ({"status_reason": "host_key_unknown"}, Role.ADMIN, Conflict),
        ({"status_reason": "host_key_changed"}, Role.ADMIN, Conflict),
    ],
)
async def test_a_terminal_takes_a_right_and_a_server_that_may_have_one(
    terminals: TerminalConsole, change: dict, role: Role | None, failure: type[Exception]
):
    person, server = await terminals.person(role), await terminals.host()
    async with terminals.db.transaction() as conn:
        if change:
            await conn.execute(update(servers).where(servers.c.id == server).values(**change))

    with pytest.raises(failure):
        await terminals.ask(person, server)
    denied = [one for one in await records(terminals.db) if one["action"] == "terminal.connect"]
    assert [one["outcome"] for one in denied] == ([] if failure is NotFound else ["denied"])


async def test_a_person_has_only_so_many_terminals(sqlite_db: Database, sshds: Sshds, tmp_path: Path):
    async with running_terminals(sqlite_db, sshds, tmp_path / "recordings", rules=Rules(per_user=2)) as terminals:
        person, server = await terminals.person(Role.OPERATOR), await terminals.host()
        async with terminals.screen(person, server), terminals.screen(person, server) as second:
            with pytest.raises(TooMany):
                await terminals.ask(person, server)
            await second.send(type="close")
            await terminals.over(second.session_id)
            await terminals.ask(person, server)


async def test_where_a_reason_is_asked_for_there_is_no_terminal_without(
    sqlite_db: Database, sshds: Sshds, tmp_path: Path
):
    rules = Rules(needs_reason=True)
    async with running_terminals(sqlite_db, sshds, tmp_path / "recordings", rules=rules) as terminals:
        person, server = await terminals.person(Role.OPERATOR), await terminals.host()
        with pytest.raises(Invalid):
            await terminals.ask(person, server)
        ticket = await terminals.ask(person, server, reason=" OPS-7 ")
        assert (await terminals.row(ticket.session_id)).reason == "OPS-7"


async def test_what_the_server_lost_between_asking_and_opening_counts(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    ticket = await terminals.ask(person, server)
    async with terminals.db.transaction() as conn:
        await conn.execute(update(servers).where(servers.c.id == server).values(capability="observe"))

    async with terminals.socket(person, ticket) as screen:
        assert (await screen.frame("closed"))["reason"] == "server_unfit"
    assert "terminal.connect" not in await actions(terminals.db)


# --- stopping and watching --------------------------------------------------------------------------------------------


async def test_an_admin_stops_a_terminal_and_its_user_is_told(terminals: TerminalConsole):
    admin = await terminals.person(Role.ADMIN)
    async with opened(terminals) as (_, _, screen):
        await terminals.desk.stop(screen.session_id, "enough", actor=admin.actor)
        assert (await screen.frame("closed"))["reason"] == "stopped"
        row = await terminals.over(screen.session_id)

    assert (row.status, row.cause) == ("stopped", "stopped")
    stop = next(one for one in await records(terminals.db) if one["action"] == "terminal.stop")
    assert (stop["actor"]["id"], stop["meta"]["reason"]) == (admin.actor.id, "enough")


async def test_of_many_who_stop_a_terminal_at_once_one_does_and_is_recorded(terminals: TerminalConsole):
    admin = await terminals.person(Role.ADMIN)
    async with opened(terminals) as (_, _, screen):
        stops = [terminals.desk.stop(screen.session_id, None, actor=admin.actor) for _ in range(4)]
        found = await asyncio.gather(*stops, return_exceptions=True)
        assert [type(one) for one in found if one is not None] == [Conflict] * 3
        await terminals.over(screen.session_id)

    assert (await actions(terminals.db)).count("terminal.stop") == 1


async def test_a_terminal_whose_host_says_nothing_is_stopped_before_it_is_given_up(
    sqlite_db: Database, sshds: Sshds, tmp_path: Path
):
    patient = PoolLimits(connect_timeout_s=10 * PATIENCE_S)
    async with (
        bad_host(never_answers) as silent,
        running_terminals(sqlite_db, sshds, tmp_path / "recordings", pool_limits=patient) as terminals,
    ):
        person, server = await terminals.person(Role.OPERATOR), await terminals.host()
        async with terminals.db.transaction() as conn:
            await conn.execute(update(servers).where(servers.c.id == server).values(port=silent.port))
        ticket = await terminals.ask(person, server)
        async with terminals.socket(person, ticket) as screen:
            await until(lambda: silent.open)
            await terminals.desk.stop(ticket.session_id, None, actor=person.actor)
            assert (await screen.frame("closed"))["reason"] == "closed"
        row = await terminals.over(ticket.session_id)

    assert (row.status, row.cause) == ("closed", "closed")
    assert (await terminals.library.verify_row(row)).verdict is Verdict.INTACT


async def test_nobody_else_stops_a_terminal(terminals: TerminalConsole):
    async with opened(terminals) as (_, _, screen):
        for role, failure in ((Role.OPERATOR, NotFound), (Role.AUDITOR, Denied), (Role.VIEWER, NotFound)):
            other = await terminals.person(role)
            with pytest.raises(failure):
                await terminals.desk.stop(screen.session_id, None, actor=other.actor)
        assert b"on" in await screen.run("echo on")


async def test_a_terminal_that_nobody_opened_can_be_stopped_and_gives_up_by_itself(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    one, two = await terminals.ask(person, server), await terminals.ask(person, server)
    stops = [terminals.desk.stop(one.session_id, None, actor=person.actor) for _ in range(2)]
    found = await asyncio.gather(*stops, return_exceptions=True)
    assert [type(each) for each in found if each is not None] == [Conflict]
    assert (await terminals.row(one.session_id)).cause == "closed"

    async with terminals.db.transaction() as conn:
        late = datetime.now(UTC) - timedelta(seconds=1)
        row = update(terminal_sessions).where(terminal_sessions.c.id == two.session_id)
        await conn.execute(row.values(ticket_expires_at=late))
    assert (await terminals.over(two.session_id)).cause == "not_opened"


async def test_an_admin_looks_on_and_the_user_sees_who(terminals: TerminalConsole):
    admin = await terminals.person(Role.ADMIN)
    async with opened(terminals) as (_, _, screen):
        await screen.run("echo before")
        ticket = await terminals.desk.issue(screen.session_id, Purpose.WATCH, actor=admin.actor)
        async with terminals.socket(admin, ticket) as watching:
            await watching.until(b"before")
            await screen.wait(
                lambda: {"type": "watched", "by": [admin.actor.name]} in screen.frames, lambda: str(screen.frames)
            )
            await screen.run("echo after")
            await watching.until(b"after")
            await watching.type("echo typed by a watcher\r")
            await screen.send(type="resize", cols=99, rows=33)
            assert (await watching.frame("resized"))["cols"] == 99
            assert bytes(screen.shown) == bytes(watching.shown)
        await screen.frame("watched")
        await screen.send(type="close")
        await terminals.over(screen.session_id)

    assert b"watcher" not in screen.shown
    assert f"watched by {admin.actor.name}".encode() in terminals.marks(screen.session_id)
    view = next(one for one in await records(terminals.db) if one["action"] == "recording.view")
    assert (view["actor"]["id"], view["target"]["id"]) == (admin.actor.id, screen.session_id)


async def test_a_watcher_whose_network_broke_misses_nothing_and_sees_nothing_twice(terminals: TerminalConsole):
    admin = await terminals.person(Role.ADMIN)
    async with opened(terminals) as (_, _, screen):
        ticket = await terminals.desk.issue(screen.session_id, Purpose.WATCH, actor=admin.actor)
        async with terminals.socket(admin, ticket) as watching:
            await screen.run("echo before")
            await watching.wait(lambda: watching.at == screen.at)
            await watching.cut()
        await screen.run("echo while it was gone")
        ticket = await terminals.desk.issue(screen.session_id, Purpose.WATCH, actor=admin.actor)
        async with terminals.socket(admin, ticket, have=watching.at) as again:
            ready = await again.frame("ready")
            assert (ready["from"], ready["reset"]) == (watching.at, False)
            await screen.run("echo after")
            await again.wait(lambda: again.at == screen.at)
        assert bytes(watching.shown) + bytes(again.shown) == bytes(screen.shown)


async def test_a_watcher_that_draws_nothing_makes_nobody_wait(terminals: TerminalConsole):
    admin = await terminals.person(Role.ADMIN)
    async with opened(terminals) as (_, _, screen):
        ticket = await terminals.desk.issue(screen.session_id, Purpose.WATCH, actor=admin.actor)
        async with terminals.socket(admin, ticket) as watching:
            watching.is_drawing = False
            await watching.frame("ready")
            await screen.run("seq 400000")
            watching.is_drawing = True
            await watching.send(type="ack", bytes=watching.at)
            assert (await watching.frame("ready"))["reset"] is True
            await screen.run("echo toge''ther")
            await watching.until(b"together")


async def test_a_watcher_who_loses_the_right_is_sent_away_and_the_session_goes_on(terminals: TerminalConsole):
    admin = await terminals.person(Role.ADMIN)
    async with opened(terminals) as (_, _, screen):
        ticket = await terminals.desk.issue(screen.session_id, Purpose.WATCH, actor=admin.actor)
        async with terminals.socket(admin, ticket) as watching:
            await watching.frame("ready")
            async with terminals.db.transaction() as conn:
                await conn.execute(delete(logins).where(logins.c.id == admin.actor.session_id))
            assert await watching.closed() == 1008
        assert b"on" in await screen.run("echo on")


async def test_coming_back_is_recorded_with_who_came(terminals: TerminalConsole):
    async with opened(terminals) as (person, _, screen):
        assert "terminal.attach" not in await actions(terminals.db)
        ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=person.actor)
        async with terminals.socket(person, ticket) as again:
            await again.frame("ready")
    (back,) = [one for one in await records(terminals.db) if one["action"] == "terminal.attach"]
    assert (back["actor"]["id"], back["target"]["id"]) == (person.actor.id, screen.session_id)


async def test_only_who_may_stop_watches_and_only_who_opened_attaches(terminals: TerminalConsole):
    async with opened(terminals) as (person, _, screen):
        admin, auditor = await terminals.person(Role.ADMIN), await terminals.person(Role.AUDITOR)
        with pytest.raises(Denied):
            await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=admin.actor)
        with pytest.raises(Denied):
            await terminals.desk.issue(screen.session_id, Purpose.WATCH, actor=auditor.actor)
        with pytest.raises(Denied):
            await terminals.desk.issue(screen.session_id, Purpose.WATCH, actor=person.actor)


# --- the books --------------------------------------------------------------------------------------------------------


async def test_heads_are_noted_while_it_runs_and_all_of_them_are_met(terminals: TerminalConsole):
    async with opened(terminals) as (_, _, screen):
        await screen.run("seq 40000")
        async with asyncio.timeout(PATIENCE_S):
            while "terminal.head" not in await actions(terminals.db):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (await terminals.row(screen.session_id)).chunks > 0
        await screen.send(type="close")
        row = await terminals.over(screen.session_id)

    assert (await terminals.library.verify_row(row)).verdict is Verdict.INTACT


async def test_typing_counts_as_a_visit_of_the_login(terminals: TerminalConsole):
    async with opened(terminals) as (person, _, screen):
        long_ago = datetime.now(UTC) - timedelta(minutes=29)
        async with terminals.db.transaction() as conn:
            row = update(logins).where(logins.c.id == person.actor.session_id)
            await conn.execute(row.values(last_seen_at=long_ago))
        await screen.type("x")
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with terminals.db.reading() as conn:
                    if (await conn.execute(logins.select())).one().last_seen_at > long_ago:
                        break
                await asyncio.sleep(0.05)


async def test_typing_counts_as_a_visit_of_the_login_that_types(terminals: TerminalConsole):
    async with opened(terminals) as (person, _, screen):
        other = await terminals.login(person)
        ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=other.actor)
        async with terminals.socket(other, ticket) as elsewhere:
            await elsewhere.frame("ready")
            long_ago = datetime.now(UTC) - timedelta(minutes=29)
            async with terminals.db.transaction() as conn:
                await conn.execute(update(logins).values(last_seen_at=long_ago))
            await elsewhere.type("x")
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    async with terminals.db.reading() as conn:
                        if all(one.last_seen_at > long_ago for one in await conn.execute(logins.select())):
                            break
                    await asyncio.sleep(0.05)


async def test_a_console_that_stops_closes_its_terminals_and_says_so(terminals: TerminalConsole):
    async with opened(terminals) as (_, _, screen):
        await screen.run("true")
        await terminals.desk.drain(PATIENCE_S)
        assert (await screen.frame("closed"))["reason"] == "console_stopped"
        assert await screen.closed() == 1001
        row = await terminals.row(screen.session_id)

    assert (row.status, row.cause) == ("interrupted", "console_stopped")
    assert (await terminals.library.verify_row(row)).verdict is Verdict.INTACT


async def test_what_a_dead_console_left_is_closed_by_its_successor(sqlite_db: Database, sshds: Sshds, tmp_path: Path):
    """It only does nothing any more; kill -9 of a real one is tried in tests/flows."""
    asleep, place = Timing(check_s=600, tick_s=600, heads_s=600, housekeeping_s=600), tmp_path / "recordings"
    async with (
        running_terminals(sqlite_db, sshds, place, timing=asleep) as dead,
        opened(dead) as (_, _, screen),
    ):
        await screen.run("seq 20000")
        recorder = dead.desk.bridge(screen.session_id).recorder
        async with asyncio.timeout(PATIENCE_S):
            while recorder.progress.output_bytes < 100_000:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        async with running_terminals(sqlite_db, sshds, place) as alive:
            row = await alive.over(screen.session_id)
            assert (row.status, row.cause) == ("interrupted", "console_died")
            async with asyncio.timeout(PATIENCE_S):
                while (row := await alive.row(screen.session_id)).recording == "open":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert row.output_bytes >= 100_000
            assert (await alive.library.verify_row(row)).verdict is Verdict.INTACT
            ends = [one for one in await records(sqlite_db) if one["action"] == "terminal.disconnect"]
            assert [(one["outcome"], one["meta"]["recovered"]) for one in ends] == [("unknown", True)]
            assert (await actions(sqlite_db)).count("terminal.recover") == 1


async def test_a_console_that_others_took_for_dead_ends_what_they_have_ended(terminals: TerminalConsole):
    async with opened(terminals) as (_, _, screen):
        await screen.run("true")
        async with terminals.db.transaction() as conn:
            row = update(terminal_sessions).where(terminal_sessions.c.id == screen.session_id)
            await conn.execute(row.values(status="interrupted", cause="console_died", finished_at=datetime.now(UTC)))
        assert (await screen.frame("closed"))["reason"] == "console_died"
        async with asyncio.timeout(PATIENCE_S):
            while (row := await terminals.row(screen.session_id)).recording == "open":  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    assert row.recording == "unverified"
    ends = [one for one in await records(terminals.db) if one["action"] == "terminal.disconnect"]
    assert [one["outcome"] for one in ends] == ["unknown"]


async def test_records_say_from_where_a_terminal_was_opened(terminals: TerminalConsole):
    async with opened(terminals):
        pass
    connect = next(one for one in await records(terminals.db) if one["action"] == "terminal.connect")
    assert connect["request"]["id"] == "test-request"
