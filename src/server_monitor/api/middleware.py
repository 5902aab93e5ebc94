"""What every request passes before a route sees it, and every response after: plain ASGI, outermost first.

Host check, request id and context, security headers, body limit, metrics.
"""

import re
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_monitor.api import problems
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import RequestContext, logger, request_context

log = logger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
BODY_LIMIT_BYTES = 1024 * 1024
UPLOAD = re.compile(r"/api/servers/[^/]{1,64}/files/content")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
    "require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
)

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
}
STRICT_TRANSPORT = "max-age=31536000; includeSubDomains"


@dataclass(frozen=True, slots=True)
class Edge:
    """What is known about the way requests come in. `body_limits` are bytes by path, where they differ.

    `upload_limit_bytes` is for files that are copied to servers, which are not read into memory.
    """

    proxies: Sequence[IPv4Network | IPv6Network]
    hosts: Collection[str]
    body_limits: Mapping[str, int]
    upload_limit_bytes: int = BODY_LIMIT_BYTES

    def body_limit(self, method: str, path: str) -> int:
        if method == "PUT" and UPLOAD.fullmatch(path):
            return self.upload_limit_bytes
        return self.body_limits.get(path, BODY_LIMIT_BYTES)


class EdgeMiddleware:
    """Gives each request its id and context, refuses what is malformed, and dresses each response."""

    def __init__(self, app: ASGIApp, edge: Edge) -> None:
        self._app = app
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        _believe_proxy(scope, headers, self._edge.proxies)
        context = _context(scope, headers)
        token = request_context.set(context)
        try:
            if scope["type"] == "websocket":
                await self._websocket(scope, receive, send, headers, context)
            else:
                await self._http(scope, receive, send, headers, context)
        finally:
            request_context.reset(token)

    async def _websocket(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, context: RequestContext
    ) -> None:
        async def marked(message: Message) -> None:
            if message["type"] in {"websocket.accept", "websocket.http.response.start"}:
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["X-Request-Id"] = context.request_id
            await send(message)

        if self._is_known_host(headers):
            await self._app(scope, receive, marked)
            return
        await _unknown_host(scope, receive, marked)

    async def _http(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, context: RequestContext
    ) -> None:
        started_s = time.perf_counter()
        status = 500
        responded = False

        async def dressed(message: Message) -> None:
            nonlocal status, responded
            if message["type"] == "http.response.start":
                status = message["status"]
                responded = True
                _dress(message, context, scope)
            await send(message)

        limit = self._edge.body_limit(scope["method"], scope["path"])
        try:
            if not self._is_known_host(headers):
                await _unknown_host(scope, receive, dressed)
            elif _declared_length(headers) > limit:
                await _too_large(limit)(scope, receive, dressed)
            else:
                await self._app(scope, _limited(receive, limit), dressed)
        except Exception:
            log.exception("request_failed", method=scope["method"], route=_route(scope))
            if responded:
                raise
            response = problems.problem(
                500, "internal", "Something went wrong here; the request id finds it in the logs."
            )
            await response(scope, receive, dressed)
        finally:
            metrics.http_requests.labels(scope["method"], _route(scope), status).inc()
            metrics.http_seconds.labels(_route(scope)).observe(time.perf_counter() - started_s)

    def _is_known_host(self, headers: Headers) -> bool:
        """A page of another site whose name was pointed at us (DNS rebinding) still sends that name."""
        host = headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return name in LOOPBACK_NAMES or name in self._edge.hosts or "*" in self._edge.hosts


def _believe_proxy(scope: Scope, headers: Headers, proxies: Sequence[IPv4Network | IPv6Network]) -> None:
    """Take client and scheme from a proxy that the operator trusts; from anybody else they are only remembered."""
    forwarded = [part.strip() for part in headers.get("x-forwarded-for", "").split(",") if part.strip()]
    scope["came_through_proxy"] = bool(forwarded) or "forwarded" in headers
    client = scope.get("client")
    if not forwarded or client is None or not _is_within(client[0], proxies):
        return
    # The nearest address that is not one of our proxies; what stands left of it is whatever the client wrote.
    nearest = next((part for part in reversed(forwarded) if not _is_within(part, proxies)), forwarded[0])
    if _is_address(nearest):
        scope["client"] = (nearest, 0)
    if headers.get("x-forwarded-proto") == "https":
        scope["scheme"] = "wss" if scope["type"] == "websocket" else "https"


def _is_within(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return _is_address(address) and any(ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _context(scope: Scope, headers: Headers) -> RequestContext:
    given = headers.get("x-request-id", "")
    client = scope.get("client") or (None, None)
    return RequestContext(
        request_id=given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4()),
        via="ws" if scope["type"] == "websocket" else "api" if "authorization" in headers else "web",
        ip=client[0],
        port=client[1],
        user_agent=headers.get("user-agent"),
        method=scope.get("method"),
    )


def _route(scope: Scope) -> str:
    """The route's template; never the raw path, which anybody can make up."""
    return getattr(scope.get("route"), "path", None) or "unknown"


def _dress(message: Message, context: RequestContext, scope: Scope) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Request-Id"] = context.request_id
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    if scope["scheme"] == "https":
        headers["Strict-Transport-Security"] = STRICT_TRANSPORT
    if scope["path"].startswith("/api/"):
        headers.setdefault("Cache-Control", "no-store")


def _declared_length(headers: Headers) -> int:
    declared = headers.get("content-length", "0")
    return int(declared) if declared.isdecimal() else 0


def _limited(receive: Receive, limit: int) -> Receive:
    """The same body, cut off with 413 once it is longer than it may be."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"The body is longer than {limit} bytes.")
        return message

    return limited


def _too_large(limit: int) -> ASGIApp:
    return problems.problem(
        413, "body_too_large", f"The body is longer than {limit} bytes.", headers={"Connection": "close"}
    )


async def _unknown_host(scope: Scope, receive: Receive, send: Send) -> None:
    refusal = problems.problem(
        421, "unknown_host", "The console does not answer to this name; add it to ALLOWED_HOSTS if it should."
    )
    if scope["type"] == "websocket":
        await send({"type": "websocket.http.response.start", "status": 421, "headers": refusal.raw_headers})
        await send({"type": "websocket.http.response.body", "body": bytes(refusal.body)})
        return
    await refusal(scope, receive, send)
