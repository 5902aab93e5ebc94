"""What commands print, where that can be told without running them.

Pure filters are computed, within bounds. Of the others it is known where their output comes from and what it looks
like: a number, a name, a path below a directory, a download.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import endless
from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.printing import formats
from server_monitor.tasks.policy.printing.decoding import DECODERS
from server_monitor.tasks.policy.printing.described import described
from server_monitor.tasks.policy.printing.filtered import Filter, filtered
from server_monitor.tasks.policy.printing.listed import listed
from server_monitor.tasks.policy.printing.places import PLACES
from server_monitor.tasks.policy.printing.process_numbers import PROCESS_NUMBERS
from server_monitor.tasks.policy.printing.sources import SOURCES
from server_monitor.tasks.policy.printing.text_filters import TEXT_FILTERS
from server_monitor.tasks.policy.values import Parts

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call


def printed(call: Call) -> Parts:
    """What this call writes to standard output."""
    return listed(call, endless.passed_on(call, _printed(call)))


def _printed(call: Call) -> Parts:
    maker = _MAKERS.get(call.name)
    if maker is not None:
        return maker(call)
    change = _FILTERS.get(call.name)
    if change is not None:
        return filtered(call, change)
    return described(call)


def _nothing(_call: Call) -> Parts:
    return ()


_MAKERS: dict[str, Callable[[Call], Parts]] = {
    "echo": formats.echo,
    "printf": formats.printf,
    **PLACES,
    **PROCESS_NUMBERS,
    **SOURCES,
    **dict.fromkeys(
        named("true false : rm cd export mkdir touch chmod chown sleep test [ set kill"),
        _nothing,
    ),
}
_FILTERS: dict[str, Filter] = {**DECODERS, **TEXT_FILTERS}
