"""The servers that a request means."""

from pydantic import Field

from server_monitor.api.deps import Body
from server_monitor.fleet.selection import Selector


class SelectorBody(Body):
    """Servers by id, and those in one of the groups, if any are given, that carry all the labels; or all there are."""

    servers: list[str] = Field(default_factory=list, max_length=10_000)
    groups: list[str] = Field(default_factory=list, max_length=1_000)
    labels: dict[str, str] = Field(default_factory=dict)
    all: bool = False

    def selector(self) -> Selector:
        return Selector(self.servers, self.groups, self.labels, self.all)
