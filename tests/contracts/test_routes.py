"""Every route, for every role: who may use it, and that every change leaves its record.

A route without a line in ROUTES fails, so that nobody forgets to decide.
"""

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import update

from server_monitor.db.tables import terminal_sessions
from server_monitor.lifecycle.wiring import described
from tests.support.console import PASSWORD, Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.recordings import stage_beside

EVERYBODY = frozenset({"viewer", "auditor", "operator", "admin"})
ADMIN = frozenset({"admin"})
READS_THE_LOG = frozenset({"auditor", "admin"})
READS_RUNS = frozenset({"auditor", "operator", "admin"})
RUNS = frozenset({"operator", "admin"})
PUBLIC = frozenset({"anonymous", *EVERYBODY})
ACCEPTED = frozenset({202})
# Waits for a second person, and once it is approved does nothing.
TO_BE_APPROVED = 'eval "$(date +:)" # ASK'
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}
# They change nothing that is stored: two try a connection and say how it went, one is given an empty list, one looks.
WITHOUT_RECORD = {
    "POST /api/policy/check",
    "POST /api/policy/replay",
    "POST /api/servers/test",
    "POST /api/servers/{server_id}/test",
    "POST /api/servers/host-keys/trust",
    "POST /api/tasks/preview",
}
# These begin and end sessions and have tests of their own in tests/auth.
LOGINS = {"POST /api/auth/login", "POST /api/auth/logout", "POST /api/setup/initialize"}

# After these the person who used them is somebody else.
ENDS_THE_SESSION = {"DELETE /api/sessions/{session_id}", "POST /api/users/me/password"}

_numbers = itertools.count()


def name(kind: str = "n") -> str:
    return f"{kind}{next(_numbers)}"


def new_server() -> dict[str, Any]:
    return {"name": name("s"), "host": "127.0.0.1", "port": 1, "username": "u", "auth": {"type": "agent"}}


def new_user() -> dict[str, Any]:
    return {"name": name("u"), "password": PASSWORD, "role": "viewer"}


def new_key() -> dict[str, Any]:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return {"name": name("k"), "private_key": pem.decode()}


def on_every_server(command: str) -> dict[str, Any]:
    """The console's own machine is the only one that may run anything."""
    return {"command": command, "selector": {"all": True}}


def new_snippet() -> dict[str, Any]:
    return {"name": name("c"), "command": "echo {{word}}", "parameters": [{"name": "word"}]}


@dataclass(frozen=True, slots=True)
class Route:
    """Who may use a route, what to send, and who makes the thing that its path names."""

    may: frozenset[str]
    body: Callable[[], Any] = lambda: None
    about: str | None = None
    answers: frozenset[int] = frozenset({200, 201, 204})
    query: str = ""


