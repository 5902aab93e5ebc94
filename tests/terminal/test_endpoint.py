"""The socket under attack: origins, tickets, and frames that no page of ours sends."""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server_monitor.auth import credentials
from server_monitor.auth.actor import Role, os_user
from server_monitor.db.ids import new_id
from server_monitor.db.tables import terminal_sessions
from server_monitor.terminal.endpoint import Rules
from server_monitor.terminal.sessions import Ticket
from server_monitor.terminal.states import Purpose
from tests.support.patience import PATIENCE_S
from tests.support.terminals import Person, TerminalConsole, running_terminals

pytestmark = pytest.mark.sshd


async def refused(terminals: TerminalConsole, person: Person | None = None, **headers: str) -> int:
    with pytest.raises(InvalidStatus) as caught:
        async with terminals.connection(person, new_id(), headers=headers):
            pass
    assert json.loads(caught.value.response.body or b"{}")["code"]
    return caught.value.response.status_code


async def answered(terminals: TerminalConsole, person: Person | None, ticket: Ticket) -> str:
    """What a socket that shows this ticket is told: `ready`, or the reason of its end."""
    async with terminals.socket(person, ticket) as screen:
        await screen.wait(lambda: any(one["type"] in {"ready", "closed"} for one in screen.frames))
        found = next(one for one in screen.frames if one["type"] in {"ready", "closed"})
        if found["type"] == "closed":
            assert await screen.closed() == 1008
            return str(found["reason"])
        return "ready"


# --- the handshake ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:1", "javascript:alert(1)"])
async def test_a_page_of_another_origin_is_refused_in_the_handshake(terminals: TerminalConsole, origin: str):
    person = await terminals.person(Role.ADMIN)

    assert await refused(terminals, person, Origin=origin) == 403
    assert await refused(terminals, None, Origin=origin) == 403


async def test_a_cookie_without_an_origin_is_refused(terminals: TerminalConsole):
    person = await terminals.person(Role.ADMIN)

    assert await refused(terminals, None, Cookie=f"server_monitor_session={person.cookie}") == 403


async def test_a_login_that_is_none_is_refused(terminals: TerminalConsole):
    own = terminals.url.replace("ws://", "http://")

    assert await refused(terminals, None, Origin=own) == 401
    assert await refused(terminals, None, Origin=own, Cookie="server_monitor_session=wrong") == 401
    assert await refused(terminals, None, Authorization="Bearer wrong") == 401


# --- tickets ----------------------------------------------------------------------------------------------------------


