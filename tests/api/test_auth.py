"""Identity over HTTP: setup, login, sessions, people and tokens, as a browser or a script sees them."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import timedelta
from http.cookies import SimpleCookie
from ipaddress import ip_network

import httpx2
import orjson
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from server_monitor.api import app as api
from server_monitor.api import auth, health, tokens, users
from server_monitor.api.deps import Console
from server_monitor.api.middleware import Edge
from server_monitor.auth import setup
from server_monitor.auth.actor import Permission, Role, Scope
from server_monitor.auth.login import Logins
from server_monitor.db import tables
from server_monitor.db.engine import Database
from server_monitor.settings import Settings
from tests.support.console import PASSWORD, Browser

OTHER_PASSWORD = "walnut orbit cactus thirty"
NOBODY = "00000000-0000-7000-8000-000000000000"

OpenBrowser = Callable[..., Awaitable[Browser]]


@pytest.fixture
def app(sqlite_db: Database, tmp_path) -> FastAPI:
    """The real application with the routes of identity; what watches servers is not behind it."""
    settings = Settings.load(data_dir=tmp_path / "data")
    logins = Logins(sqlite_db, settings.jwt_secret)
    parts = Console(settings, sqlite_db, logins, *(None,) * (len(fields(Console)) - 3))
    edge = Edge(proxies=(ip_network("127.0.0.1"),), hosts=frozenset({"console.example"}), body_limits={})
    routers = (auth.router, users.router, tokens.router)
    return api.make_app(parts, edge, health.Readiness(), routers, sockets={})


@asynccontextmanager
async def client_of(app: FastAPI, url: str = "http://127.0.0.1:9083", **options) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 40000))
    async with httpx2.AsyncClient(transport=transport, base_url=url, **options) as client:
        yield client


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def setup_token(sqlite_db: Database) -> str:
    async with sqlite_db.transaction() as conn:
        token = await setup.issue(conn)
    assert token is not None
    return token


@pytest.fixture
async def ada(client: httpx2.AsyncClient, setup_token: str) -> Browser:
    """The first admin's browser."""
    browser = Browser(client)
    await browser.set_up(setup_token)
    return browser


@pytest.fixture
async def hire(app: FastAPI, ada: Browser) -> AsyncIterator[OpenBrowser]:
    """Make a user and open a browser in which they are logged in."""
    opened = []

    async def hire_one(name: str, role: Role | None) -> Browser:
        made = await ada.send("POST", "/api/users", {"name": name, "password": PASSWORD, "role": role})
        assert made.status_code == 201, made.text
        context = client_of(app)
        opened.append(context)
        browser = Browser(await context.__aenter__())
        await browser.log_in(name)
        return browser

    yield hire_one
    for context in opened:
        await context.__aexit__(None, None, None)


def code(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def cookies_of(response: httpx2.Response) -> Iterator:
    for header in response.headers.get_list("set-cookie"):
        yield from SimpleCookie(header).values()


# --- setup ----------------------------------------------------------------------------------------------------------


async def test_setup_makes_the_first_admin_once(client, setup_token):
    assert (await client.get("/api/setup/status")).json() == {"needed": True}
    body = {"token": setup_token, "username": "ada", "password": PASSWORD}

    first = await client.post("/api/setup/initialize", json=body)
    second = await client.post("/api/setup/initialize", json=body | {"username": "eve"})

    assert first.status_code == 201
    assert first.json()["user"]["role"] == "admin"
    assert code(second) == (410, "gone")
    assert (await client.get("/api/setup/status")).json() == {"needed": False}
    assert (await client.get("/api/auth/verify")).json() == first.json()


async def test_a_wrong_setup_token_is_refused(client, setup_token):
    body = {"token": "x" * 43, "username": "ada", "password": PASSWORD}

    assert code(await client.post("/api/setup/initialize", json=body)) == (403, "denied")


async def test_setup_tells_every_mistake_by_the_name_the_form_uses(client, setup_token):
    body = {"token": setup_token, "username": "a\u202eb", "password": "short"}

    response = await client.post("/api/setup/initialize", json=body)

    assert code(response) == (422, "invalid")
    assert [error["field"] for error in response.json()["errors"]] == ["username", "password"]


# --- login ----------------------------------------------------------------------------------------------------------


async def test_login_answers_with_who_it_is_and_what_they_may_do(ada, hire):
    olga = await hire("olga", Role.OPERATOR)

    body = (await olga.get("/api/auth/verify")).json()

    assert (body["user"]["name"], body["user"]["role"]) == ("olga", "operator")
    own_and_look = {"group:read", "key:read", "server:read", "session:own", "token:own"}
    work = {"file:copy", "snippet:write", "task:approve", "task:read", "task:run", "terminal:open"}
    assert set(body["permissions"]) == own_and_look | work
    assert len(body["csrf_token"]) == 64


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(client, ada):
    response = await client.post("/api/auth/login", json={"username": "ada", "password": PASSWORD})

    cookies = {cookie.key: cookie for cookie in cookies_of(response)}
    assert set(cookies) == {"server_monitor_session", "server_monitor_browser"}
    for cookie in cookies.values():
        assert (cookie["httponly"], cookie["samesite"], cookie["secure"]) == (True, "strict", "")
    session = cookies["server_monitor_session"]
    assert session["path"] == "/"
    assert 8 * 3600 - 60 < int(session["max-age"]) <= 8 * 3600
    assert len(base64.urlsafe_b64decode(session.value + "=")) == 32


async def test_over_https_the_cookie_is_bound_to_the_host(app, ada):
    forwarded = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}
    async with client_of(app, "https://console.example", headers=forwarded) as client:
        response = await client.post("/api/auth/login", json={"username": "ada", "password": PASSWORD})
        assert response.status_code == 200
        session = next(cookie for cookie in cookies_of(response) if cookie.key.endswith("session"))
        assert session.key == "__Host-server_monitor_session"
        assert (session["secure"], session["path"], session["domain"]) == (True, "/", "")
        assert (await client.get("/api/auth/verify")).status_code == 200


