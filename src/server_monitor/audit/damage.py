"""What a damaged or forged database makes the keeping of the audit log run into. Pure."""

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from server_monitor.errors import Failure

# Any column may hold anything: a number that is text, a hash of 31 bytes, a record that is missing. The loops that keep
# the log say so and try again. A console that died of it would never come up to show what is wrong.
DAMAGE: tuple[type[Exception], ...] = (
    Failure,
    SQLAlchemyError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
)


def cause_of(error: BaseException) -> str:
    """What went wrong as a sentence, without statements and their parameters."""
    if isinstance(error, Failure):
        return str(error)
    said = str(error.orig if isinstance(error, DBAPIError) else error).strip().partition("\n")[0]
    return f"The audit log in the database is damaged ({type(error).__name__}: {said[:200]}); see audit verify."
