"""Proofs about the live log: that a record is in it, and that it continues an earlier checkpoint."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import tree
from server_monitor.db.tables import audit_head, audit_nodes, audit_records
from server_monitor.errors import NotFound, Unavailable

_BATCH = 512  # records

Place = tuple[int, int]
"""(level, index) of a node."""


async def inclusion(conn: AsyncConnection, seq: int, size: int) -> list[bytes]:
    """The proof that record `seq` is in the tree of the first `size` records.

    Raises NotFound when there is no such record, or when it has been pruned: its proof is in the archive.
    """
    head = (await conn.execute(select(audit_head.c.size, audit_head.c.min_index))).one()
    if not head.min_index <= seq < size <= head.size:
        raise NotFound("audit record", str(seq))
    return await _prove(conn, lambda node: tree.inclusion_proof(seq, size, node))


async def consistency(conn: AsyncConnection, old_size: int, new_size: int) -> list[bytes]:
    """The proof that the tree of `new_size` records begins with that of `old_size`. Raises NotFound."""
    head = (await conn.execute(select(audit_head.c.size, audit_head.c.min_index))).one()
    if not 0 <= old_size <= new_size <= head.size or 0 < old_size < head.min_index:
        raise NotFound("audit checkpoint", str(old_size))
    return await _prove(conn, lambda node: tree.consistency_proof(old_size, new_size, node))


async def root_at(conn: AsyncConnection, size: int) -> bytes:
    """The root of the first `size` records."""
    return tree.root(await frontier_at(conn, size))


async def frontier_at(conn: AsyncConnection, size: int) -> list[bytes]:
    """The frontier of the first `size` records. Raises NotFound when they have been pruned beyond `size`."""
    return await _prove(conn, lambda node: [node(level, index) for level, index in tree.subtrees(size)])


async def kept_frontier(conn: AsyncConnection) -> tuple[int, tuple[bytes, ...]]:
    """(first record that is kept, frontier of those before). Raises Unavailable when they do not fit each other."""
    head = (await conn.execute(select(audit_head.c.min_index, audit_head.c.prefix))).one()
    hashes = tree.split(head.prefix or b"")
    if len(hashes) != head.min_index.bit_count():
        raise Unavailable("The head of the audit log is damaged: what it keeps of pruned records does not fit them.")
    return head.min_index, hashes


async def grown(conn: AsyncConnection, frontier: Sequence[bytes], begin: int, end: int) -> tuple[bytes, ...]:
    """The frontier after the records [begin, end), from nothing but those. Raises NotFound when one is missing."""
    roots = tuple(frontier)
    for start in range(begin, end, _BATCH):
        leaves = await _leaves(conn, start, min(_BATCH, end - start))
        roots = await asyncio.to_thread(_grown, roots, start, leaves)
    return roots


def _grown(roots: tuple[bytes, ...], size: int, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    for index, leaf in enumerate(leaves, size):
        roots = tree.grow(roots, index, leaf)
    return roots


async def _prove(conn: AsyncConnection, proof: Callable[[tree.NodeHash], list[bytes]]) -> list[bytes]:
    """Run the pure algorithm twice: once to learn which nodes it asks for, once with their hashes."""
    wanted: set[Place] = set()

    def note(level: int, index: int) -> bytes:
        wanted.add((level, index))
        return tree.EMPTY_ROOT

    proof(note)
    pruned = await _pruned_nodes(conn)
    found = {place: await _node(conn, *place, pruned) for place in wanted}
    return proof(lambda level, index: found[level, index])


async def _pruned_nodes(conn: AsyncConnection) -> dict[Place, bytes]:
    """What is still known of records that have been pruned: the complete subtrees before the first that is kept."""
    min_index, hashes = await kept_frontier(conn)
    return dict(zip(tree.subtrees(min_index), hashes, strict=True))


async def _node(conn: AsyncConnection, level: int, index: int, pruned: Mapping[Place, bytes]) -> bytes:
    """One node, from the nearest stored level below it, or from the records themselves."""
    if (level, index) in pruned:
        return pruned[level, index]
    stored_level = level - level % tree.KEPT_LEVELS
    first, count = index << level - stored_level, 1 << level - stored_level
    if stored_level:
        kept = select(audit_nodes.c.hash).where(
            audit_nodes.c.level == stored_level, audit_nodes.c.idx >= first, audit_nodes.c.idx < first + count
        )
        hashes = list((await conn.execute(kept.order_by(audit_nodes.c.idx))).scalars())
        if len(hashes) == count:
            return _combined(hashes)
    if level and _begins_pruned(level, index, pruned):
        left = await _node(conn, level - 1, 2 * index, pruned)
        return tree.node_hash(left, await _node(conn, level - 1, 2 * index + 1, pruned))
    return _combined(await _leaves(conn, index << level, 1 << level))


def _begins_pruned(level: int, index: int, pruned: Mapping[Place, bytes]) -> bool:
    """Does this subtree begin with a smaller one that has been pruned?"""
    return any(below < level and number >> level - below == index for below, number in pruned)


async def _leaves(conn: AsyncConnection, first: int, count: int) -> list[bytes]:
    bodies = select(audit_records.c.body).where(audit_records.c.seq >= first, audit_records.c.seq < first + count)
    hashes = [tree.leaf_hash(body) for body in (await conn.execute(bodies.order_by(audit_records.c.seq))).scalars()]
    if len(hashes) < count:
        raise NotFound("audit record", str(first))
    return hashes


def _combined(hashes: list[bytes]) -> bytes:
    """The root over a power of two of equal subtrees."""
    while len(hashes) > 1:
        hashes = [tree.node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]
