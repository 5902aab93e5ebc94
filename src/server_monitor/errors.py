"""The few failures a caller can act on.

Each class has a stable `code`; one table in `api/app.py` turns codes into HTTP responses and the command line
turns them into exit codes. Everything else is a bug and keeps its own exception.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class Failure(Exception):  # noqa: N818  # These are outcomes a caller acts on, and read as such: `except NotFound`.
    """Something the caller can act on. `str()` is a sentence for a person; `code` is for programs."""

    code = "failure"


class NotFound(Failure):
    """The thing does not exist, or the actor may not know that it does."""

    code = "not_found"

    def __init__(self, kind: str, identity: str) -> None:
        super().__init__(f"There is no {kind} {identity!r}.")
        self.kind = kind
        self.identity = identity


class Unauthenticated(Failure):
    """Nobody is logged in, or the credentials are wrong."""

    code = "unauthenticated"


class Denied(Failure):
    """The actor is known and may not do this."""

    code = "denied"


class Conflict(Failure):
    """The request is right in itself and clashes with what is stored."""

    code = "conflict"


class Gone(Failure):
    """The thing existed once and can never be used again."""

    code = "gone"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One mistake in an input: where it stands and what to do about it. `line` counts from 1 in a pasted text."""

    field: str
    message: str
    line: int | None = None


class Invalid(Failure):
    """The input is wrong. `errors` lists every mistake that was found, not only the first."""

    code = "invalid"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = tuple(errors)

    @classmethod
    def one(cls, field: str, message: str) -> "Invalid":
        return cls([FieldError(field, message)])


class TooMany(Failure):
    """Slow down; the same request may be sent again after `retry_after_s` seconds."""

    code = "too_many_requests"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(Failure):
    """A part of the console that the request needs cannot serve it now, such as the database."""

    code = "unavailable"


class Unreachable(Failure):
    """A server could not be used. `reason` is one of the codes explained in `fleet/reasons.py`."""

    code = "unreachable"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class AuditUnavailable(Unavailable):
    """The audit record could not be written, so the change was not made."""

    code = "audit_unavailable"
