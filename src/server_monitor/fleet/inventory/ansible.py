"""Servers out of an Ansible inventory: what INI and YAML have in common.

A variable of a host wins over one of its group, a group's over its parent's, `all` comes last; groups of one depth
are taken in the order of their names. Only the variables that say how to connect are read. Source: Ansible's guide
"How to build your inventory" and inventory/manager.py.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from server_monitor.errors import FieldError
from server_monitor.fleet.fields import quoted, tidy, tidy_host, visible
from server_monitor.fleet.inventory.entries import (
    ENTRIES_MAX,
    IMPLIED_NOTE,
    Entry,
    Parsed,
    Skipped,
    port_of,
    too_many,
    unique,
)
from server_monitor.fleet.inventory.hops import Hop, of_ssh_arguments
from server_monitor.fleet.inventory.ssh_lines import UnreadableError

GROUPS_MAX = 2_000
EVERY_HOST = "all"
_BUILT_IN = frozenset({EVERY_HOST, "ungrouped"})
_SSH_CONNECTIONS = frozenset({"ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh"})

# Ansible's variables, and their older names, under what they say.
_VARIABLES = {
    "ansible_host": "host",
    "ansible_ssh_host": "host",
    "ansible_port": "port",
    "ansible_ssh_port": "port",
    "ansible_user": "username",
    "ansible_ssh_user": "username",
    "ansible_ssh_private_key_file": "identity_file",
    "ansible_private_key_file": "identity_file",
    "ansible_connection": "connection",
    "ansible_ssh_common_args": "arguments",
    "ansible_ssh_extra_args": "arguments",
    "ansible_password": "password",
    "ansible_ssh_pass": "password",
}


@dataclass(slots=True)
class Host:
    line: int
    variables: dict[str, str] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Group:
    line: int
    variables: dict[str, str] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Inventory:
    """Hosts and groups as they are written, before variables are passed down."""

    hosts: dict[str, Host] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    errors: list[FieldError] = field(default_factory=list)

    def mistake(self, line: int, message: str) -> None:
        self.errors.append(FieldError("text", message, line))

    def group(self, name: str, line: int) -> Group:
        """The group of that name, made when it is new."""
        if name not in self.groups and len(self.groups) == GROUPS_MAX:
            self.mistake(line, f"An inventory holds at most {GROUPS_MAX:,} groups.")
        return self.groups.setdefault(name, Group(line))

    def add_hosts(self, pattern: str, group: str | None, variables: Mapping[str, str], line: int) -> None:
        """Every host that a pattern such as `web[01:20].example.com` means, with the variables on its line."""
        try:
            names, port = expand(pattern, ENTRIES_MAX - len(self.hosts))
        except UnreadableError as refused:
            self.mistake(line, str(refused))
            return
        for name in names:
            host = self.hosts.setdefault(name, Host(line))
            if port:
                host.variables["port"] = port
            host.variables.update(variables)
            if group is not None:
                host.groups.append(group)


def relevant(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of Ansible's variables that say how to connect, under our words."""
    return {_VARIABLES[name]: value for name, value in variables.items() if name in _VARIABLES}


def entries_of(inventory: Inventory) -> Parsed:
    """The servers of a whole inventory, with each variable from where it counts most."""
    order = _parents_first(inventory)
    found = _Found(inventory, order)
    for name, host in inventory.hosts.items():
        found.take(name, host)
    errors = list(inventory.errors)
    if not (inventory.hosts or errors):
        errors.append(FieldError("text", "There is no host in this text, so there is nothing to import."))
    if len(found.entries) > ENTRIES_MAX:
        errors.append(too_many(None))
    return Parsed(tuple(found.entries.values()), tuple(found.skipped), tuple(errors))


def _parents_first(inventory: Inventory) -> dict[str, tuple[str, ...]]:
    """Each group to itself and its ancestors, the farthest first, by name among equals.

    A group inside itself is a mistake, and is left out together with all groups below it.
    """
    waiting = dict.fromkeys(inventory.groups, 0)
    for group in inventory.groups.values():
        for child in unique(group.children):
            waiting[child] = waiting.get(child, 0) + 1
    depth = dict.fromkeys((name for name, parents in waiting.items() if parents == 0), 0)
    above: dict[str, set[str]] = {name: {name} for name in depth}
    ready = list(depth)
    for name in ready:
        for child in unique(inventory.groups[name].children):
            above.setdefault(child, {child}).update(above[name])
            depth[child] = max(depth.get(child, 0), depth[name] + 1)
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    for name in waiting.keys() - set(ready):
        inventory.mistake(inventory.groups[name].line, f"The group {quoted(name)} is inside itself.")
    return {name: tuple(sorted(above[name], key=lambda one: (one != EVERY_HOST, depth[one], one))) for name in ready}


