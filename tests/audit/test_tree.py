"""The tree and its proofs: as RFC 6962 defines them, and impossible to satisfy with anything else."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.audit import tree

# Leaves and roots that implementations of Certificate Transparency share.
SHARED_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
SHARED_ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}

sizes = st.integers(1, 70)


def leaves_of(size: int) -> list[bytes]:
    return [tree.leaf_hash(b"record %d" % number) for number in range(size)]


def reference_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + reference_root(leaves[:k]) + reference_root(leaves[k:])).digest()


def nodes_of(leaves: list[bytes]) -> tree.NodeHash:
    return lambda level, index: reference_root(leaves[index << level : (index + 1) << level])


def frontier_of(leaves: list[bytes]) -> tuple[bytes, ...]:
    frontier: tuple[bytes, ...] = ()
    for size, leaf in enumerate(leaves):
        frontier = tree.grow(frontier, size, leaf)
    return frontier


@pytest.mark.parametrize(("size", "root"), SHARED_ROOTS.items())
def test_the_roots_are_those_that_others_compute(size: int, root: str) -> None:
    leaves = [tree.leaf_hash(bytes.fromhex(text)) for text in SHARED_LEAVES[:size]]

    assert tree.root(frontier_of(leaves)).hex() == root


@given(st.integers(0, 70))
def test_the_frontier_is_the_roots_of_the_complete_subtrees(size: int) -> None:
    leaves = leaves_of(size)
    frontier = frontier_of(leaves)

    assert tree.root(frontier) == reference_root(leaves)
    assert list(frontier) == [nodes_of(leaves)(level, index) for level, index in tree.subtrees(size)]
    assert tree.split(b"".join(frontier)) == frontier


@given(sizes, st.data())
def test_every_leaf_is_proven_and_no_other(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = leaves_of(size)
    root = reference_root(leaves)

    proof = tree.inclusion_proof(index, size, nodes_of(leaves))

    assert tree.is_included(leaves[index], index, size, proof, root)
    assert not tree.is_included(tree.leaf_hash(b"forged"), index, size, proof, root)
    assert not tree.is_included(leaves[index], index, size, [*proof, root], root)
    for wrong in {index - 1, index + 1, size} - {index}:
        assert not tree.is_included(leaves[index], wrong, size, proof, root)
    for position in range(len(proof)):
        cut = proof[:position] + proof[position + 1 :]
        assert not tree.is_included(leaves[index], index, size, cut, root)
        assert not tree.is_included(leaves[index], index, size, _flipped(proof, position), root)


@given(sizes, st.data())
def test_a_longer_tree_is_proven_to_begin_with_a_shorter_one(new_size: int, data: st.DataObject) -> None:
    old_size = data.draw(st.integers(0, new_size))
    leaves = leaves_of(new_size)
    old_root, new_root = reference_root(leaves[:old_size]), reference_root(leaves)

    proof = tree.consistency_proof(old_size, new_size, nodes_of(leaves))

    assert tree.is_consistent(old_size, old_root, new_size, new_root, proof)
    assert not tree.is_consistent(old_size, old_root, new_size, new_root, [*proof, new_root])
    for position in range(len(proof)):
        assert not tree.is_consistent(old_size, old_root, new_size, new_root, _flipped(proof, position))
    if 0 < old_size < new_size:
        assert not tree.is_consistent(old_size, tree.leaf_hash(b"x"), new_size, new_root, proof)
        assert not tree.is_consistent(old_size, old_root, new_size, tree.leaf_hash(b"x"), proof)


def test_a_shorter_tree_never_continues_a_longer_one() -> None:
    leaves = leaves_of(5)

    assert not tree.is_consistent(5, reference_root(leaves), 4, reference_root(leaves[:4]), [])


def _flipped(proof: list[bytes], position: int) -> list[bytes]:
    damaged = bytes([proof[position][0] ^ 1]) + proof[position][1:]
    return [*proof[:position], damaged, *proof[position + 1 :]]
