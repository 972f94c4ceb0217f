"""The tree against the recursive definitions of RFC 6962, section 2.1, written down here as they stand there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from counterfoil_chassis.audit_verify import leaf_hash, proves_consistency, proves_inclusion
from counterfoil_governance import tree
from hypothesis import given, settings
from hypothesis import strategies as st

# The inputs and roots of the tests of the first Certificate Transparency log (RFC 6962's authors).
INPUTS = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
MOST = 70


def mth(entries: Sequence[bytes]) -> bytes:
    """MTH(D[n])."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


def path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n])."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    return [*path(m, entries[:k]), mth(entries[k:])] if m < k else [*path(m - k, entries[k:]), mth(entries[:k])]


def subproof(m: int, entries: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b)."""
    if m == len(entries):
        return [] if whole else [mth(entries)]
    k = split(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], whole=whole), mth(entries[k:])]
    return [*subproof(m - k, entries[k:], whole=False), mth(entries[:k])]


def split(n: int) -> int:
    """Return the largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


class Grown:
    """A tree that grew in steps, with nothing but stored hashes."""

    def __init__(self, entries: Sequence[bytes], steps: Sequence[int]) -> None:
        self.entries = entries
        self.hashes: dict[tree.Place, bytes] = {}
        size = 0
        for step in [*steps, len(entries)]:
            leaves = [leaf_hash(entry) for entry in entries[size : size + step]]
            nodes = tree.extend(size, leaves, {place: self.hashes[place] for place in tree.frontier(size)})
            self.hashes |= {(0, size + offset): leaf for offset, leaf in enumerate(leaves)}
            assert not self.hashes.keys() & {(node.level, node.index) for node in nodes}
            self.hashes |= {(node.level, node.index): node.hash for node in nodes}
            size += len(leaves)

    def all(self, spans: Sequence[tree.Span]) -> list[bytes]:
        return [span.hash({place: self.hashes[place] for place in span.places}) for span in spans]


def entries(count: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(count)]


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_the_published_vectors(size: int) -> None:
    grown = Grown(INPUTS[:size], [])
    assert grown.all([tree.Span(0, size)])[0].hex() == ROOTS[size - 1]
    assert mth(INPUTS[:size]).hex() == ROOTS[size - 1]


def test_proofs_are_those_of_the_published_vectors() -> None:
    grown = Grown(INPUTS, [])
    inclusion = [each.hex() for each in grown.all(tree.inclusion(5, 8))]
    assert inclusion == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    consistency = [each.hex() for each in grown.all(tree.consistency(6, 8))]
    assert consistency == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, MOST), st.lists(st.integers(0, 9), max_size=8))
def test_the_root_is_the_same_however_the_tree_grew(size: int, steps: list[int]) -> None:
    grown = Grown(entries(size), steps)
    assert grown.all([tree.Span(0, size)]) == [mth(entries(size))]
    stored = {place for place in grown.hashes if place[0]}
    assert stored == {(level, index) for level in range(1, 8) for index in range(size >> level)}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 31, 32, 33, 64, 70])
def test_every_inclusion_proof_is_the_definition_s_and_is_accepted_at_its_place_alone(size: int) -> None:
    grown = Grown(entries(size), [])
    root = mth(entries(size))
    for index, entry in enumerate(entries(size)):
        proof = grown.all(tree.inclusion(index, size))
        assert proof == path(index, entries(size))
        proved = {"path": proof, "root": root}
        assert proves_inclusion(leaf_hash(entry), index=index, size=size, **proved)
        for other in {0, index - 1, index + 1, size - 1} - {index}:
            assert not proves_inclusion(leaf_hash(entry), index=other, size=size, **proved)
        assert not proves_inclusion(leaf_hash(b"other"), index=index, size=size, **proved)
        assert not proves_inclusion(leaf_hash(entry), index=index, size=size, path=[*proof, root], root=root)
        if proof:
            assert not proves_inclusion(leaf_hash(entry), index=index, size=size, path=proof[:-1], root=root)


@pytest.mark.parametrize("later", [1, 2, 3, 5, 8, 13, 31, 32, 33, 64, 70])
def test_every_consistency_proof_is_the_definition_s_and_proves_no_other_tree(later: int) -> None:
    grown = Grown(entries(later), [])
    root, forged = mth(entries(later)), mth([*entries(later)[:-1], b"other"])
    for earlier in range(1, later + 1):
        proof = grown.all(tree.consistency(earlier, later))
        assert proof == subproof(earlier, entries(later), whole=True)
        first = mth(entries(earlier))
        assert proves_consistency(earlier, later, earlier_root=first, later_root=root, proof=proof)
        assert not proves_consistency(earlier, later, earlier_root=first, later_root=forged, proof=proof)
        assert not proves_consistency(earlier, later, earlier_root=forged, later_root=root, proof=proof)
        longer = [*proof, root]
        assert not proves_consistency(earlier, later, earlier_root=first, later_root=root, proof=longer)
        if proof:
            assert not proves_consistency(earlier, later, earlier_root=first, later_root=root, proof=proof[:-1])


def test_from_the_empty_tree_and_to_itself_nothing_needs_a_proof() -> None:
    root, empty = mth(entries(5)), mth([])
    assert tree.consistency(0, 5) == tree.consistency(5, 5) == []
    assert proves_consistency(0, 5, earlier_root=empty, later_root=root, proof=[])
    assert proves_consistency(5, 5, earlier_root=root, later_root=root, proof=[])
    assert not proves_consistency(0, 5, earlier_root=root, later_root=root, proof=[])
    assert not proves_consistency(5, 5, earlier_root=root, later_root=empty, proof=[])
    assert not proves_consistency(6, 5, earlier_root=root, later_root=root, proof=[])