@pytest.mark.parametrize("username", ["ada", "nobody", "x" * 10_000, 'a"b\n\u202e'])
async def test_a_wrong_login_says_the_same_whoever_was_meant(client, ada, username):
    response = await client.post("/api/auth/login", json={"username": username, "password": "wrong wrong wrong"})

    assert code(response) == (401, "login_failed")
    assert response.json()["detail"] == "The name or the password is wrong."
    assert "set-cookie" not in response.headers


async def test_many_wrong_logins_are_told_to_wait(client, ada):
    """After five; each wait is twice the one before, so that in the end no machine is too busy to be in time for it."""
    body = {"username": "ada", "password": "wrong wrong wrong"}
    client.cookies.clear()
    async with client_of(client._transport.app, headers={"X-Forwarded-For": "198.51.100.7"}) as stranger:
        answers = [await stranger.post("/api/auth/login", json=body) for _ in range(5)]
        while answers[-1].status_code == 401 and len(answers) < 15:
            answers.append(await stranger.post("/api/auth/login", json=body))

    assert [answer.status_code for answer in answers[:-1]] == [401] * (len(answers) - 1)
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].json()["code"] == "too_many_requests"


async def test_logging_out_ends_the_session_and_clears_what_the_browser_kept(client, ada):
    response = await ada.send("POST", "/api/auth/logout")

    assert response.status_code == 204
    assert response.headers["clear-site-data"] == '"cache", "storage"'
    assert (await ada.get("/api/auth/verify")).status_code == 401


async def test_logging_out_twice_is_no_error(client):
    assert (await client.post("/api/auth/logout")).status_code == 204


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": "ada"},
        {"username": "ada", "password": PASSWORD, "role": "admin"},
        {"username": ["ada"], "password": PASSWORD},
        {"username": "ada", "password": "x" * 1025},
        [],
    ],
)
async def test_a_malformed_login_is_refused_without_repeating_the_password(client, ada, body):
    response = await client.post("/api/auth/login", json=body)

    assert code(response) == (422, "invalid")
    assert PASSWORD not in response.text
    assert "x" * 1025 not in response.text


# --- other sites ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_another_sites_page_can_neither_change_anything_nor_log_anybody_in(client, ada, headers):
    body = {"name": "eve", "password": PASSWORD, "role": "admin"}
    csrf = (await ada.get("/api/auth/verify")).json()["csrf_token"]

    change = await client.post("/api/users", json=body, headers=headers | {"X-CSRF-Token": csrf})
    login = await client.post("/api/auth/login", json={"username": "ada", "password": PASSWORD}, headers=headers)

    assert code(change) == code(login) == (403, "denied")


@pytest.mark.parametrize("headers", [{}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "0" * 64}])
async def test_a_change_by_cookie_needs_the_sessions_own_token(client, ada, headers):
    body = {"name": "eve", "password": PASSWORD, "role": "admin"}

    assert code(await client.post("/api/users", json=body, headers=headers)) == (403, "denied")


async def test_a_form_of_another_site_is_not_json(client, ada):
    body = orjson.dumps({"username": "ada", "password": PASSWORD})

    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        response = await client.post("/api/auth/login", content=body, headers={"Content-Type": kind})
        assert response.status_code == 422


# --- people ---------------------------------------------------------------------------------------------------------


