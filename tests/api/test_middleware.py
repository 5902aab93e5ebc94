"""The edge of the application: ids, hosts, bodies, headers and errors, before any route is reached."""

import re
from collections.abc import AsyncIterator
from ipaddress import ip_network

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from starlette.responses import PlainTextResponse

from server_monitor import errors
from server_monitor.api import problems
from server_monitor.api.deps import Body
from server_monitor.api.middleware import Edge, EdgeMiddleware
from server_monitor.telemetry.logs import request_context


class Note(Body):
    password: str
    number: int = 0


def make_app() -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.post("/api/echo")
    async def echo(request: Request) -> Response:
        return Response(str(len(await request.body())))

    @app.post("/api/notes")
    async def notes(note: Note) -> Response:
        return PlainTextResponse(note.password)

    @app.get("/api/client")
    async def client(request: Request) -> Response:
        assert request_context.get() is not None
        return PlainTextResponse(f"{request.client.host if request.client else '-'} {request.url.scheme}")

    @app.get("/api/fail/{kind}")
    async def fail(kind: str) -> Response:
        failures: dict[str, Exception] = {
            "missing": errors.NotFound("server", "s1"),
            "many": errors.TooMany("Slow down.", 7),
            "audit": errors.AuditUnavailable("No record, no change."),
            "bug": RuntimeError("password=hunter2-hunter2"),
        }
        raise failures[kind]

    app.add_middleware(
        EdgeMiddleware, edge=Edge([ip_network("192.0.2.0/24")], {"console.example"}, {"/api/echo": 2_000_000})
    )
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(make_app(), client=("192.0.2.1", 99))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize("given", ["abc-DEF_1.2", "x" * 128])
async def test_a_good_request_id_is_kept(client: httpx2.AsyncClient, given: str) -> None:
    response = await client.get("/api/client", headers={"X-Request-Id": given})

    assert response.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\tb", "<script>"])
async def test_any_other_request_id_is_replaced(client: httpx2.AsyncClient, given: str) -> None:
    response = await client.get("/api/client", headers={"X-Request-Id": given})

    assert re.fullmatch(r"[0-9a-f-]{36}", response.headers["X-Request-Id"])


async def test_a_name_that_is_not_ours_is_refused(client: httpx2.AsyncClient) -> None:
    """A page whose name was pointed at our address gets nothing (DNS rebinding)."""
    response = await client.get("/api/client", headers={"Host": "evil.example"})

    assert (response.status_code, response.json()["code"]) == (421, "unknown_host")
    assert (await client.get("/api/client", headers={"Host": "console.example:9083"})).status_code == 200


async def test_a_trusted_proxy_names_client_and_scheme(client: httpx2.AsyncClient) -> None:
    headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 192.0.2.5", "X-Forwarded-Proto": "https"}

    response = await client.get("/api/client", headers=headers)

    assert response.text == "203.0.113.9 https"
    assert "max-age=31536000" in response.headers["Strict-Transport-Security"]


async def test_anybody_else_names_nothing() -> None:
    transport = httpx2.ASGITransport(make_app(), client=("198.51.100.1", 99))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/api/client", headers={"X-Forwarded-For": "203.0.113.9"})

    assert response.text == "198.51.100.1 http"


async def test_a_long_body_is_refused_whether_it_says_so_or_not(client: httpx2.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 50_000

    declared = await client.post("/api/notes", content=b"x" * 1_048_577)
    streamed = await client.post("/api/notes", content=chunks())

    for response in (declared, streamed):
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert (await client.post("/api/echo", content=b"x" * 1_500_000)).text == "1500000"


async def test_an_unknown_field_is_named_and_no_value_repeated(client: httpx2.AsyncClient) -> None:
    response = await client.post("/api/notes", json={"password": ["hunter2"], "role": "admin", "number": "hunter3"})

    problem = response.json()
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert {error["field"] for error in problem["errors"]} == {"password", "role", "number"}
    assert "hunter" not in response.text
    assert problem["request_id"] == response.headers["X-Request-Id"]


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'{"password": "\\ud800"}'])
async def test_a_body_that_is_no_json_is_a_clear_error(client: httpx2.AsyncClient, body: bytes) -> None:
    response = await client.post("/api/notes", content=body, headers={"Content-Type": "application/json"})

    assert (response.status_code, response.json()["code"]) in {(400, "bad_request"), (422, "invalid")}


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [("missing", 404, "not_found"), ("many", 429, "too_many_requests"), ("audit", 503, "audit_unavailable")],
)
async def test_each_failure_has_its_status_and_code(
    client: httpx2.AsyncClient, kind: str, status: int, code: str
) -> None:
    response = await client.get(f"/api/fail/{kind}")

    assert (response.status_code, response.json()["code"]) == (status, code)
    if status in {429, 503}:
        assert int(response.headers["Retry-After"]) > 0


async def test_a_bug_says_nothing_but_its_request_id(client: httpx2.AsyncClient) -> None:
    response = await client.get("/api/fail/bug")

    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "hunter2" not in response.text


async def test_every_answer_carries_the_security_headers(client: httpx2.AsyncClient) -> None:
    for path in ("/api/client", "/api/fail/missing", "/nowhere"):
        headers = (await client.get(path)).headers
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert (await client.get("/api/client")).headers["Cache-Control"] == "no-store"
