"""SQLite without SQLAlchemy in between, for the few places that move thousands of rows.

The asynchronous driver gives each connection a thread of its own and hands it one call after the other. A whole piece
of work handed over at once costs one turn of that thread instead of one for each statement or row, and allocates and
frees its memory in one place.
"""

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Insert, Select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

_T = TypeVar("_T")
_DIALECT = sqlite.dialect(paramstyle="named")


async def on_sqlite(conn: AsyncConnection, work: Callable[[sqlite3.Connection], _T]) -> _T:
    """What `work` returns, called with SQLite's own connection in the thread that belongs to it.

    It is the connection of `conn`, in the same transaction; `work` neither begins nor ends one.
    Raises DBAPIError, as SQLAlchemy does.
    """
    driver: Any = (await conn.get_raw_connection()).driver_connection
    try:
        done: _T = await driver._execute(work, driver._conn)
    except sqlite3.Error as error:
        raise DBAPIError(None, None, error) from error
    return done


def spelled(statement: Select[*tuple[Any, ...]] | Insert) -> tuple[str, dict[str, Any]]:
    """The statement as SQLite's own connection takes it: its text, and its parameters by name."""
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    values = dict(compiled.params)
    for name, bound in compiled.binds.items():
        processor = bound.type.dialect_impl(_DIALECT).bind_processor(_DIALECT)
        if processor is not None and name in values:
            values[name] = processor(values[name])
    return str(compiled), values
