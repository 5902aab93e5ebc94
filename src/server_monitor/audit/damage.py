"""What a damaged or forged database makes the keeping of the audit log run into."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from server_monitor.errors import Invalid, Unavailable
from server_monitor.telemetry.logs import logger

# Any column may hold anything: a number that is text, a hash of 31 bytes, nothing at all. A console that died of it
# would never come up to show what is wrong.
DAMAGE = (SQLAlchemyError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

_log = logger(__name__)


@contextmanager
def reported() -> Iterator[None]:
    """Work on stored rows that may be damaged: what they make go wrong becomes Unavailable.

    A mistake of ours would look the same, so where it happened is logged.
    """
    try:
        yield
    except (*DAMAGE, Invalid) as error:  # Nobody has given it just now: it is stored, and was right when it was.
        _log.error("audit_log_damaged", exc_info=error)
        raise Unavailable(_said(error)) from error


def _said(error: BaseException) -> str:
    """What went wrong, without statements and their parameters."""
    said = str(error.orig if isinstance(error, DBAPIError) else error).strip().partition("\n")[0]
    return f"The audit log in the database is damaged ({type(error).__name__}: {said[:200]}); see `audit verify`."
