"""Routes for files on servers: look into a directory, download, upload.

A path is any bytes, percent-encoded in the query. Answers hold it as text for people, and as `encoded` to be sent
back.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import override

from server_monitor.api import problems
from server_monitor.api.deps import ActorDep, ConsoleDep, json_response
from server_monitor.errors import Failure
from server_monitor.ssh.files import PIECE_BYTES, Entry
from server_monitor.telemetry.logs import logger
from server_monitor.terminal.files import shown

log = logger(__name__)
router = APIRouter(prefix="/api/servers/{server_id}/files", tags=["files"])


async def _exact_path(
    request: Request, path: Annotated[str, Query(description="Any bytes, percent-encoded.", max_length=16_384)] = "."
) -> bytes:
    """The exact bytes of the query's path, which as text could not hold them all; the account's home without one."""
    query: bytes = request.scope["query_string"]
    values = [part.partition(b"=")[2] for part in query.split(b"&") if part.startswith(b"path=")]
    return unquote_to_bytes(values[0].replace(b"+", b" ")) if values else path.encode()


ExactPath = Annotated[bytes, Depends(_exact_path)]


@router.get("")
async def list_files(server_id: str, path: ExactPath, parts: ConsoleDep, actor: ActorDep) -> Response:
    """What is in a directory."""
    found = await parts.copying.listing(server_id, path, actor=actor)
    items = [_entry(found.path, entry) for entry in found.entries]
    return json_response({**shown(found.path), "items": items, "is_complete": found.is_complete})


@router.get("/content")
async def download_file(server_id: str, path: ExactPath, parts: ConsoleDep, actor: ActorDep) -> Response:
    """The bytes of a file. Recorded before the first of them, and again with their SHA-256 when they have gone."""
    stack = AsyncExitStack()
    download = await stack.enter_async_context(parts.copying.download(server_id, path, actor=actor))
    length = {} if download.size_bytes is None else {"Content-Length": str(download.size_bytes)}
    headers = {
        **length,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote_from_bytes(download.name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return _Copied(stack, download.pieces, headers)


@router.put("/content", status_code=201)
async def upload_file(
    server_id: str, path: ExactPath, request: Request, parts: ConsoleDep, actor: ActorDep, *, replace: bool = False
) -> Response:
    """Put the body into a file, all of it or nothing. 409 when there is one and it is not to be replaced."""
    declared = request.headers.get("content-length", "")
    expected = int(declared) if declared.isdecimal() else None
    try:
        done = await parts.copying.upload(
            server_id, path, _gathered(request.stream()), expected, replace=replace, actor=actor
        )
    except ClientDisconnect:
        return problems.problem(400, "bad_request", "The upload was cut off.")
    return json_response({**shown(done.path), "bytes": done.size_bytes, "sha256": done.sha256}, 201)


class _Copied(StreamingResponse):
    """A file on its way; however that ends, what it was read by is closed.

    One that is cut off ends without its last bytes, or its last chunk: whoever receives it sees that it is not whole.
    """

    def __init__(self, stack: AsyncExitStack, pieces: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(pieces, headers=headers, media_type="application/octet-stream")
        self._stack = stack

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            async with self._stack:
                await super().__call__(scope, receive, noted)
        except Failure as failure:
            if not has_begun:
                raise
            log.info("download_cut_off", code=failure.code, cause=str(failure))


async def _gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in larger pieces, each of which takes the host one answer."""
    waiting = bytearray()
    async for piece in pieces:
        waiting += piece
        if len(waiting) >= PIECE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _entry(directory: bytes, entry: Entry) -> dict[str, Any]:
    place = directory.rstrip(b"/") + b"/" + entry.name
    return {
        "name": entry.name.decode(errors="backslashreplace"),
        "encoded": quote_from_bytes(place),
        "kind": entry.kind,
        "size_bytes": entry.size_bytes,
        "mode": entry.mode,
        "modified_at": entry.modified_at,
    }
