"""An Ansible inventory in its INI form.

mail.example.com ansible_port=2222
[web]
web[01:20].example.com ansible_user=deploy
[web:vars]
ansible_ssh_private_key_file=~/.ssh/web
[live:children]
web
"""

import re
from collections.abc import Callable

from server_monitor.fleet.fields import quoted
from server_monitor.fleet.inventory.ansible import EVERY_HOST, Inventory, entries_of, relevant
from server_monitor.fleet.inventory.entries import Parsed, lines_of
from server_monitor.fleet.inventory.ssh_lines import LINE_MAX, UnreadableError, words

Taker = Callable[[Inventory, str, str, int], None]

_SECTION = re.compile(r"\[([^\]:]+)(?::([a-z]+))?\]\s*(?:[#;].*)?")
_KINDS = "[group], [group:vars] or [group:children]"


def parse(text: str) -> Parsed:
    """The servers that an inventory names."""
    inventory = Inventory()
    group = EVERY_HOST
    take: Taker = _host
    for number, raw in enumerate(lines_of(text), start=1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        try:
            if line.startswith("[") and (section := _section(line)):
                group, take = section
                inventory.group(group, number)
            else:
                take(inventory, group, line, number)
        except UnreadableError as refused:
            inventory.mistake(number, str(refused))
    return entries_of(inventory)


def _section(line: str) -> tuple[str, Taker] | None:
    found = _SECTION.fullmatch(line)
    if found is None:
        # A line such as "[2001:db8::1]:22 ansible_user=x" names a host.
        if line.count(":") > 1 and not line.endswith("]"):
            return None
        raise UnreadableError(f"{quoted(line)} is no section. Write {_KINDS}.")
    take = {None: _host, "vars": _variable, "children": _child, "hosts": _host}.get(found[2])
    if take is None:
        raise UnreadableError(f"There is no section of the kind {quoted(found[2])}. Write {_KINDS}.")
    return found[1].strip(), take


def _host(inventory: Inventory, group: str, line: str, number: int) -> None:
    if len(line) > LINE_MAX:
        raise UnreadableError(f"At most {LINE_MAX:,} characters on a line.")
    pattern, *settings = words(line)
    variables = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UnreadableError(f"{quoted(setting)} behind the host has no value. Write name=value.")
        variables[name] = value
    inventory.add_hosts(pattern, None if group == EVERY_HOST else group, relevant(variables), number)


def _variable(inventory: Inventory, group: str, line: str, number: int) -> None:
    name, equals, value = line.partition("=")
    if not equals:
        raise UnreadableError(f"{quoted(line)} has no value. Write name=value.")
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    inventory.group(group, number).variables.update(relevant({name.strip(): value}))


def _child(inventory: Inventory, group: str, line: str, number: int) -> None:
    child = line.split("#", maxsplit=1)[0].strip()
    inventory.group(child, number)
    inventory.group(group, number).children.append(child)
