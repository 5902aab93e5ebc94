"""`/ws/terminal/{session}`: who may open it, the ticket, and the frames both ways.

A browser shows its cookie and must come from our own pages. A program shows a bearer token, or only the ticket that one
asked for. The ticket comes in the first frame and never in an address, which logs and other sites would see.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from server_monitor.auth import handshake
from server_monitor.auth.actor import Actor
from server_monitor.auth.bucket import Bucket
from server_monitor.auth.handshake import Refusal
from server_monitor.errors import TooMany, Unavailable
from server_monitor.telemetry.logs import logger
from server_monitor.terminal import frames
from server_monitor.terminal.bridge import POLICY_VIOLATION, Bridge, Close, Link
from server_monitor.terminal.desk import Desk
from server_monitor.terminal.sessions import TicketRefused

TRY_AGAIN_LATER = 1013

log = logger(__name__)

Authenticate = Callable[[str | None, str | None], Awaitable[Actor | None]]
"""cookie, bearer token -> who it is."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Bounds of a socket. A resize costs one token of a bucket that refills `resizes_per_second`."""

    cookie_names: tuple[str, ...] = ("server_monitor_session",)
    allowed_origins: frozenset[str] = frozenset()
    sockets: int = 4_000
    ticket_timeout_s: float = 10.0
    send_timeout_s: float = 30.0
    resizes_burst: int = 100
    resizes_per_second: float = 20.0


class Terminals:
    """The endpoint. `serve` handles one socket."""

    def __init__(self, desk: Desk, authenticate: Authenticate, rules: Rules | None = None) -> None:
        self._desk = desk
        self._authenticate = authenticate
        self._rules = rules or Rules()
        self._sockets = 0

    async def serve(self, socket: WebSocket) -> None:
        """Handle one socket from its handshake to its end."""
        admitted = await self._admit(socket)
        if isinstance(admitted, Refusal):
            await socket.send_denial_response(_problem(admitted))
            return
        self._sockets += 1
        try:
            await socket.accept()
            with suppress(WebSocketDisconnect):
                await self._attend(socket, admitted)
        finally:
            self._sockets -= 1

    async def _admit(self, socket: WebSocket) -> Actor | Refusal | None:
        """Who opens it; None for a program that has only a ticket."""
        headers = socket.headers
        bearer = handshake.bearer(headers.get("authorization"))
        cookie = next((socket.cookies[name] for name in self._rules.cookie_names if name in socket.cookies), None)
        is_browser = bearer is None and (cookie is not None or "origin" in headers)
        if is_browser and not handshake.is_own_page(
            headers.get("origin"), headers.get("host", ""), self._rules.allowed_origins
        ):
            return handshake.FOREIGN_PAGE
        if self._sockets >= self._rules.sockets:
            return Refusal(503, "unavailable", "This console has as many terminal sockets as it may have.")
        if not is_browser and bearer is None:
            return None
        try:
            actor = await self._authenticate(cookie if bearer is None else None, bearer)
        except Unavailable as error:
            return Refusal(503, error.code, str(error))
        return actor or handshake.NOT_LOGGED_IN

    async def _attend(self, socket: WebSocket, actor: Actor | None) -> None:
        try:
            async with asyncio.timeout(self._rules.ticket_timeout_s):
                shown = await _first_frame(socket)
            bridge, link = await self._desk.attach(
                socket.path_params["session_id"], shown.ticket, shown.have, actor=actor
            )
        except TimeoutError:
            await _say(socket, Close(POLICY_VIOLATION, "no ticket"))
        except frames.MalformedError as error:
            await _say(socket, Close(POLICY_VIOLATION, str(error)))
        except TicketRefused:
            sentence = "This ticket was used, is too old, or is not for this session: ask for another one."
            await _say(socket, Close(POLICY_VIOLATION, "ticket", frames.closed("ticket", sentence, None)))
        except (TooMany, Unavailable) as error:
            await _say(socket, Close(TRY_AGAIN_LATER, error.code, frames.closed(error.code, str(error), None)))
        else:
            try:
                await self._talk(socket, bridge, link)
            finally:
                bridge.detach(link)

    async def _talk(self, socket: WebSocket, bridge: Bridge, link: Link) -> None:
        """Read and write until either side has finished; the other then has nothing left to do."""
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(socket, bridge, link))
            writing = tasks.create_task(self._write(socket, bridge, link))
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            writing.cancel()

    async def _write(self, socket: WebSocket, bridge: Bridge, link: Link) -> None:
        try:
            while not isinstance(item := await bridge.next(link), Close):
                async with asyncio.timeout(self._rules.send_timeout_s):
                    await (socket.send_bytes(item) if isinstance(item, bytes) else socket.send_text(item))
        except TimeoutError:
            log.info("terminal_reader_stalled", session_id=bridge.session.id)
        except WebSocketDisconnect:
            pass
        else:
            await _say(socket, item)

    async def _read(self, socket: WebSocket, bridge: Bridge, link: Link) -> None:
        """Take frames until the browser is gone. One that breaks the rules is sent away, and the session goes on."""
        resizes = Bucket(self._rules.resizes_burst, self._rules.resizes_per_second)
        try:
            while (received := await socket.receive())["type"] == "websocket.receive":
                data = received.get("bytes")
                if data is not None:
                    await bridge.typed(link, data)
                    continue
                frame = frames.parse(received["text"])
                _require_few(frame, resizes)
                bridge.obey(link, frame)
        except frames.MalformedError as error:
            link.end(Close(POLICY_VIOLATION, str(error)))
        except TimeoutError:
            link.end(Close(TRY_AGAIN_LATER, "the host takes no input"))
        else:
            return
        await asyncio.Event().wait()  # The writer closes, and ends this.


def _require_few(frame: frames.Frame, resizes: Bucket) -> None:
    """Raises MalformedError."""
    if isinstance(frame, frames.Resize) and not resizes.take():
        raise frames.MalformedError("too many sizes")


async def _first_frame(socket: WebSocket) -> frames.Show:
    """Raises MalformedError for anything but a ticket, and WebSocketDisconnect."""
    received = await socket.receive()
    if received["type"] != "websocket.receive":
        raise WebSocketDisconnect
    text = received.get("text")
    frame = frames.parse(text) if text is not None else None
    if not isinstance(frame, frames.Show):
        raise frames.MalformedError("the first frame is the ticket")
    return frame


async def _say(socket: WebSocket, close: Close) -> None:
    """The last words, and the end of the socket."""
    with suppress(WebSocketDisconnect, TimeoutError):
        async with asyncio.timeout(5):
            if close.message is not None:
                await socket.send_text(close.message)
            await socket.close(close.code, close.reason)


def _problem(refusal: Refusal) -> JSONResponse:
    return JSONResponse(refusal.problem(), refusal.status, media_type="application/problem+json")