@dataclass(slots=True)
class _Found:
    inventory: Inventory
    lineage: Mapping[str, tuple[str, ...]]
    entries: dict[str, Entry] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    passed_down: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)

    def take(self, name: str, host: Host) -> None:
        groups = self._all_groups(unique(host.groups))
        variables = {**self._passed_down(groups), **host.variables}
        try:
            hops = of_ssh_arguments(variables.get("arguments", ""))
        except UnreadableError as refused:
            self.skipped.append(Skipped(host.line, visible(name), str(refused)))
            return
        if why := _why_not(variables):
            self.skipped.append(Skipped(host.line, visible(name), why))
            return
        self.entries[name] = Entry(
            line=host.line,
            name=tidy(name),
            host=tidy_host(variables.get("host", name)),
            port=port_of(variables.get("port", "22")),
            username=variables.get("username"),
            identity_file=variables.get("identity_file"),
            jump=self._way(hops, host.line) if hops else None,
            groups=tuple(sorted(tidy(group) for group in groups if group not in _BUILT_IN)),
            notes=tuple(_notes(variables)),
        )

    def _all_groups(self, direct: tuple[str, ...]) -> tuple[str, ...]:
        ancestors = {above for group in direct for above in self.lineage.get(group, ())}
        if EVERY_HOST in self.inventory.groups:
            ancestors.add(EVERY_HOST)
        return tuple(sorted(ancestors, key=self._rank))

    def _rank(self, group: str) -> tuple[bool, int, str]:
        return (group != EVERY_HOST, len(self.lineage.get(group, ())), group)

    def _passed_down(self, groups: tuple[str, ...]) -> dict[str, str]:
        if groups not in self.passed_down:
            merged: dict[str, str] = {}
            for group in groups:
                merged.update(self.inventory.groups[group].variables)
            self.passed_down[groups] = merged
        return self.passed_down[groups]

    def _way(self, hops: list[Hop], line: int) -> str:
        """The name of the server that the last hop means; one that is no host of the inventory is added."""
        hop = hops[-1]
        if hop.plain and hop.host in self.inventory.hosts:
            return tidy(hop.host)
        name = tidy(hop.written)
        if name not in self.entries and name not in self.inventory.hosts:
            self.entries[name] = Entry(
                line=line,
                name=name,
                host=tidy_host(hop.host),
                port=port_of(hop.port or "22"),
                username=hop.user,
                jump=self._way(hops[:-1], line) if hops[:-1] else None,
                notes=(IMPLIED_NOTE,),
                implied=True,
            )
        return name


def _why_not(variables: Mapping[str, str]) -> str | None:
    connection = variables.get("connection", "ssh")
    if connection == "local":
        return "ansible_connection is local: the console's own machine is watched already."
    if connection not in _SSH_CONNECTIONS:
        return f"ansible_connection is {quoted(connection)}; the console speaks SSH only."
    for name in ("host", "port", "username"):
        if "{{" in variables.get(name, ""):
            return f"Its {name} is a template, {quoted(variables[name])}; only plain values are read."
    return None


def _notes(variables: Mapping[str, str]) -> Iterator[str]:
    if "identity_file" in variables:
        yield (
            f"Key file {quoted(variables['identity_file'])}: the console logs in with its ssh-agent, "
            "which has to hold this key."
        )
    if "password" in variables:
        yield "Its password was not taken over. Give it to the server here, or better, use a key."


_IPV6 = re.compile(r"\[?([0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)(?:\]:([0-9]+)|\]?)")
_WITH_PORT = re.compile(r"(.*[^:\]]|.*\]):([0-9]+)")
_RANGE = re.compile(r"\[([0-9A-Za-z]*):([0-9A-Za-z]+)(?::([0-9]+))?\]")


def expand(pattern: str, limit: int) -> tuple[list[str], str | None]:
    """The names that a pattern means, and the port behind it, if there is one.

    Ranges include both ends: [01:20], [a:f], [0:10:2]. Raises UnreadableError when there are more than `limit`.
    """
    if address := _IPV6.fullmatch(pattern):
        return [address[1]], address[2]
    port = None
    if found := _WITH_PORT.fullmatch(pattern):
        pattern, port = found[1], found[2]
    names = [""]
    end = 0
    for found in _RANGE.finditer(pattern):
        steps = _steps(found, limit)
        if len(names) * len(steps) > limit:
            raise _too_wide(pattern)
        between = pattern[end : found.start()]
        names = [name + between + step for name in names for step in steps]
        end = found.end()
    rest = pattern[end:]
    if "[" in rest or "]" in rest:
        raise UnreadableError(f"The range in {quoted(pattern)} was not understood. Write it as [01:20] or [a:f].")
    if len(names) > limit:
        raise _too_wide(pattern)
    return [name + rest for name in names], port


def _too_wide(pattern: str) -> UnreadableError:
    return UnreadableError(f"{quoted(pattern)} makes too many hosts: at most {ENTRIES_MAX:,} in one import.")


def _steps(found: re.Match[str], limit: int) -> list[str]:
    """What a range stands for; one more than `limit` of it at most, so that a huge range costs nothing."""
    first, last, step = found[1] or "0", found[2], int((found[3] or "1")[:9])
    refused = UnreadableError(f"The range {quoted(found[0])} was not understood. Write it as [01:20] or [a:f].")
    if step == 0 or max(len(first), len(last)) > 9:
        raise refused
    if first.isdigit() and last.isdigit() and int(first) <= int(last):
        numbers = range(int(first), int(last) + 1, step)[: limit + 1]
        width = len(first) if first.startswith("0") else 0
        return [str(number).zfill(width) for number in numbers]
    letters = len(first) == len(last) == 1 and first.isalpha() and last.isalpha() and first <= last
    if not letters or first.isupper() != last.isupper():
        raise refused
    return [chr(code) for code in range(ord(first), ord(last) + 1, step)]