ROUTES: Mapping[str, Route] = {
    "GET /api/health": Route(PUBLIC),
    "GET /api/ready": Route(PUBLIC),
    "GET /api/metrics": Route(PUBLIC),  # from this machine; see test_life_cycle for the others
    "GET /api/setup/status": Route(PUBLIC),
    "GET /api/auth/verify": Route(EVERYBODY),
    "GET /api/roles": Route(EVERYBODY),
    "GET /api/users": Route(READS_THE_LOG),
    "POST /api/users": Route(ADMIN, new_user),
    "PATCH /api/users/{user_id}": Route(ADMIN, lambda: {"role": "operator"}, "user"),
    "DELETE /api/users/{user_id}": Route(ADMIN, about="user"),
    "GET /api/users/me": Route(EVERYBODY),
    "POST /api/users/me/password": Route(EVERYBODY, lambda: {"current": PASSWORD, "new": PASSWORD + " too"}),
    "GET /api/sessions": Route(EVERYBODY),
    "DELETE /api/sessions/{session_id}": Route(EVERYBODY, about="session"),
    "GET /api/tokens": Route(EVERYBODY),
    "POST /api/tokens": Route(EVERYBODY, lambda: {"name": name("t"), "scopes": ["read"], "expires_in_days": 1}),
    "DELETE /api/tokens/{token_id}": Route(EVERYBODY, about="token"),
    "GET /api/groups": Route(EVERYBODY),
    "POST /api/groups": Route(ADMIN, lambda: {"name": name("g")}),
    "GET /api/groups/{group_id}": Route(EVERYBODY, about="group"),
    "PATCH /api/groups/{group_id}": Route(ADMIN, lambda: {"description": "x"}, "group"),
    "DELETE /api/groups/{group_id}": Route(ADMIN, about="group"),
    "GET /api/groups/{group_id}/members": Route(EVERYBODY, about="group"),
    "PUT /api/groups/{group_id}/members": Route(ADMIN, lambda: {"servers": []}, "group with a member"),
    "GET /api/groups/{group_id}/grants": Route(frozenset({"auditor", "admin"}), about="group"),
    "PUT /api/groups/{group_id}/grants": Route(ADMIN, lambda: {"grants": []}, "group with a grant"),
    "GET /api/audit-logs": Route(READS_THE_LOG),
    "GET /api/audit-logs/{seq}": Route(READS_THE_LOG, about="record"),
    "GET /api/export/audit/csv": Route(READS_THE_LOG),
    "GET /api/export/audit/json": Route(READS_THE_LOG),
    "GET /api/audit/checkpoint": Route(READS_THE_LOG),
    "GET /api/audit/key": Route(READS_THE_LOG),
    "GET /api/audit/proof/{seq}": Route(READS_THE_LOG, about="record"),
    "GET /api/audit/segments": Route(READS_THE_LOG),
    "POST /api/audit/archive": Route(ADMIN, answers=frozenset({202})),
    "GET /api/audit/holds": Route(READS_THE_LOG),
    "POST /api/audit/holds": Route(ADMIN, lambda: {"name": name("h"), "reason": "a case", "filters": {}}),
    "DELETE /api/audit/holds/{hold_id}": Route(ADMIN, about="hold"),
    "GET /api/audit/bundle": Route(READS_THE_LOG),
    "GET /api/audit/consistency": Route(READS_THE_LOG, query="?from=0&to=1"),
    "POST /api/audit/verify": Route(READS_THE_LOG, answers=frozenset({202})),
    "GET /api/audit/verify": Route(READS_THE_LOG),
    "GET /api/servers": Route(EVERYBODY),
    "POST /api/servers": Route(ADMIN, new_server),
    "GET /api/servers/export": Route(EVERYBODY),
    "POST /api/servers/test": Route(ADMIN, new_server),
    "POST /api/servers/import": Route(
        ADMIN, lambda: {"format": "csv", "text": f"name,host\n{name('i')},127.0.0.1\n", "dry_run": False}
    ),
    # Each approval is judged by itself; an empty list changes nothing for anybody.
    "POST /api/servers/host-keys/trust": Route(EVERYBODY, lambda: {"items": []}),
    "GET /api/servers/{server_id}": Route(EVERYBODY, about="server"),
    "PATCH /api/servers/{server_id}": Route(ADMIN, lambda: {"labels": {"a": "b"}}, "server"),
    "DELETE /api/servers/{server_id}": Route(ADMIN, about="server"),
    "GET /api/servers/{server_id}/processes": Route(EVERYBODY, about="server"),
    "POST /api/servers/{server_id}/test": Route(ADMIN, about="server"),
    "GET /api/servers/{server_id}/host-key": Route(EVERYBODY, about="server"),
    "POST /api/servers/{server_id}/host-key": Route(
        ADMIN, lambda: {"fingerprint": "SHA256:" + "A" * 43}, "server", frozenset({502})
    ),
    # For the console's own machine nobody may; tests/terminal/test_files.py has the others.
    "GET /api/servers/{server_id}/files": Route(RUNS, about="own machine", answers=frozenset({409})),
    "GET /api/servers/{server_id}/files/content": Route(
        RUNS, about="own machine", answers=frozenset({409}), query="?path=/etc/hostname"
    ),
    "PUT /api/servers/{server_id}/files/content": Route(
        RUNS, about="own machine", answers=frozenset({409}), query="?path=/tmp/x"
    ),
    "GET /api/servers/{server_id}/metrics": Route(EVERYBODY, about="server", query="?metric=cpu_percent"),
    "GET /api/servers/{server_id}/series": Route(EVERYBODY, about="server"),
    "GET /api/series/catalogue": Route(EVERYBODY),
    "POST /api/tasks/preview": Route(RUNS, lambda: on_every_server("true")),
    "POST /api/tasks": Route(RUNS, lambda: on_every_server("true"), answers=ACCEPTED),
    "POST /api/servers/{server_id}/tasks": Route(RUNS, lambda: {"command": "true"}, "own machine", ACCEPTED),
    "GET /api/tasks": Route(EVERYBODY),  # of whoever may see none, an empty list
    "GET /api/runs": Route(EVERYBODY),
    "GET /api/runs/{run_id}": Route(READS_RUNS, about="waiting run"),
    "GET /api/runs/{run_id}/outputs": Route(READS_RUNS, about="waiting run"),
    "POST /api/runs/{run_id}/cancel": Route(RUNS, about="waiting run"),
    "POST /api/runs/{run_id}/approve": Route(RUNS, dict, "waiting run"),
    "POST /api/runs/{run_id}/reject": Route(RUNS, dict, "waiting run"),
    "POST /api/runs/{run_id}/retry-failed": Route(RUNS, dict, "failed run", ACCEPTED),
    "GET /api/tasks/{task_id}": Route(READS_RUNS, about="waiting task"),
    "GET /api/tasks/{task_id}/output": Route(READS_RUNS, about="waiting task"),
    "POST /api/tasks/{task_id}/cancel": Route(RUNS, about="waiting task"),
    "POST /api/tasks/{task_id}/approve": Route(RUNS, dict, "waiting task"),
    "POST /api/tasks/{task_id}/reject": Route(RUNS, dict, "waiting task"),
    "POST /api/tasks/{task_id}/retry-failed": Route(RUNS, dict, "failed task", ACCEPTED),
    "POST /api/policy/check": Route(RUNS, lambda: {"command": "uptime"}),
    "GET /api/policy/rules": Route(READS_RUNS),
    "POST /api/policy/replay": Route(READS_RUNS, lambda: {"days": 1}),
    "GET /api/snippets": Route(READS_RUNS),
    "POST /api/snippets": Route(RUNS, new_snippet),
    "GET /api/snippets/{snippet_id}": Route(READS_RUNS, about="snippet"),
    "PATCH /api/snippets/{snippet_id}": Route(RUNS, lambda: {"description": "x"}, "snippet"),
    "DELETE /api/snippets/{snippet_id}": Route(RUNS, about="snippet"),
    "GET /api/ssh-keys": Route(frozenset({"operator", "admin"})),
    "POST /api/ssh-keys": Route(ADMIN, new_key),
    "DELETE /api/ssh-keys/{key_id}": Route(ADMIN, about="key"),
    "GET /api/stats/overview": Route(EVERYBODY),
    # There is no such server, so all who may have terminals hear that; tests/terminal/test_desk.py has the others.
    "POST /api/terminal/sessions": Route(EVERYBODY, lambda: {"server_id": name("none")}, answers=frozenset({404})),
    "GET /api/terminal/sessions": Route(EVERYBODY),  # of whoever may see no others, their own
    "GET /api/terminal/sessions/{session_id}": Route(READS_THE_LOG, about="recording"),
    "POST /api/terminal/sessions/{session_id}/ticket": Route(
        ADMIN, lambda: {"purpose": "watch"}, "recording", frozenset({409})
    ),
    "POST /api/terminal/sessions/{session_id}/stop": Route(ADMIN, dict, "unused terminal"),
    "GET /api/terminal/sessions/{session_id}/recording": Route(READS_THE_LOG, about="recording"),
    "GET /api/terminal/sessions/{session_id}/replay": Route(READS_THE_LOG, about="recording"),
    "POST /api/terminal/sessions/{session_id}/verify": Route(READS_THE_LOG, about="recording"),
    "GET /api/terminal/search": Route(READS_THE_LOG, query="?q=uptime"),
}