async def test_an_admin_makes_changes_and_removes_people(ada):
    made = await ada.send("POST", "/api/users", {"name": "Olga", "password": PASSWORD, "role": "operator"})
    path = f"/api/users/{made.json()['id']}"
    changed = await ada.send("PATCH", path, {"role": None, "disabled": True})
    listed = (await ada.get("/api/users")).json()
    removed = await ada.send("DELETE", path)

    assert (made.status_code, changed.status_code, removed.status_code) == (201, 200, 204)
    assert (changed.json()["role"], changed.json()["disabled"]) == (None, True)
    assert [user["name"] for user in listed["items"]] == ["ada", "Olga"]
    assert code(await ada.send("DELETE", path)) == (404, "not_found")


@pytest.mark.parametrize("field", ["id", "name_folded", "password_hash", "created_at", "is_admin"])
async def test_no_other_field_can_be_smuggled_in(ada, field):
    me = (await ada.get("/api/users/me")).json()["id"]
    new = {"name": "eve", "password": PASSWORD, "role": "viewer"}

    for response in (
        await ada.send("POST", "/api/users", new | {field: "x"}),
        await ada.send("PATCH", f"/api/users/{me}", {field: "x"}),
    ):
        assert code(response) == (422, "invalid")
        assert response.json()["errors"][0]["field"] == field


async def test_the_last_admin_stays(ada):
    me = (await ada.get("/api/users/me")).json()["id"]

    for response in (
        await ada.send("DELETE", f"/api/users/{me}"),
        await ada.send("PATCH", f"/api/users/{me}", {"role": "viewer"}),
        await ada.send("PATCH", f"/api/users/{me}", {"disabled": True}),
    ):
        assert code(response) == (409, "conflict")


