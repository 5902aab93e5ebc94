"""Holds what a database keeps beside its records, and what follows from them, against the records. Pure.

The inner nodes of the tree (`audit_nodes`) make proofs cheap. They can be made anew from the records at any time, so a
wrong one says nothing about those; it makes wrong proofs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from server_monitor.audit import tree

Stored = Sequence[Any]
"""(level, index, hash) as it was found."""

Node = tuple[int, int, bytes]
_Key = tuple[int, int]
LEVELS = range(tree.KEPT_LEVELS, 64, tree.KEPT_LEVELS)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a database keeps: its first record, and the nodes in the order in which the records complete them."""

    first_seq: int
    nodes: Iterable[Sequence[Stored]]


@dataclass(frozen=True, slots=True)
class Repair:
    """What has to be changed so that all of it follows from the records again. `prefix` is None when it does."""

    first_seq: int
    put: Sequence[Node]
    remove: Sequence[tuple[Any, Any]]
    prefix: tuple[bytes, ...] | None


class Nodes:
    """The stored nodes, each met by the one that the records give as the tree grows."""

    def __init__(self, stored: Iterable[Sequence[Stored]] | None) -> None:
        self._coming = iter(()) if stored is None else _each(stored)
        self._is_asked = stored is not None
        self._next: tuple[_Key, Stored] | None = None  # once it has been read
        self._is_begun = False
        self._done: _Key = (0, 0)
        self.put: list[Node] = []
        self.remove: list[tuple[Any, Any]] = []
        self.missing = 0
        self.are_pruned_wrong = False

    @property
    def are_wrong(self) -> bool:
        return bool(self.put or self.remove or self.are_pruned_wrong)

    def give_up(self) -> None:
        """The tree is not known from here on, and nothing can be said of its nodes."""
        self._is_asked = False

    def begin(self, size: int, prefix: Sequence[bytes]) -> None:
        """The first records are not here: what is kept of them together is what their nodes have to add up to."""
        grown: dict[int, tuple[int, tuple[bytes, ...]]] = dict.fromkeys(LEVELS, (0, ()))
        self._begin()
        while self._is_asked and self._next is not None and self._next[0][0] <= size:
            level, index, node = self._next[1]
            count, roots = grown[level]
            if index != count or type(node) is not bytes:
                self.are_pruned_wrong = True
            grown[level] = count + 1, tree.grow(roots, count, node if type(node) is bytes else b"")
            self._advance()
        for level, (_, roots) in grown.items():
            known = [node for (height, _), node in zip(tree.subtrees(size), prefix, strict=True) if height >= level]
            self.are_pruned_wrong = self.are_pruned_wrong or (self._is_asked and list(roots) != known)
        self._done = size, 64

    def completed(self, level: int, index: int, node: bytes) -> None:
        """The records up to here give this node."""
        key = ((index + 1) << level, level)
        if not self._is_asked or key <= self._done:
            return
        self._begin()
        self._done = key
        while self._next is not None and self._next[0] < key:
            self._remove_next()
        if self._next is None or self._next[0] != key:
            self.missing += 1
            self.put.append((level, index, node))
            return
        if self._next[1][2] != node:
            self.put.append((level, index, node))
        self._advance()

    def end(self) -> None:
        """There are no more records."""
        self._begin()
        while self._is_asked and self._next is not None:
            self._remove_next()

    def _begin(self) -> None:
        if self._is_asked and not self._is_begun:
            self._is_begun = True
            self._advance()

    def _remove_next(self) -> None:
        assert self._next is not None
        self.remove.append((self._next[1][0], self._next[1][1]))
        self._advance()

    def _advance(self) -> None:
        for stored in self._coming:
            level, index, _ = stored
            if type(level) is int and level in LEVELS and type(index) is int and 0 <= index < 1 << 63 - level:
                self._next = ((index + 1) << level, level), stored
                return
            self.remove.append((level, index))
        self._next = None


def _each(batches: Iterable[Sequence[Stored]]) -> Iterator[Stored]:
    for batch in batches:
        yield from batch