class People:
    """A browser for each role, and things for paths to name."""

    def __init__(self, console: ConsoleProcess, admin: Browser, exits: AsyncExitStack) -> None:
        self._console = console
        self._admin = admin
        self._exits = exits
        self._kept: dict[str, Browser] = {}

    async def kept_page(self, role: str) -> Browser:
        """The same browser each time."""
        if role not in self._kept:
            self._kept[role] = await self.page(role)
        return self._kept[role]

    async def page(self, role: str) -> Browser:
        """A fresh browser of a fresh person with this role."""
        client = httpx2.AsyncClient(base_url=self._console.url, timeout=PATIENCE_S)
        page = Browser(await self._exits.enter_async_context(client))
        if role != "anonymous":
            person = {"name": name(role), "password": PASSWORD, "role": role}
            assert (await self._admin.send("POST", "/api/users", person)).status_code == 201
            await page.log_in(person["name"])
        return page

    async def make(self, kind: str | None, page: Browser) -> str:
        """The id of a new thing of this kind; sessions and tokens belong to the person at `page`."""
        makers: dict[str | None, Callable[[], Awaitable[str]]] = {
            "user": lambda: self._made("/api/users", new_user()),
            "server": lambda: self._made("/api/servers", new_server()),
            "group": lambda: self._made("/api/groups", {"name": name("g")}),
            "group with a member": self._group_with_member,
            "group with a grant": self._group_with_grant,
            "key": lambda: self._made("/api/ssh-keys", new_key()),
            "session": lambda: self._own_session(page),
            "token": lambda: self._own_token(page),
            "record": self._first_record,
            "own machine": self.own_machine,
            "waiting run": lambda: self._asked(TO_BE_APPROVED, "run_id"),
            "waiting task": lambda: self._asked(TO_BE_APPROVED, "id"),
            "failed run": lambda: self._asked("false", "run_id"),
            "failed task": lambda: self._asked("false", "id"),
            "snippet": lambda: self._made("/api/snippets", new_snippet()),
            "recording": self._recorded,
            "unused terminal": self._unused_terminal,
            "hold": lambda: self._made("/api/audit/holds", ROUTES["POST /api/audit/holds"].body()),
        }
        return await makers[kind]() if kind else ""

    async def _made(self, path: str, body: object) -> str:
        answer = await self._admin.send("POST", path, body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def _recorded(self) -> str:
        async with stage_beside(self._console.data_dir) as stage:
            return (await stage.play(b"$ uptime\r\n")).id

    async def _unused_terminal(self) -> str:
        """A session whose ticket nobody has used yet."""
        async with stage_beside(self._console.data_dir) as stage:
            session = await stage.play(b"")
            row = update(terminal_sessions).where(terminal_sessions.c.id == session.id)
            ends_at = datetime.now(UTC) + timedelta(hours=1)
            async with stage.db.transaction() as conn:
                values = {"status": "active", "started_at": None, "finished_at": None, "recording": "open"}
                await conn.execute(row.values(**values, ticket_expires_at=ends_at))
            return session.id

    async def _first_record(self) -> str:
        return "0"

    async def _group_with_member(self) -> str:
        group, server = await self.make("group", self._admin), await self.make("server", self._admin)
        await self._admin.send("PUT", f"/api/groups/{group}/members", {"servers": [server]})
        return group

    async def _group_with_grant(self) -> str:
        group, user = await self.make("group", self._admin), await self.make("user", self._admin)
        grants = {"grants": [{"user_id": user, "role": "viewer"}]}
        await self._admin.send("PUT", f"/api/groups/{group}/grants", grants)
        return group

    async def own_machine(self) -> str:
        servers = (await self._admin.get("/api/servers")).json()["items"]
        return next(str(server["id"]) for server in servers if server["host"] == "local")

    async def _asked(self, command: str, field: str) -> str:
        """A run that the first admin has asked for, once it waits for a decision or is over."""
        answer = await self._admin.send("POST", "/api/tasks", on_every_server(command))
        assert answer.status_code == 202, answer.text
        run_id = answer.json()["run_id"]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                (task,) = (await self._admin.get("/api/tasks", params={"run_id": run_id})).json()["items"]
                if task["status"] not in {"queued", "running"}:
                    return str(task[field])
                await asyncio.sleep(0.05)

    async def _own_session(self, page: Browser) -> str:
        answer = await page.get("/api/sessions")
        return str(answer.json()["items"][0]["id"]) if answer.is_success else "none"

    async def _own_token(self, page: Browser) -> str:
        answer = await page.send("POST", "/api/tokens", ROUTES["POST /api/tokens"].body())
        return str(answer.json()["id"]) if answer.is_success else "none"


@pytest.fixture
async def people(console: ConsoleProcess, browser: Browser) -> AsyncIterator[People]:
    async with AsyncExitStack() as exits:
        people = People(console, browser, exits)
        raised = await browser.send("PATCH", f"/api/servers/{await people.own_machine()}", {"capability": "run"})
        assert raised.is_success, raised.text
        yield people


def described_routes() -> set[str]:
    paths = described().openapi()["paths"]
    return {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}


def test_somebody_decided_about_every_route() -> None:
    assert described_routes() == ROUTES.keys() | LOGINS


@pytest.mark.long
@pytest.mark.parametrize("role", ["anonymous", "viewer", "auditor", "operator", "admin"])
async def test_a_role_may_what_its_line_says_and_changes_are_recorded(
    console: ConsoleProcess, people: People, role: str
) -> None:
    wrong = []
    for line, route in ROUTES.items():
        page = await (people.page(role) if line in ENDS_THE_SESSION else people.kept_page(role))
        method, _, template = line.partition(" ")
        path = _fill(template, await people.make(route.about, page)) + route.query
        before = _records(console)
        answer = await (page.send(method, path, route.body()) if method in UNSAFE else page.get(path))
        wrong += _mistakes(line, route, role, answer, _records(console) - before)

    assert wrong == []


def _fill(template: str, identity: str) -> str:
    before, brace, rest = template.partition("{")
    return before + identity + rest.partition("}")[2] if brace else template


def _mistakes(line: str, route: Route, role: str, answer: httpx2.Response, records: int) -> list[str]:
    if role not in route.may:
        refused = {401} if role == "anonymous" else {403, 404}
        return [] if answer.status_code in refused else [f"{role} got {answer.status_code} from {line}"]
    if answer.status_code not in route.answers:
        return [f"{role} got {answer.status_code} from {line}: {answer.text}"]
    changes = line.split(" ", maxsplit=1)[0] in UNSAFE and answer.is_success and line not in WITHOUT_RECORD
    if changes and records == 0:
        return [f"{line} left no record"]
    return []


def _records(console: ConsoleProcess) -> int:
    with closing(sqlite3.connect(console.data_dir / "server-monitor.sqlite3", timeout=PATIENCE_S)) as conn:
        return int(conn.execute("SELECT size FROM audit_head").fetchone()[0])
