"""`server-monitor audit export`: records of the log into a file or a pipe."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from server_monitor.cli.output import FAILED, WRONG_USAGE, emit, fail, new_file, require_free, run, say, workplace

if TYPE_CHECKING:
    from server_monitor.audit.export import Export
    from server_monitor.audit.pages import Pruned
    from server_monitor.audit.whole import WholeExport

Advance = Callable[[int], None]


class Format(StrEnum):
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Where:
    """Where an export goes: a file, or None for standard output. `force` replaces a file that is there."""

    file: Path | None
    force: bool


@dataclass(frozen=True, slots=True)
class Done:
    """What was exported. `pruned` is what it may lack."""

    rows: int
    size_bytes: int
    sha256: str
    unreadable: int  # of the rows
    pruned: "Pruned | None"


def export(  # noqa: PLR0917  # One for each option.
    form: Annotated[Format, typer.Option("--format", help="csv, json, or jsonl: whole records, as they were hashed.")],
    since: Annotated[str | None, typer.Option("--from", help="A time, or a date: from its beginning, UTC.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="A time, not included, or a date: to its end, UTC.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Whose actions.")] = None,
    action: Annotated[str | None, typer.Option(help="Such as auth.login, or a family such as 'auth.*'.")] = None,
    target_type: Annotated[str | None, typer.Option(help="What kind of thing was acted upon.")] = None,
    target_id: Annotated[str | None, typer.Option(help="Which thing was acted upon.")] = None,
    outcome: Annotated[str | None, typer.Option(help="success, failure, denied, error or unknown.")] = None,
    ip: Annotated[str | None, typer.Option(help="Where from.")] = None,
    request_id: Annotated[str | None, typer.Option(help="Through which request.")] = None,
    order: Annotated[str | None, typer.Option(help="asc: oldest first; desc: newest first.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many records at most; all unless set.")] = None,
    archive: Annotated[
        str | None,
        typer.Option(
            metavar="[URL]", help="Together with what was pruned, out of the archive; a URL only if that was moved."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; standard output unless set.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was exported as JSON; with --output.")] = False,
) -> None:
    """Take records out of the audit log; the export itself is recorded in it."""
    options = {
        "from": since,
        "to": until,
        "user_id": user_id,
        "action": action,
        "target_type": target_type,
        "target_id": target_id,
        "outcome": outcome,
        "ip": ip,
        "request_id": request_id,
        "order": order,
    }
    given = {name: text for name, text in options.items() if text is not None}
    if as_json and output is None:
        fail("--json describes a file: name it with --output. Records as JSON: --format json.", WRONG_USAGE)
    try:
        done = run(lambda: _export(form, given, limit, Where(output, force), archive), when_invalid=WRONG_USAGE)
    except BrokenPipeError:
        # Whoever read has gone; so that nothing is written to them at exit either:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except OSError as error:
        fail(f"Standard output cannot be written: {error.strerror}.")
    if as_json:
        emit(
            {"path": str(output), "rows": done.rows, "bytes": done.size_bytes, "sha256": done.sha256, **_lacking(done)}
        )
        return
    say(f"{done.rows:,} records, {done.size_bytes:,} bytes, SHA-256 {done.sha256}.")
    if done.unreadable:
        say(
            f"{done.unreadable:,} of them cannot be read, and their rows say so: the log was tampered with. "
            "Run `audit verify`."
        )
    if done.pruned is not None:
        until = f"{done.pruned.before:%Y-%m-%d %H:%M} UTC"
        say(
            f"The records before {done.pruned.first_seq:,} (until {until}) are only in the archive and not in this "
            "export; --archive adds those that the filters choose."
        )


def _lacking(done: Done) -> dict[str, object]:
    unreadable: dict[str, object] = {"unreadable": done.unreadable} if done.unreadable else {}
    if done.pruned is None:
        return unreadable
    return {**unreadable, "first_seq": done.pruned.first_seq, "pruned_before": done.pruned.before}


async def _export(form: Format, given: dict[str, str], limit: int | None, where: Where, archive: str | None) -> Done:
    from dataclasses import replace

    from server_monitor.audit import checkpoints, export, pages, whole
    from server_monitor.auth.actor import audited

    if where.file is not None:
        require_free(where.file, force=where.force)
    async with workplace() as place:
        settings, actor = place.settings, audited(place.actor)
        wanted = replace(pages.parse(given, form.value, secret=settings.jwt_secret, actor=actor), limit=limit)
        signer = await checkpoints.open_signer(place.db, settings.data_dir)
        if archive is None:
            async with export.started(place.db, signer, settings.jwt_secret, wanted, actor=actor) as running:
                await _write(running, where, running.page.count)
            done = Done(
                running.rows, running.size_bytes, running.digest.hexdigest(), running.unreadable, running.pruned
            )
        else:
            async with whole.started(place.db, signer, wanted, archive or None, actor=actor) as everything:
                await _write(everything, where, None)
            done = Done(
                everything.rows, everything.size_bytes, everything.digest.hexdigest(), everything.unreadable, None
            )
        # So that the log shows from now on that this is what was exported; no console may run that would sign it.
        async with place.db.transaction() as conn:
            await checkpoints.make(conn, signer, "critical", datetime.now(UTC))
    return done


async def _write(running: "Export | WholeExport", where: Where, count: int | None) -> None:
    with _opened(where) as file, _progress(count, to_terminal=where.file is None) as advance:
        async for chunk in running.chunks():
            await asyncio.to_thread(file.write, chunk)
            advance(running.rows)
    running.delivered()


@contextmanager
def _opened(where: Where) -> Iterator[BinaryIO]:
    """Standard output, or a new file."""
    if where.file is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with new_file(where.file, force=where.force) as file:
        yield file


@contextmanager
def _progress(count: int | None, *, to_terminal: bool) -> Iterator[Advance]:
    """A bar for a person who waits, unless the records themselves go to the terminal."""
    if not sys.stderr.isatty() or (to_terminal and sys.stdout.isatty()):
        yield lambda _rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Exporting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=count)
        yield lambda rows: bar.update(task, completed=rows)