async def test_a_disabled_user_is_out_at_once(ada, hire):
    olga = await hire("olga", Role.OPERATOR)
    token = (await olga.send("POST", "/api/tokens", {"name": "t", "scopes": ["read"]})).json()["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    identity = (await olga.get("/api/users/me")).json()["id"]

    await ada.send("PATCH", f"/api/users/{identity}", {"disabled": True})

    assert (await olga.get("/api/auth/verify")).status_code == 401
    olga.client.cookies.clear()
    assert (await olga.get("/api/auth/verify", headers=bearer)).status_code == 401


async def test_people_change_their_own_password_with_the_old_one(ada, hire):
    olga = await hire("olga", Role.OPERATOR)
    change = {"current": "wrong wrong wrong", "new": OTHER_PASSWORD}

    wrong = await olga.send("POST", "/api/users/me/password", change)
    right = await olga.send("POST", "/api/users/me/password", change | {"current": PASSWORD})

    assert wrong.json()["errors"] == [{"field": "current", "message": "is not your password"}]
    assert right.status_code == 204
    assert (await olga.get("/api/auth/verify")).status_code == 200
    await olga.log_in("olga", OTHER_PASSWORD)


async def test_people_see_and_end_their_other_sessions(app, ada, hire):
    olga = await hire("olga", Role.OPERATOR)
    async with client_of(app) as elsewhere:
        await Browser(elsewhere).log_in("olga")
        items = (await olga.get("/api/sessions")).json()["items"]
        (other,) = [item for item in items if not item["current"]]

        assert code(await ada.send("DELETE", f"/api/sessions/{other['id']}")) == (404, "not_found")
        assert (await olga.send("DELETE", f"/api/sessions/{other['id']}")).status_code == 204
        assert (await elsewhere.get("/api/auth/verify")).status_code == 401
        assert (await olga.get("/api/auth/verify")).status_code == 200


# --- tokens ---------------------------------------------------------------------------------------------------------


async def test_a_token_is_shown_once_and_works_as_bearer_without_csrf(app, ada):
    made = await ada.send("POST", "/api/tokens", {"name": "ci", "scopes": ["admin"], "expires_in_days": 30})
    assert made.status_code == 201
    listed = (await ada.get("/api/tokens")).json()["items"]
    assert listed[0]["prefix"] == made.json()["token"][:12]
    assert made.json()["token"] not in str(listed)

    async with client_of(app, headers={"Authorization": f"Bearer {made.json()['token']}"}) as script:
        body = {"name": "olga", "password": PASSWORD, "role": "viewer"}
        assert (await script.post("/api/users", json=body)).status_code == 201
        assert (await script.get("/api/auth/verify")).json()["csrf_token"] is None
        minted = await script.post("/api/tokens", json={"name": "more", "scopes": ["read"]})
        assert code(minted) == (403, "denied")
        assert (await ada.send("DELETE", f"/api/tokens/{made.json()['id']}")).status_code == 204
        assert code(await script.get("/api/auth/verify")) == (401, "unauthenticated")


async def test_an_old_login_is_asked_for_the_password_before_it_makes_a_token(ada, sqlite_db):
    async with sqlite_db.transaction() as conn:
        rows = tables.sessions
        at = (await conn.execute(select(rows.c.created_at))).scalars().one()
        await conn.execute(update(rows).values(created_at=at - timedelta(days=365)))
    body = {"name": "ci", "scopes": ["read"]}

    without = await ada.send("POST", "/api/tokens", body)

    assert [error["field"] for error in without.json()["errors"]] == ["password"]
    assert code(await ada.send("POST", "/api/tokens", body | {"password": "wrong wrong"})) == (422, "invalid")
    assert (await ada.send("POST", "/api/tokens", body | {"password": PASSWORD})).status_code == 201


# --- every route, every role, every scope ---------------------------------------------------------------------------

# What a route takes; None: anybody at all, "login": anybody who is logged in.
RIGHTS: dict[tuple[str, str], Permission | str | None] = {
    ("GET", "/api/setup/status"): None,
    ("POST", "/api/setup/initialize"): None,
    ("POST", "/api/auth/login"): None,
    ("POST", "/api/auth/logout"): None,
    ("GET", "/api/auth/verify"): "login",
    ("GET", "/api/sessions"): Permission.SESSION_OWN,
    ("DELETE", "/api/sessions/{session_id}"): Permission.SESSION_OWN,
    ("GET", "/api/users"): Permission.USER_READ,
    ("POST", "/api/users"): Permission.USER_WRITE,
    ("GET", "/api/users/me"): "login",
    ("POST", "/api/users/me/password"): Permission.SESSION_OWN,
    ("PATCH", "/api/users/{user_id}"): Permission.USER_WRITE,
    ("DELETE", "/api/users/{user_id}"): Permission.USER_WRITE,
    ("GET", "/api/roles"): "login",
    ("GET", "/api/tokens"): Permission.TOKEN_OWN,
    ("POST", "/api/tokens"): Permission.TOKEN_OWN,
    ("DELETE", "/api/tokens/{token_id}"): Permission.TOKEN_OWN,
}
BODIES = {
    ("POST", "/api/users"): {"name": "new", "password": PASSWORD, "role": "viewer"},
    ("POST", "/api/users/me/password"): {"current": "wrong wrong wrong", "new": OTHER_PASSWORD},
    ("PATCH", "/api/users/{user_id}"): {"disabled": True},
    ("POST", "/api/tokens"): {"name": "t", "scopes": []},
}


def test_every_route_of_identity_is_in_the_matrix():
    routes = {
        (method, route.path)
        for router in (auth.router, users.router, tokens.router)
        for route in router.routes
        for method in route.methods
    }

    assert routes == set(RIGHTS)


def fill(path: str) -> str:
    for name in ("user_id", "session_id", "token_id"):
        path = path.replace(f"{{{name}}}", NOBODY)
    return path


async def test_without_a_login_nothing_but_the_door_answers(client, ada):
    client.cookies.clear()

    for (method, path), right in RIGHTS.items():
        response = await client.request(method, fill(path), json=BODIES.get((method, path)))
        assert (response.status_code == 401) == (right is not None), (method, path)


@pytest.mark.parametrize("role", [*Role, None])
async def test_each_role_gets_exactly_what_it_may(ada, hire, role):
    browser = await hire("someone", role)
    permissions = (await browser.get("/api/auth/verify")).json()["permissions"]

    for (method, path), right in RIGHTS.items():
        if right is None:
            continue
        response = await browser.send(method, fill(path), BODIES.get((method, path)))
        allowed = right == "login" or right in permissions
        assert (response.status_code != 403) == allowed, (method, path, response.text)
        assert response.status_code != 401


@pytest.mark.parametrize("scope", list(Scope))
async def test_each_scope_gets_exactly_what_it_may(app, ada, scope):
    token = (await ada.send("POST", "/api/tokens", {"name": "t", "scopes": [scope]})).json()["token"]
    async with client_of(app, headers={"Authorization": f"Bearer {token}"}) as script:
        permissions = (await script.get("/api/auth/verify")).json()["permissions"]

        for (method, path), right in RIGHTS.items():
            if right is None:
                continue
            response = await script.request(method, fill(path), json=BODIES.get((method, path)))
            # An admin revokes the tokens of anybody.
            revokes = path == "/api/tokens/{token_id}" and "user:write" in permissions
            allowed = right == "login" or right in permissions or revokes
            assert (response.status_code != 403) == allowed, (method, path, response.text)
            assert response.status_code != 401


async def test_an_id_that_no_database_can_look_for_is_not_found(ada):
    for path in ("/api/users/%00", "/api/tokens/%00", "/api/sessions/%F0%9F%98%80", "/api/users/" + "x" * 3000):
        assert code(await ada.send("DELETE", path)) == (404, "not_found")
