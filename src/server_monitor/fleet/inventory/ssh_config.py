"""Servers out of an OpenSSH client configuration, as `ssh NAME` would reach them.

Every name without a wildcard on a Host line is a server. As in ssh, the first value that is found for an option wins,
so `Host *` at the end gives defaults. Source: ssh_config(5), readconf.c of OpenSSH.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from server_monitor.errors import FieldError
from server_monitor.fleet.fields import quoted, tidy, tidy_host, visible
from server_monitor.fleet.inventory.entries import ENTRIES_MAX, IMPLIED_NOTE, Entry, Parsed, Skipped, port_of, too_many
from server_monitor.fleet.inventory.hops import Hop, of_proxy_command, of_proxy_jump
from server_monitor.fleet.inventory.ssh_lines import (
    Block,
    Include,
    Lines,
    Named,
    UnreadableError,
    distinct,
    is_wildcard,
    matches,
    read,
)

_CODE_HOSTS = frozenset(
    {"github.com", "ssh.github.com", "gitlab.com", "bitbucket.org", "codeberg.org", "git.sr.ht", "ssh.dev.azure.com"}
)
_PROXY_OPTIONS = ("proxyjump", "proxycommand")
_NO_HOSTS = "There is no Host line with a name in this text, so there is nothing to import."


def parse(text: str, include: Include | None = None) -> Parsed:
    """The servers that a configuration names. `include` reads the files that it includes, where that is possible."""
    lines = read(text, include)
    found = _Found(lines, _Options(lines))
    for named in distinct(lines.named):
        if len(found.entries) >= ENTRIES_MAX:
            found.errors.append(too_many(named.line))
            break
        found.take(named)
    if not (lines.named or found.errors):
        found.errors.append(FieldError("text", _NO_HOSTS))
    return Parsed(tuple(found.entries.values()), tuple(found.skipped), tuple(found.errors))


class _Options:
    """Looks up which options hold for a name, without trying every block for every name."""

    def __init__(self, lines: Lines) -> None:
        self._exact: defaultdict[str, list[tuple[int, Block]]] = defaultdict(list)
        self._others: list[tuple[int, Block]] = []
        for order, block in enumerate(lines.blocks):
            innermost = block.conditions[-1] if block.conditions else ("*",)
            if any(map(is_wildcard, innermost)):
                self._others.append((order, block))
            else:
                for name in set(innermost):
                    self._exact[name].append((order, block))

    def of(self, name: str) -> dict[str, tuple[str, ...]]:
        """Option to its values. ProxyJump and ProxyCommand exclude each other: the first of the two stands."""
        blocks = sorted([*self._exact.get(name, ()), *self._others], key=lambda ordered: ordered[0])
        options: dict[str, tuple[str, ...]] = {}
        for _, block in blocks:
            if block.options and matches(block.conditions, name):
                for option, values in block.options:
                    if not (option in _PROXY_OPTIONS and any(proxy in options for proxy in _PROXY_OPTIONS)):
                        options.setdefault(option, values)
        return options


@dataclass(slots=True)
class _Found:
    """What the names of one configuration have come to so far."""

    lines: Lines
    options: _Options
    entries: dict[str, Entry] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    skipped: list[Skipped] = field(default_factory=list)
    errors: list[FieldError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = frozenset(named.name for named in self.lines.named)
        self.skipped.extend(self.lines.skipped)
        self.errors.extend(self.lines.errors)

    def take(self, named: Named) -> None:
        """Add the server of one name, and those that are only a way to it."""
        options = self.options.of(named.name)
        entry = _entry(named, options)
        if why := self._why_not(entry):
            self.skipped.append(Skipped(named.line, visible(named.name), why))
            return
        try:
            hops = _hops(options, named.name)
        except UnreadableError as refused:
            self.skipped.append(Skipped(named.line, visible(named.name), str(refused)))
            return
        self._through(entry, hops)

    def _through(self, entry: Entry, hops: list[Hop]) -> None:
        if not hops:
            self.entries[entry.name] = entry
            return
        jump = self._way(hops, entry.line)
        notes = entry.notes
        if len(hops) > 1 and not self.entries.get(jump, entry).implied:
            notes = (*notes, f"Reached through {jump}; how {jump} itself is reached is its own setting.")
        self.entries[entry.name] = replace(entry, jump=jump, notes=notes)

    def _way(self, hops: list[Hop], line: int) -> str:
        """The name of the server that the last hop means; one that the text has no Host line for is added."""
        hop = hops[-1]
        if hop.plain and hop.host in self.names:
            return tidy(hop.host)
        name = tidy(hop.written)
        if name not in self.entries and name not in self.names:
            entry = _entry(Named(hop.host, line, None), self.options.of(hop.host))
            self.entries[name] = replace(
                entry,
                name=name,
                port=entry.port if hop.port is None else port_of(hop.port),
                username=hop.user or entry.username,
                jump=self._way(hops[:-1], line) if hops[:-1] else None,
                notes=(IMPLIED_NOTE, *entry.notes),
                implied=True,
            )
        return name

    def _why_not(self, entry: Entry) -> str | None:
        if entry.username == "git" or entry.host in _CODE_HOSTS:
            return "A place for code, not a server to watch."
        for other in reversed(self.entries.values()):
            if other.line != entry.line:
                return None
            if (other.host, other.port, other.username) == (entry.host, entry.port, entry.username):
                return f"Another name of {other.name}."
        return None


def _entry(named: Named, options: dict[str, tuple[str, ...]]) -> Entry:
    written = options.get("hostname", (named.name,))[0]
    host = written.replace("%h", named.name).replace("%%", "%")
    identity = options.get("identityfile", (None,))[0]
    identity = None if identity is None or identity.lower() == "none" else identity
    return Entry(
        line=named.line,
        name=tidy(named.name),
        host=tidy_host(host),
        port=port_of(options["port"][0]) if "port" in options else 22,
        username=options["user"][0] if "user" in options else None,
        identity_file=identity,
        notes=tuple(_notes(named, identity)),
    )


def _notes(named: Named, identity: str | None) -> Iterator[str]:
    if named.source:
        yield f"From {named.source}."
    if identity:
        yield f"IdentityFile {quoted(identity)}: the console logs in with its ssh-agent, which has to hold this key."


def _hops(options: dict[str, tuple[str, ...]], name: str) -> list[Hop]:
    """The servers on the way to `name`, nearest first. A server is never a way to itself."""
    if "proxyjump" in options:
        found = of_proxy_jump(",".join(options["proxyjump"]))
    elif "proxycommand" in options:
        found = of_proxy_command(" ".join(options["proxycommand"]))
    else:
        found = []
    return [hop for hop in found if hop.host != name]
