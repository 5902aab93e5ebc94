"""`server-monitor recording`: what was recorded in terminals, whether it still is as it was, and how to take it out."""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer

from server_monitor.cli.output import (
    FAILED,
    Workplace,
    counted,
    emit,
    fail,
    record,
    run,
    say,
    table,
    workplace,
)
from server_monitor.errors import Gone

if TYPE_CHECKING:
    from server_monitor.terminal.library import Library, Verification

app = typer.Typer(no_args_is_help=True)

NOT_HERE: Final = 3

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id, from `recording list`.")]

COLUMNS = ("id", "user_name", "server_name", "account", "status", "cause", "reason", "started_at", "finished_at")
NUMBERS = ("recording", "recording_bytes", "output_bytes", "chunks", "verified_at", "archived_at")


class Form(StrEnum):
    """asciicast v3 or v2, for any player, or the text that was to be read."""

    V3 = "v3"
    V2 = "v2"
    TEXT = "text"


@app.command("list")
def list_recordings(
    server: Annotated[str, typer.Option("--server", metavar="NAME", help="Only of this server; its name or id.")] = "",
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="Only of this person; their name or id.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Recordings, newest first, and what is known of each."""

    async def work() -> list[dict[str, Any]]:
        async with workplace() as place:
            rows = await _rows(place, server, user, limit)
        return [{name: getattr(row, name) for name in (*COLUMNS, *NUMBERS)} for row in rows]

    found = run(work)
    if as_json:
        emit({"items": found})
        return
    table(
        ("SESSION", "STARTED AT", "WHO", "SERVER", "SESSION IS", "RECORDING IS", "BYTES"),
        [
            (
                one["id"],
                f"{one['started_at']:%Y-%m-%d %H:%M:%S}",
                one["user_name"],
                one["server_name"],
                one["status"],
                one["recording"],
                str(one["recording_bytes"]),
            )
            for one in found
        ],
        empty="Nothing has been recorded yet.",
    )


@app.command()
def verify(session_id: SessionId, as_json: AsJson = False) -> None:
    """Hold a recording against the audit log: exit 0 when nothing is wrong with it, 1 when it is damaged or missing,
    3 when it is in the archive only.
    """

    async def work() -> "Verification":
        async with workplace() as place, _library(place) as library:
            try:
                return await library.verify(session_id, actor=place.actor)
            except Gone as gone:
                fail(str(gone), NOT_HERE)

    found = run(work)
    if as_json:
        emit(
            {
                "session_id": session_id,
                "verdict": found.verdict,
                "findings": [{"code": one.code, "message": one.sentence, "chunk": one.chunk} for one in found.findings],
                "chunks": found.chunks,
                "head": found.head.hex(),
                "bytes": found.size_bytes,
            }
        )
    else:
        record({"verdict": found.verdict, "chunks": str(found.chunks), "head": found.head.hex()})
        for finding in found.findings:
            say(finding.sentence)
    raise typer.Exit(FAILED if found.is_alarming else 0)


@app.command()
def export(
    session_id: SessionId,
    form: Annotated[Form, typer.Option("--format", help="asciicast v3 or v2 for any player, or text.")] = Form.V3,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here instead of to standard output.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take a recording out; of a session that runs, what is on disk so far. Exit 1 when it is damaged."""
    if as_json and output is None:
        raise typer.BadParameter("needs --output: the recording itself goes to standard output", param_hint="--json")

    async def work() -> int:
        async with workplace() as place, _library(place) as library:
            shown = await library.show(session_id, form.value, "recording.export", actor=place.actor)
            size_bytes = 0
            with _opened(output) as file:
                async for piece in shown.pieces():
                    file.write(piece)
                    size_bytes += len(piece)
            if shown.is_damaged:
                fail("The recording is damaged, as `recording verify` says; what could be read of it was written.")
            return size_bytes

    try:
        size_bytes = run(work)
    except BrokenPipeError:
        # Whoever read has gone; so that nothing is written to them at exit either:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except OSError as error:
        fail(f"{output or 'Standard output'} cannot be written: {error.strerror}.")
    if as_json:
        emit({"session_id": session_id, "format": form.value, "path": str(output), "bytes": size_bytes})
    else:
        say(f"{counted(size_bytes, 'byte')} written.")


@asynccontextmanager
async def _library(place: Workplace) -> "AsyncIterator[Library]":
    from server_monitor.lifecycle.shelves import library_of

    library = library_of(place.settings, place.db)
    try:
        yield library
    finally:
        library.close()


async def _rows(place: Workplace, server: str, user: str, limit: int) -> list[Any]:
    from sqlalchemy import or_, select

    from server_monitor.db.tables import terminal_sessions as sessions

    c = sessions.c
    wanted = select(sessions).where(c.started_at.is_not(None))
    if server:
        wanted = wanted.where(or_(c.server_name == server, c.server_id == server))
    if user:
        wanted = wanted.where(or_(c.user_name == user, c.user_id == user))
    async with place.db.reading() as conn:
        found = await conn.execute(wanted.order_by(c.created_at.desc(), c.id.desc()).limit(limit))
        return list(found)


@contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that only its owner may read."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        yield file
