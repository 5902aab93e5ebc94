"""What a route may ask for: the console's parts, the actor, a prepared response."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import Depends, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.export import Turns
from server_monitor.audit.housekeeping import Housekeeping
from server_monitor.audit.verifying import Verifying
from server_monitor.auth import identity, sessions
from server_monitor.auth.actor import Actor, Permission, allows
from server_monitor.auth.login import Logins, Source
from server_monitor.auth.throttle import BROWSER_COOKIE
from server_monitor.db.engine import Database
from server_monitor.errors import Denied, FieldError, Invalid, Unauthenticated
from server_monitor.settings import Settings

if TYPE_CHECKING:
    from server_monitor.api.roster import Roster
    from server_monitor.collect.linux import ProcessUse
    from server_monitor.series.store import History
    from server_monitor.ssh.pool import Pool
    from server_monitor.ssh.vault import Vault
    from server_monitor.tasks.clearing import Rule
    from server_monitor.tasks.dispatch import Dispatcher
    from server_monitor.tasks.judge import Judge
    from server_monitor.tasks.output import Outputs
    from server_monitor.tasks.patience import Patience
    from server_monitor.terminal.desk import Desk
    from server_monitor.terminal.files import Copying
    from server_monitor.terminal.library import Library
    from server_monitor.terminal.searching import Searching

REPLAYS_AT_ONCE = 2
COOKIE = "server_monitor_session"
SECURE_COOKIE = "__Host-server_monitor_session"
# A NUL as JSON writes it; behind an escaped backslash it is only the text of one.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Console:
    """The parts that routes work with. `lifecycle/wiring.py` makes it."""

    settings: Settings
    db: Database
    logins: Logins
    history: "History"
    pool: "Pool"
    vault: "Vault"
    roster: "Roster"
    signer: Signer
    top_processes: "Callable[[str], Sequence[ProcessUse]]"
    housekeeping: Housekeeping
    verifying: Verifying
    judge: "Judge"
    rule: "Rule"
    outputs: "Outputs"
    dispatcher: "Dispatcher"
    patience: "Patience"
    desk: "Desk"
    recordings: "Library"
    recording_search: "Searching"
    copying: "Copying"
    exports: Turns = field(default_factory=Turns)
    replays: Turns = field(default_factory=lambda: Turns(REPLAYS_AT_ONCE, "a replay"))


async def each_once(request: Request) -> None:
    """A route's parameters mean one thing each. Raises Invalid naming those that are given twice: which one counted?"""
    times = Counter(name for name, _ in request.query_params.multi_items())
    twice = [FieldError(name, "is given more than once; give it once") for name, count in times.items() if count > 1]
    if twice:
        raise Invalid(twice)


class Body(BaseModel):
    """A request body: strict about what it knows and refusing what it does not."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _is_storable(cls, value: Any) -> Any:
        # JSON can spell half a character (a lone surrogate), which no database and no answer can carry, and NUL, which
        # PostgreSQL cannot.
        try:
            written = orjson.dumps(value)
        except orjson.JSONEncodeError as error:
            raise ValueError("holds text or numbers that cannot be stored") from error
        if _NUL.search(written):
            raise ValueError("holds a NUL character, which cannot be stored")
        return value


def console(request: Request) -> Console:
    parts: Console = request.app.state.console
    return parts


async def _console(request: Request) -> Console:
    """The same for routes: what is no coroutine is called in another thread, which each request would wait for."""
    return console(request)


async def optional_actor(request: Request) -> Actor | None:
    """Who sends this request, by bearer token or by cookie; None when nobody is logged in.

    Raises Unauthenticated for a token that is not valid, and Denied for a cookie used by another site's page.
    """
    parts = console(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        actor = await identity.by_token(parts.db, token.strip())
        if actor is None:
            raise Unauthenticated("This API token is not valid: it is wrong, expired or revoked.")
        return actor
    cookie = request.cookies.get(cookie_name(request))
    if cookie is None:
        return None
    actor = await identity.by_cookie(parts.db, cookie)
    if actor is not None and request.method not in SAFE_METHODS:
        refuse_foreign_page(request, actor)
    return actor


async def required_actor(actor: Annotated[Actor | None, Depends(optional_actor)]) -> Actor:
    if actor is None:
        raise Unauthenticated("Log in first, or send an API token as `Authorization: Bearer …`.")
    return actor


def _in_utc(at: datetime) -> datetime:
    """A time without a zone is UTC. The first and the last hours of the calendar may be beyond it in UTC."""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise ValueError("is a time before the year 1 or after the year 9999") from None


# A time that is asked for, as every comparison can take it.
InstantParameter = Annotated[datetime, AfterValidator(_in_utc)]
ConsoleDep = Annotated[Console, Depends(_console)]
OptionalActorDep = Annotated[Actor | None, Depends(optional_actor)]
ActorDep = Annotated[Actor, Depends(required_actor)]
# Longer than any password can be; what is longer still is not worth hashing.
PasswordText = Annotated[SecretStr, Field(max_length=1024)]


def require(actor: Actor, permission: Permission) -> None:
    """For what no domain function guards: reads of the console itself."""
    if not allows(actor, permission):
        raise Denied(f"This takes the permission {permission}.")


def cookie_name(request: Request) -> str:
    """Over HTTPS the name itself makes browsers refuse the cookie from anywhere but this host."""
    return SECURE_COOKIE if request.url.scheme == "https" else COOKIE


def source(request: Request) -> Source:
    """Where this request comes from, as the throttle of logins and the list of sessions want to know it."""
    return Source(
        ip=request.client.host if request.client else None,
        user_agent=request.headers.get("user-agent"),
        browser=request.cookies.get(BROWSER_COOKIE),
        session=request.cookies.get(cookie_name(request)),
    )


def refuse_foreign_page(request: Request, actor: Actor) -> None:
    """A change by cookie comes from our own page and carries its CSRF token; anything else is somebody else's page."""
    refuse_foreign_origin(request)
    given = request.headers.get("x-csrf-token", "")
    if actor.session_id is None or not sessions.is_csrf_token(
        console(request).settings.jwt_secret, actor.session_id, given
    ):
        raise Denied("The X-CSRF-Token header is missing or does not belong to this session; reload the page.")


def refuse_foreign_origin(request: Request) -> None:
    """Refuse a request that a browser sends on behalf of another site, by what only browsers set and pages cannot."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    # The scheme is left out: behind a proxy that ends TLS we may see another one than the browser.
    is_own = origin is None or origin.partition("://")[2].lower() == request.headers.get("host", "").lower()
    if not is_own or site not in {None, "same-origin", "none"}:
        raise Denied("This request comes from a page of another site.")


def json_response(value: Any, status: int = 200) -> Response:
    """The value as JSON, encoded once; for lists and whatever else is read often."""
    return encoded_json(orjson.dumps(value), status)


def encoded_json(body: bytes, status: int = 200) -> Response:
    """JSON that is encoded already."""
    return Response(body, status, media_type="application/json")
