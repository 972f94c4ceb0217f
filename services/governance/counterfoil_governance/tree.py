"""The Merkle tree of RFC 6962 (section 2.1) over stored hashes of complete subtrees: appending, roots and proofs.

A node (level, index) covers the leaves [index << level, (index + 1) << level) and is stored once all of them are
there; leaves are level 0. A root or a proof then takes about log2(size) stored hashes, whatever the size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from counterfoil_chassis.audit_verify import EMPTY_ROOT, node_hash

from counterfoil_governance.entities import TreeNode

Place = tuple[int, int]
"""Where a hash stands: (level, index)."""

Hashes = Mapping[Place, bytes]


@dataclass(frozen=True)
class Span:
    """The leaves [begin, end) that one hash of a proof stands for; a power of two >= their number divides `begin`."""

    begin: int
    end: int

    @property
    def places(self) -> Sequence[Place]:
        """Where the stored hashes are that make up its hash, from left to right."""
        found, begin = [], self.begin
        while begin < self.end:
            level = (self.end - begin).bit_length() - 1
            found.append((level, begin >> level))
            begin += 1 << level
        return found

    def hash(self, hashes: Hashes) -> bytes:
        """Return its hash (MTH of RFC 6962) from the stored ones; raise KeyError when one is missing."""
        parts = [hashes[place] for place in self.places]
        return reduce(lambda right, left: node_hash(left, right), reversed(parts)) if parts else EMPTY_ROOT


def frontier(size: int) -> Sequence[Place]:
    """Return the places whose hashes are needed to append to a tree of this size."""
    return Span(0, size).places


def extend(size: int, leaves: Sequence[bytes], hashes: Hashes) -> list[TreeNode]:
    """Return the nodes above level 0 that these new leaves complete, given the hashes of the frontier."""
    edge = [(*place, hashes[place]) for place in frontier(size)]
    nodes = []
    for offset, leaf in enumerate(leaves):
        level, index, digest = 0, size + offset, leaf
        while index % 2:
            _, _, left = edge.pop()
            level, index, digest = level + 1, index // 2, node_hash(left, digest)
            nodes.append(TreeNode(level, index, digest))
        edge.append((level, index, digest))
    return nodes


def inclusion(index: int, size: int) -> list[Span]:
    """Return what the hashes of an audit path stand for, from the leaf up: PATH(index, D[size]) of section 2.1.1."""
    spans, begin, end = [], 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(begin, middle))
            begin = middle
    return spans[::-1]


def consistency(earlier: int, later: int) -> list[Span]:
    """Return what the hashes of a consistency proof stand for: PROOF(earlier, D[later]) of section 2.1.2.

    The proof between a tree and itself, and from the empty tree, is empty.
    """
    spans: list[Span] = []
    if not 0 < earlier < later:
        return spans
    begin, end, whole = 0, later, True
    while earlier < end:
        middle = begin + _split(end - begin)
        if earlier <= middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(begin, middle))
            begin, whole = middle, False
    if not whole:
        spans.append(Span(begin, end))
    return spans[::-1]


def places_of(spans: Iterable[Span]) -> list[Place]:
    """Return every place whose hash the spans need, once each."""
    return list(dict.fromkeys(place for span in spans for place in span.places))


def _split(size: int) -> int:
    """Return the largest power of two below the size."""
    return 1 << ((size - 1).bit_length() - 1)
