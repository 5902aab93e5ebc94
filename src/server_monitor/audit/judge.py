"""Verifies a log in a process of its own, so that a console with millions of records goes on answering meanwhile.

`python -m server_monitor.audit.judge` reads one line and answers in lines; it ends when its standard input does::

    {"database": "sqlite:///…", "archives": ["file:///…"], "keys": ["…"]}   in; a URL may hold a password: no argument
    {"records": 20000, "total": 1000000}                                    out, at most a few times a second
    {"report": {…}}                                                         out, or {"failure": "…"}
"""

import base64
import os
import resource
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson

from server_monitor.audit import sources
from server_monitor.audit.note import Verifier
from server_monitor.audit.verify import Report, verify
from server_monitor.errors import Failure

TELL_EVERY_S = 0.25
LOWEST_PRIORITY = 19
MEMORY_LIMIT_BYTES = 2 * 1024**3  # it needs a tenth; a hostile archive must not take the machine


def document(report: Report, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """A report as JSON; `warnings` are more than it has."""
    return {
        "intact": report.is_intact,
        "broken": report.is_broken,
        "verdicts": {aspect.value: verdict.value for aspect, verdict in report.verdicts.items()},
        "first_bad": None if report.first_bad is None else {"first": report.first_bad[0], "last": report.first_bad[1]},
        "findings": [asdict(finding) for finding in report.findings],
        "hidden_findings": report.hidden_findings,
        "warnings": [*warnings, *report.warnings],
        "first_seq": report.first_seq,
        "size": report.size,
        "root": None if report.root is None else base64.b64encode(report.root).decode(),
        "records": report.records,
        "checkpoints": report.checkpoints,
        "trusted_checkpoints": report.trusted_checkpoints,
        "signed_size": report.proven_size,
        "outside_size": report.outside_size,
        "open_from": report.open_from,
        "unreached": report.unreached,
    }


def main() -> None:
    _give_way()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    job = orjson.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_console, daemon=True).start()
    try:
        _tell({"report": document(_judged(job["database"], job["archives"], job["keys"]))})
    except Failure as error:
        _tell({"failure": str(error)})
    except MemoryError:
        _tell({"failure": "It takes more memory than it may have."})


def _give_way() -> None:
    """Only take the time that nobody else wants: a request that wakes the console does not wait for a slice to end."""
    os.nice(LOWEST_PRIORITY)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _judged(database: str, archives: Sequence[str], keys: Sequence[str]) -> Report:
    with sources.opened(database, archives) as log:
        progress = _Progress(log.records)
        progress(0)
        trusted = [Verifier.parse(key) for key in keys]
        now = datetime.now(UTC)
        return verify(
            log.parts, log.notes, outside=log.outside, trusted=trusted, kept=log.kept, now=now, progress=progress
        )


class _Progress:
    """Tells how far it is, now and then."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._next_at_s = 0.0

    def __call__(self, records: int) -> None:
        if time.monotonic() >= self._next_at_s:
            self._next_at_s = time.monotonic() + TELL_EVERY_S
            _tell({"records": records, "total": self._total})


def _tell(said: dict[str, Any]) -> None:
    # However Python was started, this writes all of it: the stream that it has opened may take only a part.
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(orjson.dumps(said) + b"\n")


def _end_with_the_console() -> None:
    """However the console ends, the kernel closes our input, and nobody waits for a verdict any more."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
