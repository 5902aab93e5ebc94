"""Routes for first-run setup, login, logout, and one's own sessions."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import SecretStr

from server_monitor.api.deps import (
    ActorDep,
    Body,
    ConsoleDep,
    OptionalActorDep,
    PasswordText,
    cookie_name,
    json_response,
    refuse_foreign_origin,
    source,
)
from server_monitor.auth import sessions, setup
from server_monitor.auth.actor import Actor, Permission, allows
from server_monitor.auth.login import LoggedIn
from server_monitor.auth.sessions import Session, csrf_token
from server_monitor.auth.throttle import BROWSER_COOKIE, BROWSER_LIFE

router = APIRouter(prefix="/api", tags=["auth"])


class Credentials(Body):
    username: str
    password: PasswordText


class Initialization(Credentials):
    token: SecretStr


@router.get("/setup/status")
async def setup_status(parts: ConsoleDep) -> Response:
    """Whether the first admin has still to be made."""
    async with parts.db.reading() as conn:
        return json_response({"needed": await setup.needed(conn)})


@router.post("/setup/initialize", status_code=201)
async def initialize(body: Initialization, request: Request, parts: ConsoleDep) -> Response:
    """Make the first admin with the token from the console's terminal, once, and log them in."""
    refuse_foreign_origin(request)
    _, logged_in = await setup.initialize(
        parts.db,
        parts.settings.jwt_secret,
        body.token.get_secret_value(),
        body.username,
        body.password.get_secret_value(),
        source=source(request),
    )
    return _logged_in(request, parts.settings.jwt_secret, logged_in, 201)


@router.post("/auth/login")
async def log_in(body: Credentials, request: Request, parts: ConsoleDep) -> Response:
    """Begin a session. 401 `login_failed` for a wrong name or password, 429 for whoever has to wait."""
    refuse_foreign_origin(request)
    logged_in = await parts.logins.login(body.username, body.password.get_secret_value(), source(request))
    return _logged_in(request, parts.settings.jwt_secret, logged_in, 200)


@router.post("/auth/logout", status_code=204)
async def log_out(request: Request, parts: ConsoleDep, actor: OptionalActorDep) -> Response:
    """End this session, and have the browser forget what it kept of it."""
    if actor is not None and actor.session_id is not None:
        async with parts.db.transaction() as conn:
            await sessions.log_out(conn, actor=actor)
    # Not "cookies": the mark of a known browser stays, which protects its user from being locked out.
    response = Response(status_code=204, headers={"Clear-Site-Data": '"cache", "storage"'})
    _set_cookie(response, request, cookie_name(request), "", 0)
    return response


@router.get("/auth/verify")
async def verify(parts: ConsoleDep, actor: ActorDep) -> Response:
    """Who is asking, and what they may do."""
    return json_response(_identity(actor, parts.settings.jwt_secret))


@router.get("/sessions")
async def own_sessions(parts: ConsoleDep, actor: ActorDep) -> Response:
    """Where the actor is logged in."""
    async with parts.db.reading() as conn:
        live = await sessions.own(conn, actor=actor)
    return json_response({"items": [_session(session, actor) for session in live], "next": None})


@router.delete("/sessions/{session_id}", status_code=204)
async def end_session(session_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Log out somewhere else."""
    async with parts.db.transaction() as conn:
        await sessions.end(conn, session_id, actor=actor)
    return Response(status_code=204)


def _logged_in(request: Request, secret: SecretStr, logged_in: LoggedIn, status: int) -> Response:
    response = json_response(_identity(logged_in.started.actor, secret), status)
    lasts_s = int((logged_in.started.expires_at - datetime.now(UTC)).total_seconds())
    _set_cookie(response, request, cookie_name(request), logged_in.started.cookie, lasts_s)
    _set_cookie(
        response, request, BROWSER_COOKIE, logged_in.browser, int(BROWSER_LIFE.total_seconds()), path="/api/auth"
    )
    return response


def _set_cookie(
    response: Response, request: Request, name: str, value: str, max_age_s: int, *, path: str = "/"
) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age_s,
        path=path,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def _identity(actor: Actor, secret: SecretStr) -> dict[str, Any]:
    """A permission held in some group only is listed too; what it holds for is answered server by server."""
    return {
        "user": {"id": actor.id, "name": actor.name, "role": actor.role},
        "permissions": sorted(p for p in Permission if allows(actor, p, actor.group_roles)),
        "csrf_token": csrf_token(secret, actor.session_id) if actor.session_id else None,
    }


def _session(session: Session, actor: Actor) -> dict[str, Any]:
    return {
        "id": session.id,
        "current": session.id == actor.session_id,
        "created_at": session.created_at,
        "last_seen_at": session.last_seen_at,
        "expires_at": session.expires_at,
        "ip": session.ip,
        "user_agent": session.user_agent,
    }