async def test_a_ticket_works_once(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    ticket = await terminals.ask(person, server)

    assert await answered(terminals, person, ticket) == "ready"
    assert await answered(terminals, person, ticket) == "ticket"


async def test_of_many_who_show_a_ticket_at_once_one_gets_in(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    ticket = await terminals.ask(person, server)

    found = await asyncio.gather(*(answered(terminals, person, ticket) for _ in range(8)))
    assert sorted(found) == ["ready"] + ["ticket"] * 7


async def test_a_ticket_that_is_too_old_opens_nothing(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    ticket = await terminals.ask(person, server)
    async with terminals.db.transaction() as conn:
        row = update(terminal_sessions).where(terminal_sessions.c.id == ticket.session_id)
        await conn.execute(row.values(ticket_expires_at=datetime.now(UTC) - timedelta(milliseconds=1)))

    assert await answered(terminals, person, ticket) == "ticket"


async def test_a_ticket_is_for_its_session_and_its_person_only(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    admin = await terminals.person(Role.ADMIN)
    one, two = await terminals.ask(person, server), await terminals.ask(person, server)

    assert await answered(terminals, admin, one) == "ticket"
    assert await answered(terminals, person, Ticket(two.session_id, one.secret)) == "ticket"
    assert await answered(terminals, person, Ticket(new_id(), one.secret)) == "ticket"
    assert await answered(terminals, None, one) == "ticket"  # it was not a program that asked for it
    assert await answered(terminals, person, one) == "ready"


async def test_a_ticket_to_watch_does_not_type(terminals: TerminalConsole):
    admin, server = await terminals.person(Role.ADMIN), await terminals.host()
    async with terminals.screen(admin, server) as screen:
        ticket = await terminals.desk.issue(screen.session_id, Purpose.WATCH, actor=admin.actor)
        async with terminals.socket(admin, ticket) as watching:
            await watching.frame("ready")
            await watching.type("echo from wa''tcher\r")
            await watching.send(type="close")
            await screen.run("sleep 0.3")
    assert b"from watcher" not in screen.shown


async def test_a_program_needs_no_page(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    async with terminals.db.transaction() as conn:
        made = await credentials.create(conn, str(person.actor.id), "t", ["operate"], actor=os_user("tests"))
    async with terminals.db.reading() as conn:
        holder = await credentials.find(conn, made.secret, datetime.now(UTC))
    assert holder is not None
    ticket = await terminals.ask(Person(holder.actor, ""), server)

    headers = {"Authorization": f"Bearer {made.secret}"}
    async with terminals.connection(None, ticket.session_id, headers=headers) as connection:
        await connection.send(json.dumps({"type": "ticket", "ticket": ticket.secret}))
        async with asyncio.timeout(PATIENCE_S):
            frames = [await connection.recv() for _ in range(2)]
    assert '"ready"' in "".join(str(frame) for frame in frames)


async def test_the_ticket_is_stored_nowhere(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    ticket = await terminals.ask(person, server)

    row = await terminals.row(ticket.session_id)
    assert ticket.secret.encode() not in bytes(row.ticket)
    assert len(row.ticket) == 32


# --- frames -----------------------------------------------------------------------------------------------------------


NO_TICKETS = (
    b"",
    b"bytes",
    "",
    "null",
    "[]",
    "{}",
    '{"type":"ack","bytes":0}',
    '{"type":"ticket"}',
    '{"type":"ticket","ticket":1}',
    '{"type":"ticket","ticket":"x","have":-1}',
    '{"type":"ticket","ticket":"' + "x" * 2_000 + '"}',
    "{" * 900,
)


@pytest.mark.parametrize("frame", NO_TICKETS)
async def test_who_begins_with_anything_but_a_ticket_is_sent_away(terminals: TerminalConsole, frame: str | bytes):
    person = await terminals.person(Role.ADMIN)
    async with terminals.connection(person, new_id()) as connection:
        await connection.send(frame)
        assert await closed_with(connection) == 1008


async def test_who_shows_no_ticket_is_sent_away(sqlite_db, sshds, tmp_path):
    rules = Rules(ticket_timeout_s=0.2)
    async with running_terminals(sqlite_db, sshds, tmp_path / "recordings", socket_rules=rules) as terminals:
        person = await terminals.person(Role.ADMIN)
        async with terminals.connection(person, new_id()) as connection:
            assert await closed_with(connection) == 1008


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("no json", 1008),
        ('{"type":"root"}', 1008),
        ('{"type":"resize","cols":0,"rows":24}', 1008),
        ('{"type":"resize","cols":1e9,"rows":24}', 1008),
        ('{"type":"resize","cols":100000,"rows":24}', 1008),
        ('{"type":"resize","cols":true,"rows":24}', 1008),
        ('{"type":"ack","bytes":99999999999}', 1008),
        ('{"type":"ack","bytes":-1}', 1008),
        ('{"type":"ticket","ticket":"again"}', 1008),
        ('{"type":"ack","bytes":0,"x":"' + "x" * 2_000 + '"}', 1008),
        ("x" * 70_000, 1009),
        (b"x" * 70_000, 1009),
    ],
)
async def test_a_malformed_frame_ends_the_socket_and_not_the_session(
    terminals: TerminalConsole, frame: str | bytes, code: int
):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    async with terminals.screen(person, server) as screen:
        await screen.connection.send(frame)
        assert await screen.closed() == code
        assert (await terminals.row(screen.session_id)).status == "active"

        ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=person.actor)
        async with terminals.socket(person, ticket, have=screen.at) as back:
            assert b"still" in await back.run("echo still")


async def test_a_flood_does_not_keep_a_browser_that_breaks_the_rules(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    async with terminals.screen(person, server) as screen:
        await screen.type("yes\r")
        await screen.wait(lambda: len(screen.shown) > 1_000_000)
        await screen.connection.send("nonsense")
        assert await screen.closed() == 1008


async def test_sizes_come_at_a_bounded_rate(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    async with terminals.screen(person, server) as screen:
        with suppress(ConnectionClosed):
            for number in range(1_000):
                await screen.send(type="resize", cols=80 + number % 100, rows=24)
        assert await screen.closed() == 1008


async def test_the_console_has_only_so_many_sockets(sqlite_db, sshds, tmp_path):
    rules = Rules(sockets=1)
    async with running_terminals(sqlite_db, sshds, tmp_path / "recordings", socket_rules=rules) as terminals:
        person = await terminals.person(Role.ADMIN)
        async with terminals.connection(person, new_id()):
            assert await refused(terminals, person) == 503


async def closed_with(connection) -> int | None:
    with suppress(ConnectionClosed):
        async with asyncio.timeout(PATIENCE_S):
            async for _ in connection:
                pass
    return connection.close_code
