"""The servers on the way to a server, as ssh writes them: ProxyJump, and the ProxyCommand that it replaced."""

import re
from dataclasses import dataclass

from server_monitor.fleet.fields import quoted
from server_monitor.fleet.inventory.ssh_lines import UnreadableError, words

HOPS_MAX = 8
_HOP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:/@]+)(?::(?P<port>\d+))?/?")
_SSH_WITH_VALUE = frozenset("BbcDEeFIiJLlmOopQRSWw")


@dataclass(frozen=True, slots=True)
class Hop:
    """One server on the way, as written and in its parts."""

    written: str
    host: str
    user: str | None = None
    port: str | None = None

    @property
    def plain(self) -> bool:
        """Whether it is only a name, so that what the inventory says of that name holds."""
        return self.user is None and self.port is None


def of_proxy_jump(written: str) -> list[Hop]:
    """`[user@]host[:port],…`, nearest first, or `none`."""
    if written.strip().lower() == "none":
        return []
    parts = written.split(",")
    if len(parts) > HOPS_MAX:
        raise UnreadableError(f"At most {HOPS_MAX} servers on the way.")
    return [_hop(part.strip()) for part in parts]


def of_proxy_command(written: str) -> list[Hop]:
    """`ssh -W %h:%p HOST` is a jump; any other command cannot be taken over."""
    command = words(written)
    if [word.lower() for word in command] == ["none"]:
        return []
    refused = UnreadableError(
        f"It is reached by ProxyCommand {quoted(written)}, which the console does not run. "
        "If it goes through another server, write ProxyJump in its place."
    )
    if not command or command[0].rsplit("/", 1)[-1] != "ssh":
        raise refused
    places, given = _arguments(command[1:])
    if len(places) != 1 or given.get("W") not in ("%h:%p", "[%h]:%p"):
        raise refused
    user = f"{given['l']}@" if "l" in given else ""
    port = f":{given['p']}" if "p" in given else ""
    return [_hop(user + places[0] + port)]


def of_ssh_arguments(written: str) -> list[Hop]:
    """The way that extra arguments for ssh ask for: `-J HOST`, `-o ProxyJump=HOST` or `-o ProxyCommand="…"`."""
    arguments = words(written)
    for position, word in enumerate(arguments):
        value = word[2:] or "".join(arguments[position + 1 : position + 2])
        if word.startswith("-J"):
            return of_proxy_jump(value)
        option, _, setting = value.partition("=")
        if word.startswith("-o") and option.strip().lower() == "proxyjump":
            return of_proxy_jump(setting)
        if word.startswith("-o") and option.strip().lower() == "proxycommand":
            return of_proxy_command(setting)
    return []


def _hop(written: str) -> Hop:
    found = _HOP.fullmatch(written)
    if found is None or "%" in written:
        raise UnreadableError(f"The way through {quoted(written)} was not understood. Add the jump server by hand.")
    return Hop(written.removeprefix("ssh://").rstrip("/"), found["host"].strip("[]"), found["user"], found["port"])


def _arguments(arguments: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """The words of an ssh command that are no options, and the values of those options that take one."""
    places: list[str] = []
    given: dict[str, str] = {}
    rest = iter(arguments)
    for word in rest:
        if not word.startswith("-"):
            places.append(word)
            continue
        for position, letter in enumerate(word[1:], start=2):
            if letter in _SSH_WITH_VALUE:
                given[letter] = word[position:] or next(rest, "")
                break
    return places, given
