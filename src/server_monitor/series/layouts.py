"""Layouts: ordered lists of series names, stored once and known by a small number everywhere else."""

import sqlite3
import sys
from collections.abc import Collection

from server_monitor.series import file
from server_monitor.series.blocks import Damaged
from server_monitor.series.tiers import Names


class Layouts:
    """The file's layouts. Only the writing thread adds and removes; any thread may look up."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        # Hosts have most names in common; one string for each name is enough.
        self._names = {id_: tuple(map(sys.intern, names)) for id_, names in file.layouts(conn).items()}
        self._ids = {names: id_ for id_, names in self._names.items()}

    def id(self, conn: sqlite3.Connection, names: Names) -> int:
        """The number of a layout, which is stored at once when it is new."""
        known = self._ids.get(names)
        if known is not None:
            return known
        added = file.add_layout(conn, names)
        names = tuple(map(sys.intern, names))
        self._names[added] = names
        self._ids[names] = added
        return added

    def names(self, conn: sqlite3.Connection, layout: int) -> Names:
        """Raises Damaged when the file does not know it."""
        known = self._names.get(layout)
        if known is None:
            # A reader may hold a snapshot from before this layout was removed.
            known = file.layout(conn, layout)
        if known is None:
            raise Damaged(f"there is no layout {layout}")
        return known

    def remove_unused(self, conn: sqlite3.Connection, but_for: Collection[int]) -> None:
        """Forget the layouts that neither a block nor anything in `but_for` refers to."""
        for layout in file.remove_unused_layouts(conn, but_for):
            self._ids.pop(self._names.pop(layout), None)
