"""The commands of the program. Each parses words, calls one function, and prints."""

import errno
import gc
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from typer.exceptions import TyperException

from server_monitor.cli import audit, policy, recording, runs, server, token, user
from server_monitor.cli.lean import lean_imports
from server_monitor.cli.output import FAILED, WRONG_USAGE, emit, fail, run, say, whole, workplace
from server_monitor.cli.run import run_command

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Watch Linux servers every second over plain SSH, work on them, and prove afterwards who did what.",
)
app.add_typer(server.app, name="server", help="The servers that are watched.")
app.command("run")(run_command)
app.add_typer(runs.app, name="runs", help="The commands that were run, and what became of them.")
app.add_typer(recording.app, name="recording", help="What was done in terminals: list it, verify it, take it out.")
app.add_typer(user.app, name="user", help="The people who may log in.")
app.add_typer(audit.app, name="audit", help="The log of who did what: check it, take it out, keep it.")
app.add_typer(policy.app, name="policy", help="The rules for commands: what they say about one, and what they are.")
app.add_typer(token.app, name="token", help="API tokens for programs.")

GARBAGE_AFTER: Final = 25_000  # new objects
_TAKES_NO_MORE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where the console keeps its data.", show_default=False)
]


class Role(StrEnum):
    """Which part of the console a process plays; in this version one process plays all."""

    ALL = "all"
    API = "api"
    TERMINAL = "terminal"
    WEBSOCKET = "websocket"
    WORKER = "worker"


@app.command()
def serve(  # noqa: PLR0917  # Typer's options.
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 unless set.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 9083 unless set, 0 for a free one.")] = None,
    data_dir: DataDir = None,
    allow_plain_http: Annotated[
        bool, typer.Option("--allow-plain-http", help="Listen beyond loopback without TLS in front.")
    ] = False,
    role: Annotated[
        list[Role] | None, typer.Option(help="Only all: this version runs every role in one process.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the console until it is told to stop."""
    if role and set(role) != {Role.ALL}:
        fail("This version runs every role in one process: leave --role out, or say --role all.", WRONG_USAGE)
    # What is imported stays. Looking for garbage in it takes a tenth of the start, and later of each full collection.
    gc.disable()
    with lean_imports():
        from server_monitor.lifecycle.run import serve as serve_console
        from server_monitor.settings import Settings
    gc.freeze()
    # A thousand commands at once are a hundred thousand objects that live: looking for garbage among them after every
    # 700 new ones took an eighth of the event loop.
    gc.set_threshold(GARBAGE_AFTER)
    gc.enable()

    async def work() -> int:
        settings = Settings.load(
            api_host=host, api_port=port, data_dir=data_dir, allow_plain_http=allow_plain_http or None
        )
        return await serve_console(settings, announce=_announce_as_json if as_json else _announce)

    import uvloop

    raise typer.Exit(run(work, runner=uvloop.run))


@app.command()
def migrate(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Bring the database to this version of the program; `serve` does it by itself for SQLite."""
    from server_monitor.db import migrate as migrations

    async def work() -> str | None:
        async with workplace(data_dir, prepared=False) as place:
            before = await migrations.version(place.db)
            await migrations.upgrade(place.db)
            return before

    before = run(work)
    if as_json:
        emit({"version": migrations.HEAD, "from": before})
        return
    came_from = "" if before == migrations.HEAD else f", from {before or 'nothing'}"
    say(f"The database is at version {migrations.HEAD}{came_from}.")


@app.command()
def openapi(as_json: AsJson = True) -> None:  # noqa: ARG001  # The same either way; every command takes it.
    """Print the API's description as an OpenAPI document, which is JSON."""
    from server_monitor.lifecycle.wiring import described

    emit(described().openapi())


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the program's version."""
    from importlib.metadata import version as installed

    found = installed("server-monitor")
    if as_json:
        emit({"version": found})
    else:
        sys.stdout.write(found + "\n")


def main() -> None:
    """The entry point: wrong usage exits 3, where click would say 2, which here means "a decision is asked for"."""
    os.umask(0o077)  # Whatever is written, by libraries too, may hold what is nobody else's business.
    sys.stdout, sys.stderr = whole(sys.stdout), whole(sys.stderr)
    try:
        _require_text(sys.argv[1:])
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        fail_exit("Stopped.", 130)
    except TyperException as error:
        # Choices come one a line, behind tabs.
        fail_exit(" ".join(error.format_message().replace("Value error, ", "").split()), WRONG_USAGE)
    except typer.Exit as stop:
        code = stop.exit_code
        _flush()
    except OSError as error:
        _give_up(error)
    sys.exit(code if isinstance(code, int) else 0)


def _require_text(words: Sequence[str]) -> None:
    """Bytes that are no UTF-8 can be stored nowhere; only a command that is judged may hold them."""
    if list(words[:2]) == ["policy", "check"]:
        return
    for number, word in enumerate(words, 1):
        if not _is_text(word):
            fail_exit(f"Argument {number} is not UTF-8 text: {word!a}", WRONG_USAGE)


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        _give_up(error)


def _give_up(error: OSError) -> NoReturn:
    """End with words when standard output takes no more. Raises every other error again: it names a file."""
    if error.filename is not None or error.errno not in _TAKES_NO_MORE:
        raise error
    # What is left in the buffer would be tried once more at the end, and end in a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:  # Whoever closed a pipe has seen enough.
        say(f"Standard output takes no more: {os.strerror(error.errno or 0)}.")
    sys.exit(FAILED)


def fail_exit(words: str, code: int) -> NoReturn:
    say(words)
    sys.exit(code)


def _announce_as_json(url: str, setup_url: str | None) -> None:
    emit({"url": url, "setup_url": setup_url})
    sys.stdout.flush()


def _announce(url: str, setup_url: str | None) -> None:
    """Tell the person at the terminal where the console is; the only place the setup token is ever shown."""
    if setup_url is None:
        sys.stdout.write(f"\n  server-monitor is running: {url}\n\n")
    else:
        sys.stdout.write(
            f"\n  server-monitor is running. Make the first admin within an hour, with this link (it works once):\n\n"
            f"  {setup_url}\n\n"
        )
    sys.stdout.flush()
