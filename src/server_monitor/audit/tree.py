"""The Merkle tree over the records of the audit log (RFC 6962, section 2.1). Pure.

Leaf = SHA-256(0x00 || record), node = SHA-256(0x01 || left || right). The *frontier* of a tree is the list of roots of
the complete subtrees whose sizes add up to the tree's size, largest first: all that is needed to append, and what is
kept of records that have been pruned. A *node* (level, index) is the root of the complete subtree over the leaves
[index * 2^level, (index + 1) * 2^level).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

KEPT_LEVELS = (
    8  # nodes are worth storing every eight levels: 1/255 of the leaves, and no proof needs more than 256 hashes
)

Completed = Callable[[int, int, bytes], None]
"""(level, index, hash) of a node that has just been completed."""

NodeHash = Callable[[int, int], bytes]
"""(level, index) -> hash of that node."""


def leaf_hash(record: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def grow(frontier: Sequence[bytes], size: int, leaf: bytes, completed: Completed | None = None) -> tuple[bytes, ...]:
    """The frontier of a tree of `size` leaves after one more leaf.

    `completed` is told of each node on the levels KEPT_LEVELS apart that this leaf completes.
    """
    roots = list(frontier)
    level = 0
    while size >> level & 1:
        leaf = node_hash(roots.pop(), leaf)
        level += 1
        if completed is not None and level % KEPT_LEVELS == 0:
            completed(level, size >> level, leaf)
    return (*roots, leaf)


def root(frontier: Sequence[bytes]) -> bytes:
    """The root of the whole tree."""
    if not frontier:
        return EMPTY_ROOT
    whole = frontier[-1]
    for left in reversed(frontier[:-1]):
        whole = node_hash(left, whole)
    return whole


def split(frontier: bytes) -> tuple[bytes, ...]:
    """A frontier as it is stored, taken apart."""
    return tuple(frontier[i : i + HASH_BYTES] for i in range(0, len(frontier), HASH_BYTES))


def subtrees(size: int) -> Iterator[tuple[int, int]]:
    """The complete subtrees of a tree of `size` leaves, largest first, as (level, index)."""
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            yield level, start >> level
            start += 1 << level


def range_root(start: int, end: int, node: NodeHash) -> bytes:
    """The root over the leaves [start, end), a subtree as RFC 6962 divides them."""
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split_point(count)
    return node_hash(range_root(start, middle, node), range_root(middle, end, node))


def inclusion_proof(index: int, size: int, node: NodeHash) -> list[bytes]:
    """What shows that leaf `index` is in the tree of `size` leaves (RFC 6962, section 2.1.1): PATH(m, D[n])."""
    assert 0 <= index < size
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split_point(end - start)
        if index < middle:
            path.append(range_root(middle, end, node))
            end = middle
        else:
            path.append(range_root(start, middle, node))
            start = middle
    return path[::-1]


def consistency_proof(old_size: int, new_size: int, node: NodeHash) -> list[bytes]:
    """What shows that the tree of `old_size` is a prefix of that of `new_size` (RFC 6962, section 2.1.2)."""
    assert 0 <= old_size <= new_size
    if old_size in {0, new_size}:
        return []
    proof: list[bytes] = []
    start, end, is_whole = 0, new_size, True
    while end != old_size:
        middle = start + _split_point(end - start)
        if old_size <= middle:
            proof.append(range_root(middle, end, node))
            end = middle
        else:
            proof.append(range_root(start, middle, node))
            start, is_whole = middle, False
    if not is_whole:
        proof.append(range_root(start, end, node))
    return proof[::-1]


def is_included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], whole: bytes) -> bool:
    """Does the proof lead from this leaf to the root of the tree? (RFC 9162, section 2.1.3.2)"""
    if not 0 <= index < size:
        return False
    position, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            found = node_hash(sibling, found)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and found == whole


def is_consistent(  # noqa: C901  # Step by step as the RFC has it, so that it can be held against it.
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Does the proof show that the new tree begins with the old one? (RFC 9162, section 2.1.4.2)"""
    if not 0 <= old_size <= new_size:
        return False
    if old_size == new_size:
        return not proof and old_root == new_root
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_found = new_found = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old_found = node_hash(sibling, old_found)
            new_found = node_hash(sibling, new_found)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            new_found = node_hash(new_found, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and old_found == old_root and new_found == new_root


def _split_point(count: int) -> int:
    """The largest power of two that is smaller than `count`."""
    return 1 << (count - 1).bit_length() - 1
