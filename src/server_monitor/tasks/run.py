"""Runs and tasks: a run is one command for some servers, a task is that command on one of them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from server_monitor.errors import FieldError, Invalid
from server_monitor.tasks import secret_names

COMMAND_MAX = 10_000  # characters
TIMEOUT_MAX_S = 86_400
PARALLEL_MAX = 1_000
PARALLEL_DEFAULT = 50
SERVERS_MAX = 10_000  # in one run
REASON_MAX = 1_000
SECRETS_MAX = 16
SECRET_MIN, SECRET_MAX = 4, 4_096  # characters; a shorter one would be masked all over the output
APPROVAL_LASTS = timedelta(minutes=30)


class Status(StrEnum):
    AWAITING_APPROVAL = "awaiting_approval"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    REJECTED = "rejected"
    DENIED = "denied"
    SKIPPED = "skipped"


OPEN = frozenset({Status.AWAITING_APPROVAL, Status.QUEUED, Status.RUNNING})
FAILURES = frozenset({Status.FAILED, Status.TIMEOUT, Status.INTERRUPTED})  # what `max_failures` counts
RETRIED = FAILURES | {Status.CANCELLED, Status.SKIPPED}  # what a retry tries again


class Mode(StrEnum):
    """How a command runs on its host: `wrapped` outlives our connection, `attached` is ended with it."""

    WRAPPED = "wrapped"
    ATTACHED = "attached"


@dataclass(frozen=True, slots=True)
class Order:
    """What a person asks for, apart from where. `max_failures` failed tasks stop the run; None: nothing does.

    `secrets` are variables of the command's environment whose values appear nowhere else.
    """

    command: str
    timeout_s: int
    max_parallel: int = PARALLEL_DEFAULT
    max_failures: int | None = None
    canary: int = 0
    store_output: bool = True
    reason: str | None = None
    retry_of: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def checked(self) -> "Order":
        """Itself. Raises Invalid with every mistake."""
        mistakes = [
            FieldError(name, message)
            for name, wrong, message in (
                ("timeout_seconds", not 1 <= self.timeout_s <= TIMEOUT_MAX_S, f"lies between 1 and {TIMEOUT_MAX_S}"),
                ("max_parallel", not 1 <= self.max_parallel <= PARALLEL_MAX, f"lies between 1 and {PARALLEL_MAX}"),
                ("max_failures", not 0 <= (self.max_failures or 0) <= SERVERS_MAX, f"lies between 0 and {SERVERS_MAX}"),
                ("canary", not 0 <= self.canary <= SERVERS_MAX, f"lies between 0 and {SERVERS_MAX}"),
                ("reason", self.reason is not None and len(self.reason) > REASON_MAX, f"is over {REASON_MAX} long"),
            )
            if wrong
        ]
        mistakes += _secret_mistakes(self.secrets)
        if mistake := command_mistake(self.command):
            mistakes.insert(0, FieldError("command", mistake))
        if mistakes:
            raise Invalid(mistakes)
        return self


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task that this console has claimed, with what it takes to run it. `fence` tells it from earlier claims."""

    task_id: str
    run_id: str
    server_id: str
    server_name: str
    command: str
    shell: str
    timeout_s: int
    request_id: str
    store_output: bool
    fence: int
    started_at: datetime
    boot_id: str | None
    sealed: tuple[bytes, str] | None = field(default=None, repr=False)  # the secrets, and the key that wraps them
    is_taken_over: bool = False  # it was claimed by a console that has died since, so it may run already
    mode: Mode | None = None
    ending: str | None = None  # why the console before us was ending it: timeout, cancelled or console_stopped

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from every other claim."""
        return self.task_id, self.fence


@dataclass(frozen=True, slots=True)
class Output:
    """What a task printed: the first bytes of both streams, how many there were, and a digest of it all."""

    stdout: bytes
    stderr: bytes
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool
    digest: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a claimed task ended. `cause` is a code of `tasks/causes.py`; `detail` is what the host or network said."""

    claim: Claimed
    status: Status
    finished_at: datetime
    cause: str | None = None
    detail: str | None = None
    exit_code: int | None = None
    mode: Mode | None = None
    output: Output | None = None


def _secret_mistakes(secrets: Mapping[str, str]) -> list[FieldError]:
    mistakes = [FieldError("secrets", f"holds more than {SECRETS_MAX}")] if len(secrets) > SECRETS_MAX else []
    for name, value in secrets.items():
        where = f"secrets.{name[:64]}"
        if not secret_names.is_name_of_secret(name):
            mistakes.append(FieldError(where, f"is no name for a secret, which {secret_names.RULE}"))
        elif not SECRET_MIN <= len(value) <= SECRET_MAX or any(letter in value for letter in "\0\n\r"):
            mistakes.append(FieldError(where, f"has {SECRET_MIN} to {SECRET_MAX} characters on one line"))
    return mistakes


def command_mistake(command: str) -> str | None:
    """What is wrong with a command before anything looks at what it means."""
    if not command.strip():
        return "write a command"
    if len(command) > COMMAND_MAX:
        return f"is longer than {COMMAND_MAX:,} characters"
    return "holds a NUL, which no shell can be given" if "\0" in command else None


def is_over(status: Status) -> bool:
    return status not in OPEN


def stops_at(max_failures: int | None) -> int | None:
    """So many failed tasks stop the run; a limit of none tolerates none."""
    return None if max_failures is None else max(1, max_failures)


def summary(counts: Mapping[str, int]) -> dict[str, Any]:
    """How far a run is, from the numbers of its tasks in each state."""
    open_tasks = sum(count for status, count in counts.items() if Status(status) in OPEN)
    return {
        "total": sum(counts.values()),
        "open": open_tasks,
        "failed": sum(counts.get(status, 0) for status in FAILURES),
        "by_status": {status: count for status, count in counts.items() if count},
    }
