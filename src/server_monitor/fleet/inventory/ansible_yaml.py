"""An Ansible inventory in its YAML form.

    all:
      children:
        web:
          hosts:
            web[01:20].example.com: {ansible_port: 2222}
          vars: {ansible_user: deploy}

The text is read as a stream of events into plain nodes. Nothing is constructed from tags, every mistake has its line,
and a text that is nested a million deep (which ends the process in libyaml's composer) is refused at level 32.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from server_monitor.fleet.fields import quoted
from server_monitor.fleet.inventory.ansible import EVERY_HOST, Inventory, entries_of, relevant
from server_monitor.fleet.inventory.entries import Parsed, lines_of

DEPTH_MAX = 32
VISITS_MAX = 200_000  # an alias costs nothing to write and everything to walk
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Node:
    """A value and its line. A mapping's `pairs` are its keys and values, `text` is set for a scalar only."""

    line: int
    kind: str
    text: str = ""
    items: list["Node"] = field(default_factory=list)

    def pairs(self) -> Iterator[tuple["Node", "Node"]]:
        return zip(self.items[::2], self.items[1::2], strict=True)


class RefusedError(ValueError):
    """The text is YAML and still not for us; `line` is where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def parse(text: str) -> Parsed:
    """The servers that an inventory names."""
    inventory = Inventory()
    try:
        root = nodes_of(text)
        if root is not None:
            _Walk(inventory).groups(root, parent=None)
    except yaml.MarkedYAMLError as refused:
        mark = refused.problem_mark
        # What is missing at the end is reported behind it.
        line = 1 if mark is None else min(mark.line + 1, len(lines_of(text)))
        inventory.mistake(line, f"This is not YAML: {refused.problem}.")
    except yaml.YAMLError as refused:
        inventory.mistake(1, f"This is not YAML: {quoted(str(refused))}.")
    except RefusedError as refused:
        inventory.mistake(refused.line, str(refused))
    return entries_of(inventory)


def nodes_of(text: str) -> Node | None:
    """The first document of a text, or None when there is none. Raises yaml.YAMLError and RefusedError."""
    top = Node(1, "sequence")
    open_nodes = [top]
    anchors: dict[str, Node] = {}
    for event in yaml.parse(text, Loader=_LOADER):
        line = 1 if event.start_mark is None else event.start_mark.line + 1
        if isinstance(event, yaml.CollectionEndEvent):
            open_nodes.pop()
        elif isinstance(event, yaml.NodeEvent):
            node = _node(event, line, anchors)
            open_nodes[-1].items.append(node)
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append(node)
            if len(open_nodes) > DEPTH_MAX:
                raise RefusedError(f"This is nested more than {DEPTH_MAX} deep.", line)
        elif isinstance(event, yaml.DocumentEndEvent):
            break
    return top.items[0] if top.items else None


def _node(event: yaml.NodeEvent, line: int, anchors: dict[str, Node]) -> Node:
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchors:
            raise RefusedError(f"There is no anchor {quoted(str(event.anchor))} above this line.", line)
        return anchors[event.anchor]
    if isinstance(event, yaml.ScalarEvent):
        node = Node(line, "null" if _is_null(event) else "text", event.value)
    else:
        node = Node(line, "mapping" if isinstance(event, yaml.MappingStartEvent) else "sequence")
    if event.anchor is not None:
        anchors[event.anchor] = node
    return node


def _is_null(event: yaml.ScalarEvent) -> bool:
    return event.implicit[0] and event.value in ("", "~", "null", "Null", "NULL")


class _Walk:
    """Takes the groups of a document into an inventory; an alias to a node above itself would never end."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._visits = 0

    def groups(self, node: Node, parent: str | None, depth: int = 0) -> None:
        for name, body in self._pairs(node, "groups, such as 'all:' or 'web:'"):
            self._inventory.group(name.text, name.line)
            if parent is not None:
                self._inventory.groups[parent].children.append(name.text)
            if depth > DEPTH_MAX:
                raise RefusedError(f"Groups are nested more than {DEPTH_MAX} deep.", name.line)
            self._group(name.text, body, depth)

    def _group(self, group: str, body: Node, depth: int) -> None:
        for part, content in self._pairs(body, "the parts of a group: hosts, vars and children"):
            if part.text == "hosts":
                self._hosts(group, content)
            elif part.text == "vars":
                self._inventory.groups[group].variables.update(self._variables(content))
            elif part.text == "children":
                self.groups(content, group, depth + 1)
            else:
                self._inventory.mistake(part.line, f"A group has hosts, vars and children, not {quoted(part.text)}.")

    def _hosts(self, group: str, node: Node) -> None:
        belongs_to = None if group == EVERY_HOST else group
        for pattern, variables in self._pairs(node, "hosts, each with a colon behind it"):
            self._inventory.add_hosts(pattern.text, belongs_to, self._variables(variables), pattern.line)

    def _variables(self, node: Node) -> dict[str, str]:
        pairs = self._pairs(node, "variables, as name: value")
        return relevant({name.text: value.text for name, value in pairs if value.kind == "text"})

    def _pairs(self, node: Node, wanted: str) -> Iterator[tuple[Node, Node]]:
        if node.kind == "null":
            return
        if node.kind != "mapping":
            raise RefusedError(f"Here belong {wanted}.", node.line)
        for name, value in node.pairs():
            self._visits += 1
            if self._visits > VISITS_MAX:
                raise RefusedError("The aliases in this text repeat it without end.", name.line)
            if name.kind == "text":
                yield name, value
            else:
                self._inventory.mistake(name.line, "A name belongs here, in front of a colon.")
