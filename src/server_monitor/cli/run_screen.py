"""What a person sees of a run: output as it comes, prefixed where there are several servers, or grouped at the end."""

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

from sqlalchemy import Row

from server_monitor.cli.output import Workplace, harmless, say
from server_monitor.tasks import listing
from server_monitor.tasks.causes import CAUSES
from server_monitor.tasks.output import READ_BYTES, STREAMS, Outputs
from server_monitor.tasks.run import OPEN, Status

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

FEW: Final = 12  # servers whose output is shown as it comes; of more it is grouped at the end
NAMES_SHOWN: Final = 8
LINE_MAX_BYTES: Final = 65_536

Task = Row[Any]


class Screen(AbstractContextManager["Screen"]):
    """Shows one run. With `is_silent` nothing, because a document follows."""

    def __init__(self, names: Sequence[str], *, is_silent: bool = False) -> None:
        self.is_live = len(names) <= FEW and not is_silent
        self._names = names
        self._is_silent = is_silent
        self._progress: Progress | None = None
        self._bar: TaskID | None = None

    def __enter__(self) -> Self:
        if not self.is_live and not self._is_silent and sys.stderr.isatty():
            self._progress, self._bar = _progress(len(self._names))
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def moved(self, tasks: Sequence[Task]) -> None:
        """Show how far it is."""
        if self._progress is None or self._bar is None:
            return
        over = [task for task in tasks if task.status not in OPEN]
        failed = sum(task.status != Status.SUCCESS for task in over)
        running = sum(task.status == Status.RUNNING for task in tasks)
        words = f"{running} running" + (f", {failed} without success" if failed else "")
        self._progress.update(self._bar, completed=len(over), words=words)

    def writers(self, name: str) -> Mapping[str, "Writer"]:
        """Where the streams of one server go."""
        width = max(map(len, self._names))
        prefix = f"{name:<{width}} | " if len(self._names) > 1 else ""
        return {"stdout": Writer(sys.stdout, prefix), "stderr": Writer(sys.stderr, prefix)}


class Writer:
    """Writes what a server printed: byte for byte into a pipe or a file, and harmless on a terminal."""

    def __init__(self, to: TextIO, prefix: str = "") -> None:
        self._to = to
        self._prefix = harmless(prefix).encode()
        self._is_terminal = to.isatty()
        self._begun = b""

    def write(self, data: bytes) -> None:
        if not self._prefix:
            self._put(data)
            return
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > LINE_MAX_BYTES:
            lines, self._begun = [*lines, self._begun], b""
        self._put(b"".join(self._prefix + line + b"\n" for line in lines))

    def end(self) -> None:
        """Write the last line, which had no end."""
        if self._begun:
            self.write(b"\n")

    def _put(self, data: bytes) -> None:
        if not data:
            return
        try:
            if self._is_terminal:
                self._to.write(harmless(data.decode("utf-8", "replace"), keep="\n\t"))
            else:
                self._to.flush()
                self._to.buffer.write(data)
            self._to.flush()
        except BrokenPipeError:
            # Nobody reads any more, as behind `| head`. The run goes on, and its exit status still tells.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._to.fileno())


async def show_stored(
    place: Workplace,
    outputs: Outputs,
    task: Task,
    writers: Mapping[str, Writer],
    shown: dict[str, int] | None = None,
    *,
    streams: Sequence[str] = STREAMS,
) -> None:
    """Write all that is kept of what a task printed, behind the bytes that have been shown already, and count them."""
    counts = dict.fromkeys(STREAMS, 0) if shown is None else shown
    for stream in streams:
        async for data in stored(place, outputs, task.id, stream, counts[stream]):
            writers[stream].write(data)
            counts[stream] += len(data)
    for writer in writers.values():
        writer.end()


async def stored(
    place: Workplace, outputs: Outputs, task_id: str, stream: str, offset: int = 0
) -> AsyncIterator[bytes]:
    """What is kept of a stream from `offset` on: from its file where there is one, else from the database."""
    async with place.db.reading() as conn:
        kept = await listing.output(conn, task_id)
    if kept is None:
        return
    head: bytes = getattr(kept, stream)
    total: int = getattr(kept, f"{stream}_bytes")
    path = outputs.path(task_id, stream)
    if total <= len(head) or not path.exists():
        yield head[offset:]
        missing = total - max(offset, len(head))
        if missing > 0:
            say(f"{missing:,} more bytes of {stream} are kept by another console.")
        return
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(READ_BYTES):
            yield data


async def show_grouped(place: Workplace, run_id: str) -> None:
    """Write what the servers of a run printed, equal outputs once, the most frequent first."""
    async with place.db.reading() as conn:
        tasks = await listing.same_outputs(conn, run_id, actor=place.actor)
        groups: dict[tuple[object, ...], list[Task]] = {}
        for task in tasks:
            groups.setdefault((task.status, task.exit_code, task.cause, task.digest), []).append(task)
        for group in sorted(groups.values(), key=len, reverse=True):
            kept = await listing.output(conn, group[0].id)
            _show_group(group, {stream: getattr(kept, stream) if kept else b"" for stream in STREAMS})


def _show_group(group: Sequence[Task], heads: Mapping[str, bytes]) -> None:
    sys.stdout.write(harmless(f"== {_called(group)}: {outcome(group[0])}") + "\n")
    for stream, to in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        writer, head = Writer(to), heads[stream]
        writer.write(head if head.endswith(b"\n") or not head else head + b"\n")
        if (group[0]._mapping[f"{stream}_bytes"] or 0) > len(head) > 0:
            say(f"({stream} is longer; read all of it with `server-monitor runs output --server NAME`)")


def _called(group: Sequence[Task]) -> str:
    names = [task.server_name for task in group]
    if len(names) == 1:
        return str(names[0])
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names):,} servers alike ({', '.join(names[:NAMES_SHOWN])}{more})"


def summarise(run_id: str, tasks: Sequence[Task]) -> None:
    """Tell how a run ended, and each server where it did not succeed."""
    failed = [task for task in tasks if task.status != Status.SUCCESS]
    if len(tasks) <= FEW:
        for task in failed:
            say(f"{task.server_name}: {outcome(task)}")
    counts = {status: sum(task.status == status for task in tasks) for status in Status}
    words = ", ".join(f"{count:,} {status.value.replace('_', ' ')}" for status, count in counts.items() if count)
    if len(tasks) > 1 or failed:
        say(f"{words}. Run {run_id}")


def outcome(task: Task) -> str:
    """How a task stands, in words."""
    words = str(task.status).replace("_", " ")
    if task.status == Status.RUNNING and task.cancel_requested_at is not None:
        words += ", and told to end"
    if task.exit_code:
        words += f", exit status {task.exit_code}"
    if task.cause and task.cause != "exit_status":
        words += f". {CAUSES.get(task.cause, task.cause)}"
    return words + (f" ({task.detail})" if task.detail else "")


def _progress(total: int) -> "tuple[Progress, TaskID]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    return progress, progress.add_task("", total=total, words="")
