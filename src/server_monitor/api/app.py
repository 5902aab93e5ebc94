"""The HTTP application: the route files, what surrounds them, and the built user interface."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.routing import Match, WebSocketRoute
from starlette.websockets import WebSocket

from server_monitor.api import health, problems, reference
from server_monitor.api.deps import Console
from server_monitor.api.middleware import Edge, EdgeMiddleware
from server_monitor.db.ids import MENTIONED
from server_monitor.errors import FieldError, Invalid, NotFound
from server_monitor.telemetry.logs import request_context

STATIC = Path(__file__).parents[1] / "static"
FOR_EVER = "public, max-age=31536000, immutable"


def make_app(
    console: Console,
    edge: Edge,
    readiness: health.Readiness,
    routers: Sequence[APIRouter],
    sockets: Mapping[str, Callable[[WebSocket], Awaitable[None]]],
) -> FastAPI:
    """The whole application. `sockets` answer WebSockets, by their paths."""
    app = describe(routers)
    app.state.console = console
    app.state.readiness = readiness
    app.router.routes[:0] = [WebSocketRoute(path, answer) for path, answer in sockets.items()]
    app.add_middleware(EdgeMiddleware, edge=edge)
    return app


def describe(routers: Sequence[APIRouter]) -> FastAPI:
    """The routes alone, with nothing behind them: enough for the OpenAPI document."""
    app = FastAPI(
        title="server-monitor",
        version=version("server-monitor"),
        description="Watch servers, work on them, and prove afterwards who did what.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # Those pages load scripts from elsewhere; `reference` is ours.
        redoc_url=None,
        dependencies=[Depends(_know_route), Depends(_refuse_unstorable)],
    )
    problems.install(app)
    for router in (health.router, reference.router, *routers):
        app.include_router(router)
    app.add_api_route(_ANY_OF_THE_API, _no_such_route, include_in_schema=False, methods=_ALL_METHODS)
    app.add_api_route(_ANY_PAGE, _page, include_in_schema=False, methods=["GET", "HEAD"])
    return app


async def _know_route(request: Request) -> None:
    """From here on, logs and audit records name the route's template instead of nothing."""
    context = request_context.get()
    if context is not None:
        request_context.set(replace(context, route=request.scope["route"].path))


async def _refuse_unstorable(request: Request) -> None:
    """PostgreSQL cannot even look for a NUL. A parameter with one is wrong; an id with one is nobody's.

    Raises Invalid naming every such parameter, and NotFound. Bodies are looked at where they are read.
    """
    wrong = {name for name, value in request.query_params.multi_items() if "\0" in value}
    if wrong:
        message = "holds a NUL character, which nothing that is stored does"
        raise Invalid([FieldError(name, message) for name in sorted(wrong)])
    for name, value in request.path_params.items():
        if name.endswith("_id") and "\0" in str(value):
            raise NotFound(name.removesuffix("_id").replace("_", " "), str(value)[:MENTIONED])


_ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_ANY_OF_THE_API = "/api/{path:path}"
_ANY_PAGE = "/{path:path}"
_TAKE_ALL = frozenset({_ANY_OF_THE_API, _ANY_PAGE})


async def _no_such_route(request: Request) -> Response:
    if allowed := _methods_at(request):
        detail = f"{request.method} is not for this; use {' or '.join(allowed)}."
        raise HTTPException(405, detail, headers={"Allow": ", ".join(allowed)})
    raise HTTPException(404, f"There is nothing at {request.url.path}.")


def _methods_at(request: Request) -> list[str]:
    """What this path may be asked with: the router tells a wrong method only where nothing else takes the path."""
    routes = [route for route in request.app.router.routes if getattr(route, "path", None) not in _TAKE_ALL]
    return [
        method
        for method in _ALL_METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


async def _page(path: str) -> Response:
    """A file of the built user interface; for any other path its one page, which knows what to show there."""
    try:
        file = (STATIC / path).resolve()
        is_ours = file.is_relative_to(STATIC) and file.is_file()
    except (OSError, ValueError):
        # Longer than a name of a file can be, or with a NUL in it.
        raise HTTPException(404, "There is no such page.") from None
    if is_ours:
        fresh = FOR_EVER if path.startswith("assets/") else "no-cache"
        return FileResponse(file, headers={"Cache-Control": fresh})
    index = STATIC / "index.html"
    if not index.is_file():
        raise HTTPException(404, "The user interface has not been built: run `make web`.")
    return FileResponse(index, headers={"Cache-Control": "no-cache"})
