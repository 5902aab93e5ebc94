"""What commands print: data to stdout, words to stderr, and an exit code that means something."""

import asyncio
import io
import os
import pwd
import select
import stat
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TextIO, TypeVar

import orjson
import typer
from typer.core import TyperCommand

from server_monitor.auth.actor import Actor, os_user
from server_monitor.errors import Conflict, Failure, Invalid, Unavailable

if TYPE_CHECKING:
    from server_monitor.db.engine import Database
    from server_monitor.settings import Settings

FAILED = 1
NEEDS_DECISION = 2
WRONG_USAGE = 3

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Workplace:
    """What an administrative command works with: the same settings and database as the console."""

    settings: "Settings"
    db: "Database"
    actor: Actor


class _Whole(io.FileIO):
    """An open file that takes all that it is given, or raises OSError."""

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size_bytes = len(left)
        while left:
            written = super().write(left)
            if written is None:  # Somebody has made it one that does not wait, and it is full.
                select.select([], [self], [])
            left = left[written or 0 :]
        return size_bytes


def whole(stream: TextIO) -> TextIO:
    """The same stream, of which no byte is lost.

    Python passes on how much a write has taken, and nothing looks at that when it runs unbuffered: what a full disk or
    a pipe that does not wait has left over was gone, and the command said that it was done.
    """
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    file = _Whole(stream.fileno(), "wb", closefd=False)
    is_unbuffered = isinstance(stream.buffer, io.RawIOBase)
    return io.TextIOWrapper(
        file if is_unbuffered else io.BufferedWriter(file),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def require_free(path: Path, *, force: bool) -> None:
    """Nothing that somebody has kept is replaced unasked. Raises Conflict and Unavailable.

    A pipe or a device is no such thing: it is written to as it is.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}.") from error
    if stat.S_ISDIR(mode):
        raise Unavailable(f"{path} cannot be written: it is a directory.")
    if stat.S_ISREG(mode) and not force:
        raise Conflict(f"{path} is there already; give another name, or replace it with --force.")


@contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file for its owner alone that bears its name only when it is whole and on the disk; see `require_free`.

    Raises Conflict and Unavailable.
    """
    require_free(path, force=force)
    try:
        if path.exists() and not path.is_file():
            with open(path, "wb", opener=_as_it_is) as file:
                yield file
            return
        place = path.resolve() if force else path  # A link to a file goes on being one.
        descriptor, half = mkstemp(".part", f"{place.name}.", place.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _name(Path(half), place, force=force)
        finally:
            Path(half).unlink(missing_ok=True)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}.") from error


def _as_it_is(path: str, flags: int) -> int:
    """Neither made nor emptied."""
    return os.open(path, flags & ~(os.O_CREAT | os.O_TRUNC))


def _name(half: Path, path: Path, *, force: bool) -> None:
    if force:
        half.rename(path)
        return
    try:
        path.hardlink_to(half)  # Unlike a rename this replaces nothing that came meanwhile.
    except FileExistsError:
        raise Conflict(f"{path} is there by now; nothing was written.") from None
    except OSError:  # A file system without links.
        require_free(path, force=False)
        half.rename(path)


def emit(value: Any) -> None:
    """Print a value as JSON for a machine."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode() + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str = "Nothing here yet.") -> None:
    """Print rows for a person: as wide as the terminal, or tab-separated whole cells into a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write("\t".join(harmless(cell) for cell in row) + "\n")
        return
    if not rows:
        say(empty)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(*columns, box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for row in rows:
        grid.add_row(*(Text(harmless(cell), overflow="fold") for cell in row))
    Console().print(grid)


def record(fields: Mapping[str, str]) -> None:
    """Print one thing for a person, a field a line."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        sys.stdout.write(f"{name:<{width}}  {harmless(value)}\n")


def say(words: str) -> None:
    """Tell a person something, beside the data."""
    sys.stderr.write(harmless(words, keep="\n") + "\n")


def fail(words: str, code: int = FAILED) -> NoReturn:
    say(words)
    raise typer.Exit(code)


def counted(count: int, noun: str) -> str:
    """`1 server`, `1,000 servers`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def harmless(text: str, keep: str = "") -> str:
    """The text with control and direction-changing characters written out, so that no name can drive a terminal."""
    return "".join(c if c.isprintable() or c in keep else f"\\u{ord(c):04x}" for c in text)


def name_and_value(text: str) -> tuple[str, str]:
    """What a `--filter NAME=VALUE` says."""
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--filter")
    return name, value


class ArchiveCommand(TyperCommand):
    """A command whose `--archive [URL]` may stand alone: then the places that the log itself names are meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        following = [*args[1:], "--"]
        alone = [arg == "--archive" and after.startswith("-") for arg, after in zip(args, following, strict=True)]
        return super().parse_args(ctx, ["--archive=" if is_it else arg for arg, is_it in zip(args, alone, strict=True)])


def is_interactive() -> bool:
    """Is a person there to be asked?"""
    return sys.stdin.isatty() and sys.stderr.isatty()


def require_consent(question: str, *, unasked: str, declined: str) -> None:
    """Go on only when the person at the terminal says yes.

    Exits 2 with `unasked` when nobody is there to be asked, 1 with `declined` when they say no.
    """
    if not is_interactive():
        fail(unasked, NEEDS_DECISION)
    if not typer.confirm(question, err=True):
        fail(declined)


def run(
    work: Callable[[], Coroutine[Any, Any, Result]],
    runner: Callable[[Coroutine[Any, Any, Result]], Result] = asyncio.run,
    *,
    when_invalid: int = FAILED,
) -> Result:
    """Run a command's work, turning what a caller can act on into words and an exit code.

    `when_invalid` is WRONG_USAGE where only the command's own options can be wrong.
    """
    try:
        return runner(work())
    except Invalid as error:
        for mistake in error.errors:
            line = "" if mistake.line is None else f"line {mistake.line}: "
            say(f"{line}{mistake.field}: {mistake.message}")
        raise typer.Exit(when_invalid) from None
    except Failure as error:
        fail(str(error))


@asynccontextmanager
async def workplace(data_dir: Path | None = None, *, prepared: bool = True) -> AsyncIterator[Workplace]:
    """The console's database; every record made in it names the person at the shell.

    Unless `prepared` is false, SQLite is brought to this version first, and PostgreSQL required to be at it.
    """
    from server_monitor.db import migrate
    from server_monitor.db.engine import Database
    from server_monitor.lifecycle.instance import instance_id
    from server_monitor.settings import Settings
    from server_monitor.telemetry.logs import RequestContext, request_context, set_up_logs

    settings = Settings.load(data_dir=data_dir)
    set_up_logs(settings.log_format, "WARNING")
    if prepared and (missing := _missing_file(settings.database)) is not None:
        say(f"There was no console with {missing}; it is made now. DATA_DIR says where another one is.")
    db = await Database.open(settings.database, node=instance_id(settings.data_dir))
    request_context.set(RequestContext(str(uuid.uuid4()), "cli"))
    try:
        if prepared:
            await migrate.prepare(db)
        yield Workplace(settings, db, os_user(person()))
    finally:
        await db.close()


def _missing_file(database_url: str) -> Path | None:
    """The file of an SQLite database that does not exist yet."""
    from sqlalchemy import make_url

    url = make_url(database_url)
    if url.get_backend_name() != "sqlite" or url.database is None or Path(url.database).exists():
        return None
    return Path(url.database)


def person() -> str:
    """Who runs the command; behind sudo, the person and not root.

    What anybody can set in their environment is no proof: USER is not looked at, and SUDO_USER only where sudo, or
    somebody who is root anyway, can have set it.
    """
    behind = os.environ.get("SUDO_USER")
    if behind and os.getuid() == 0 and _is_account(behind):
        return behind
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _is_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
