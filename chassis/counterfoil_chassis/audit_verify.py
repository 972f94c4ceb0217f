"""Verify an exported audit log of Counterfoil. Needs Python 3.8 or newer, nothing else, and no network.

    python verify.py                        beside the unpacked export
    python verify.py EXPORT.zip             or on the archive, or on the folder of an unpacked one
    python verify.py EXPORT.zip --key KEY --witness CHECKPOINT

Every entry is hashed again from its bytes, the tree (RFC 6962) is built anew from these hashes, and both are compared
with every hash that was stored and every checkpoint that was signed (C2SP tlog-checkpoint, Ed25519 by RFC 8032).
Exit code 0: nothing was changed, removed, added or moved. Exit code 1: something was; each finding says what.

What an export cannot say by itself: whether its key is the right one (compare it, or pin it with --key), and whether
the whole log was written and signed anew by whoever holds the key (a checkpoint that you kept yourself, --witness,
tells that).
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import sys
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Iterable, Iterator, Sequence  # noqa: UP035 - Python 3.8 has them here

HEAD, ENTRIES, LEAVES = "head.json", "entries.jsonl", "leaves.jsonl"
NODES, CHECKPOINTS, KEY = "nodes.jsonl", "checkpoints.jsonl", "key.txt"
EMPTY_ROOT = hashlib.sha256(b"").digest()
SIGNED_AT = "signed_at "
_ED25519 = 1  # the signature type of C2SP signed-note
_SHOWN = 20
_LARGEST_GAP = 1 << 20


# ---- The tree: RFC 6962, section 2.1; checking of proofs: RFC 9162, sections 2.1.3.2 and 2.1.4.2 ----


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def proves_inclusion(leaf: bytes, *, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Tell whether an audit path proves that a leaf is at an index of the tree with this size and root."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if place % 2 or place == last:
            found = node_hash(sibling, found)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def proves_consistency(
    earlier: int, later: int, *, earlier_root: bytes, later_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Tell whether a proof shows that the tree of the earlier size is the beginning of the later one."""
    if earlier in (0, later):
        return not proof and earlier <= later and earlier_root == (later_root if earlier else EMPTY_ROOT)
    if not 0 < earlier < later or not proof:
        return False
    hashes = list(proof) if earlier & (earlier - 1) else [earlier_root, *proof]
    place, last = earlier - 1, later - 1
    while place % 2:
        place, last = place >> 1, last >> 1
    first = second = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if place % 2 or place == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and first == earlier_root and second == later_root


# ---- Ed25519: RFC 8032, section 5.1.7, in extended homogeneous coordinates (section 5.1.4) ----

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_SQRT_MINUS_1 = pow(2, (_P - 1) // 4, _P)
_NEUTRAL = (0, 1, 1, 0)


def _add(p: tuple[int, ...], q: tuple[int, ...]) -> tuple[int, ...]:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiply(scalar: int, point: tuple[int, ...]) -> tuple[int, ...]:
    product: tuple[int, ...] = _NEUTRAL
    while scalar:
        if scalar & 1:
            product = _add(product, point)
        point, scalar = _add(point, point), scalar >> 1
    return product


def _same_point(p: tuple[int, ...], q: tuple[int, ...]) -> bool:
    return (p[0] * q[2] - q[0] * p[2]) % _P == 0 and (p[1] * q[2] - q[1] * p[2]) % _P == 0


def _point(encoded: bytes) -> tuple[int, ...] | None:
    """Decode a point (section 5.1.3), or return None for bytes that are none."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _SQRT_MINUS_1 % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    x = _P - x if x % 2 != sign else x
    return x, y, 1, x * y % _P


_base = _point((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))


def verifies(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether an Ed25519 signature of a message is good under a public key of 32 bytes."""
    if len(public_key) != 32 or len(signature) != 64 or _base is None:
        return False
    key, commitment = _point(public_key), _point(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= _L:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % _L
    return _same_point(_multiply(scalar, _base), _add(commitment, _multiply(challenge, key)))


# ---- Checkpoints: C2SP signed-note and tlog-checkpoint ----


class NotACheckpointError(ValueError):
    """A text is no signed checkpoint, or no verifier key."""


@dataclass(frozen=True)
class VerifierKey:
    """What checks a log's signatures: `<name>+<key id>+<base64 of the type and the public key>`."""

    name: str
    key_id: bytes
    public_key: bytes

    @classmethod
    def of(cls, name: str, public_key: bytes) -> VerifierKey:
        """Return the verifier key of an Ed25519 public key of 32 bytes."""
        named = name.encode() + b"\n" + bytes([_ED25519]) + public_key
        return cls(name, hashlib.sha256(named).digest()[:4], public_key)

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a verifier key; raise NotACheckpointError."""
        name, _, rest = text.strip().partition("+")
        key_id, _, material = rest.partition("+")
        data = _unbase64(material)
        key = cls.of(name, data[1:])
        if data[:1] != bytes([_ED25519]) or len(data) != 33 or key.text != text.strip():
            raise NotACheckpointError(f"{text.strip()!r} is no Ed25519 verifier key, or its key id {key_id} is wrong")
        return key

    @property
    def text(self) -> str:
        """The key as people hand it on."""
        material = base64.b64encode(bytes([_ED25519]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{material}"


@dataclass(frozen=True)
class SignedCheckpoint:
    """A signed note, taken apart; `body` is what was signed, `signatures` are (name, key id, signature)."""

    origin: str
    size: int
    root: bytes
    signed_at: str
    body: str
    signatures: Sequence[tuple[str, bytes, bytes]]

    @classmethod
    def parse(cls, note: str) -> SignedCheckpoint:
        """Read a note; raise NotACheckpointError."""
        text, blank, signatures = note.rpartition("\n\n")
        lines = text.split("\n")
        if not blank or not signatures.endswith("\n") or len(lines) < 3 or not lines[0]:
            raise NotACheckpointError("no origin, size, root and signature, each on its line")
        if not (lines[1].isascii() and lines[1].isdigit()) or str(int(lines[1])) != lines[1]:
            raise NotACheckpointError(f"the size {lines[1]!r} is no number")
        signed_at = next((line[len(SIGNED_AT) :] for line in lines[3:] if line.startswith(SIGNED_AT)), "")
        parts = tuple(_signature(line) for line in signatures[:-1].split("\n"))
        return cls(lines[0], int(lines[1]), _unbase64(lines[2]), signed_at, text + "\n", parts)

    def signed_by(self, key: VerifierKey) -> bool:
        """Tell whether one of the signatures is this key's, and good."""
        mine = [signature for name, key_id, signature in self.signatures if (name, key_id) == (key.name, key.key_id)]
        return any(verifies(key.public_key, self.body.encode(), signature) for signature in mine)


def checkpoint_body(origin: str, *, size: int, root: bytes, signed_at: str) -> str:
    """Return what is signed of a checkpoint: origin, size, root, and the time as an extension line."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n{SIGNED_AT}{signed_at}\n"


def signed_note(body: str, key: VerifierKey, signature: bytes) -> str:
    """Return the note that a body and its signature make."""
    return f"{body}\n\u2014 {key.name} {base64.b64encode(key.key_id + signature).decode()}\n"


def _signature(line: str) -> tuple[str, bytes, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, material = rest.partition(" ")
    data = _unbase64(material)
    if dash != "\u2014" or not name or len(data) < 5:
        raise NotACheckpointError(f"{line!r} is no signature line")
    return name, data[:4], data[4:]


def _unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise NotACheckpointError(f"{text!r} is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise NotACheckpointError(f"{text!r} is not base64 in its one right form")
    return data


# ---- What is found ----


@dataclass(frozen=True)
class Finding:
    """Something that does not fit: a stable code, the first entry it concerns (-1 = none), and plain words."""

    reason: str
    index: int
    detail: str


@dataclass
class Report:
    """What a verification did and found."""

    origin: str = ""
    entries: int = 0
    nodes: int = 0
    checkpoints: int = 0
    witnesses: int = 0
    root: bytes = EMPTY_ROOT
    signed_at: str = ""
    keys: list[str] = field(default_factory=list)
    pinned: bool = False
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Tell whether everything fits."""
        return not self.findings

    def add(self, reason: str, index: int, detail: str) -> None:
        """Note something that does not fit."""
        self.findings.append(Finding(reason, index, detail))

    def text(self) -> str:
        """Return the report for people."""
        lines = [
            f"Audit log {self.origin or '(unnamed)'}",
            f"  entries      {self.entries:,} hashed again from their bytes",
            f"  tree         {self.nodes:,} stored hashes compared; root {self.root.hex()}",
            f"  checkpoints  {self.checkpoints:,} with a good signature; the newest of {self.signed_at or 'never'}",
        ]
        lines += [f"  witnesses    {self.witnesses:,} kept elsewhere, compared"] if self.witnesses else []
        lines += [f"  key          {key}" for key in self.keys]
        if self.keys and not self.pinned:
            lines.append("               Nobody vouches for it here: compare it with the key you know, or say --key.")
        return "\n".join(_printable(line) for line in [*lines, "", *self._verdict(), ""])

    def _verdict(self) -> list[str]:
        if self.ok:
            return ["OK: nothing was changed, removed, added or moved."]
        count = len(self.findings)
        lines = [f"FAILED: {count} {'thing does' if count == 1 else 'things do'} not fit."]
        lines += [
            f"  {found.reason}{f', entry {found.index}' if found.index >= 0 else ''}: {found.detail}"
            for found in self.findings[:_SHOWN]
        ]
        return lines + ([f"  ... and {count - _SHOWN} more."] if count > _SHOWN else [])


# ---- Reading an export ----


class NotAnExportError(ValueError):
    """There is no export here, or it lacks a part."""


class Export:
    """The files of an export: a folder, or a ZIP archive."""

    def __init__(self, place: Path | IO[bytes]) -> None:
        self._folder = place if isinstance(place, Path) and place.is_dir() else None
        try:
            self._archive = None if self._folder else zipfile.ZipFile(place)
        except (OSError, zipfile.BadZipFile) as error:
            raise NotAnExportError(f"{place} is no export: {error}") from None

    def close(self) -> None:
        """Close the archive."""
        if self._archive is not None:
            self._archive.close()

    def open(self, name: str) -> IO[bytes]:
        """Open a file; raise NotAnExportError when it is not there."""
        try:
            if self._archive is not None:
                return self._archive.open(name)
            return Path(self._folder or ".", name).open("rb")
        except (OSError, KeyError):
            raise NotAnExportError(f"the export lacks {name}") from None

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        with self.open(name) as file:
            return file.read()

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of a file with one on each line; raise NotAnExportError for another line."""
        with self.open(name) as file:
            for number, line in enumerate(file, 1):
                yield _object(line, where=f"line {number} of {name}")


def _object(text: bytes, *, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise NotAnExportError(f"{where} is no JSON object")
    return value


# ---- Verifying ----


def verify(place: Path | IO[bytes], *, keys: Iterable[str] = (), witnesses: Iterable[str] = ()) -> Report:
    """Verify an export: a folder, an archive, or an open one.

    `keys` are the verifier keys that may have signed, any when there is none; `witnesses` are the texts of checkpoints
    that were kept outside. What cannot be read is a finding, too.
    """
    report = Report()
    try:
        export = Export(place)
    except NotAnExportError as error:
        report.add("EXPORT_UNREADABLE", -1, f"{error}.")
        return report
    try:
        _Verification(export, report).run([*keys], [*witnesses])
    except (
        NotAnExportError,
        NotACheckpointError,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        EOFError,
        OSError,
    ) as error:
        report.add("EXPORT_UNREADABLE", -1, f"{error}.")
    finally:
        export.close()
    return report


class _Verification:
    """One run over one export; `_levels[n]` are the hashes that the tree should have at level n."""

    def __init__(self, export: Export, report: Report) -> None:
        self._export = export
        self._report = report
        head = _object(export.read(HEAD), where=HEAD)
        self._workspace = str(head.get("workspace"))
        self._size = head.get("size")
        self._signed = head.get("checkpoints")
        report.origin = str(head.get("origin"))
        self._levels: list[list[bytes]] = [[]]

    def run(self, pins: list[str], witnesses: list[str]) -> None:
        """Compare everything with everything else."""
        nodes = self._nodes()
        self._entries(nodes)
        self._tree(nodes)
        accepted = [VerifierKey.parse(pin) for pin in pins]
        self._report.pinned = bool(accepted)
        known = self._checkpoints(accepted)
        for witness in witnesses:
            self._witness(witness, accepted or known)

    def _nodes(self) -> dict[tuple[int, int], bytes]:
        nodes: dict[tuple[int, int], bytes] = {}
        for row in self._export.rows(NODES):
            place = (_whole(row.get("level")), _whole(row.get("index")))
            if place in nodes or min(place[0] - 1, place[1]) < 0:
                self._report.add("NODE_UNEXPECTED", -1, f"a hash is stored at level {place[0]}, place {place[1]}.")
            nodes.setdefault(place, _unhex(row.get("hash")))
        return nodes

    def _entries(self, nodes: dict[tuple[int, int], bytes]) -> None:
        """Hash every entry again and note the leaf that the tree should have; b"" where an entry is missing."""
        leaves = self._levels[0]
        changed: list[tuple[int, bytes, bytes, bytes]] = []
        with self._export.open(ENTRIES) as bodies:
            for row in self._export.rows(LEAVES):
                index = _whole(row.get("index"))
                body = bodies.read(max(0, _whole(row.get("bytes"))))
                if bodies.read(1) != b"\n":
                    raise NotAnExportError(f"{ENTRIES} does not go with {LEAVES}")
                if not len(leaves) <= index < min(_limit(self._size), len(leaves) + _LARGEST_GAP):
                    self._unexpected(index, body)
                    continue
                if index > len(leaves):
                    self._missing(len(leaves), index)
                    leaves.extend([b""] * (index - len(leaves)))
                computed, stored = leaf_hash(body), _unhex(row.get("leaf"))
                leaves.append(stored)
                self._report.entries += 1
                if computed != stored:
                    changed.append((index, computed, stored, body))
                else:
                    self._columns(index, row, body)
            if bodies.read(1):
                raise NotAnExportError(f"{ENTRIES} goes on after the last leaf")
        if not isinstance(self._size, int):
            self._report.add("HEAD_MISSING", -1, "the log's length is not stored.")
        elif len(leaves) < self._size:
            self._missing(len(leaves), self._size)
        for index, computed, stored, body in changed:
            self._changed(index, computed=computed, stored=stored, body=body, nodes=nodes)

    def _changed(
        self, index: int, *, computed: bytes, stored: bytes, body: bytes, nodes: dict[tuple[int, int], bytes]
    ) -> None:
        """Tell a changed leaf from a changed entry: the node above was made from the right one."""
        leaves, parent, sibling = self._levels[0], nodes.get((1, index // 2)), index ^ 1
        if parent is not None and sibling < len(leaves):
            other = leaves[sibling]
            if parent == (node_hash(other, computed) if index % 2 else node_hash(computed, other)):
                leaves[index] = computed
                detail = "the stored hash of the entry was changed; its bytes fit the tree"
                self._report.add("LEAF_CHANGED", index, f"{detail}. {_shown(body)}")
                return
        detail = f"its bytes hash to {computed.hex()}, but {stored.hex()} is stored"
        self._report.add("ENTRY_CHANGED", index, f"{detail}. {_shown(body)}")

    def _columns(self, index: int, row: dict[str, Any], body: bytes) -> None:
        """Compare what an entry is found by with what it says."""
        try:
            entry = _object(body, where="it")
        except NotAnExportError as error:
            self._report.add("ENTRY_CHANGED", index, f"{error}.")
            return
        if entry.get("index") != index or entry.get("workspace") != self._workspace:
            said = f"entry {entry.get('index')} of the log of {entry.get('workspace')!r}"
            self._report.add("ENTRY_MOVED", index, f"at its place is {said}. {_shown(body)}")
        for name in ("entry_id", "principal", "resource"):
            if row.get(name) != entry.get(name):
                detail = f"it is filed under the {name} {row.get(name)!r}, but says {entry.get(name)!r}"
                self._report.add("COLUMN_CHANGED", index, f"{detail}. {_shown(body)}")

    def _missing(self, begin: int, end: int) -> None:
        which = f"entry {begin} is" if end == begin + 1 else f"entries {begin} to {end - 1} are"
        self._report.add("ENTRY_MISSING", begin, f"{which} not there.")

    def _unexpected(self, index: int, body: bytes) -> None:
        detail = f"an entry stands at place {index}, where none belongs"
        self._report.add("ENTRY_UNEXPECTED", index, f"{detail}. {_shown(body)}")

    def _tree(self, nodes: dict[tuple[int, int], bytes]) -> None:
        """Build the tree anew and compare each stored hash with the two below it."""
        wrong: set[tuple[int, int]] = set()
        while len(self._levels[-1]) > 1:
            level, below = len(self._levels), self._levels[-1]
            self._levels.append([])
            for index in range(len(below) // 2):
                stored = nodes.pop((level, index), None)
                computed = self._node(level, index, stored)
                self._levels[level].append(computed)
                if stored == computed:
                    self._report.nodes += 1
                    continue
                wrong.add((level, index))
                if stored is not None and ((level - 1, 2 * index) in wrong or (level - 1, 2 * index + 1) in wrong):
                    continue  # said already, lower down
                reason = "NODE_MISSING" if stored is None else "NODE_CHANGED"
                span = f"entries {index << level} to {((index + 1) << level) - 1}"
                words = "is not there" if stored is None else "does not fit the two hashes below it"
                self._report.add(reason, index << level, f"the hash over {span} (level {level}, {index}) {words}.")
        for level, index in sorted(nodes):
            if level > 0 and index >= 0:
                where = f"level {level}, place {index}, where none belongs"
                self._report.add("NODE_UNEXPECTED", -1, f"a hash is stored at {where}.")
        self._report.root = self._root(len(self._levels[0])) or EMPTY_ROOT

    def _node(self, level: int, index: int, stored: bytes | None) -> bytes:
        left, right = self._levels[level - 1][2 * index], self._levels[level - 1][2 * index + 1]
        if not left or not right:  # an entry below is missing, which was said; what is stored must do
            return stored or b""
        return node_hash(left, right)

    def _root(self, size: int) -> bytes | None:
        """Return the root of the first entries, or None when some are missing."""
        parts, begin = [], 0
        while begin < size:
            level = (size - begin).bit_length() - 1
            if level >= len(self._levels) or (begin >> level) >= len(self._levels[level]):
                return None
            parts.append(self._levels[level][begin >> level])
            begin += 1 << level
        if not all(parts):
            return None
        root = parts.pop() if parts else EMPTY_ROOT
        while parts:
            root = node_hash(parts.pop(), root)
        return root

    def _checkpoints(self, accepted: list[VerifierKey]) -> list[VerifierKey]:
        """Check every signed checkpoint and return the keys that signed."""
        newest = own = VerifierKey.parse(self._export.read(KEY).decode("utf-8", "replace"))
        keys, count, covered = {own.text: own}, 0, -1
        for row in self._export.rows(CHECKPOINTS):
            number, name = _whole(row.get("number")), f"checkpoint {row.get('number')}"
            if number != count:
                self._report.add("CHECKPOINT_MISSING", -1, f"{name} stands where checkpoint {count} belongs.")
            count = number + 1
            try:
                signed = SignedCheckpoint.parse(str(row.get("note")))
                key = VerifierKey.parse(str(row.get("verifier_key")))
            except NotACheckpointError as error:
                self._report.add("CHECKPOINT_CHANGED", -1, f"{name} cannot be read: {error}.")
                continue
            if signed.size != row.get("tree_size"):
                detail = f"{name} is filed under {row.get('tree_size')} entries, but covers {signed.size}"
                self._report.add("CHECKPOINT_CHANGED", -1, f"{detail}.")
            self._covers(signed, name, reason="CHECKPOINT_ROOT")
            if self._signature(signed, name, key=key, accepted=accepted):
                keys[key.text] = newest = key
                covered, self._report.signed_at = signed.size, signed.signed_at
                self._report.checkpoints += 1
        if newest != own:
            self._report.add("KEY_CHANGED", -1, f"the newest checkpoint is not signed by the key of {KEY}.")
        self._counted(count, covered)
        self._report.keys = list(keys)
        return list(keys.values())

    def _signature(self, signed: SignedCheckpoint, name: str, *, key: VerifierKey, accepted: list[VerifierKey]) -> bool:
        if signed.origin != self._report.origin or key.name != signed.origin:
            self._report.add("CHECKPOINT_ORIGIN", -1, f"{name} is of the log {signed.origin!r}.")
            return False
        if accepted and key not in accepted:
            self._report.add("KEY_UNKNOWN", -1, f"{name} is signed by a key that --key does not name: {key.text}.")
            return False
        if not signed.signed_by(key):
            self._report.add("CHECKPOINT_SIGNATURE", -1, f"the signature of {name} is not good.")
            return False
        return True

    def _covers(self, signed: SignedCheckpoint, name: str, *, reason: str) -> None:
        """Compare a signed root with the tree that was built anew."""
        size = len(self._levels[0])
        if signed.size > size:
            self._report.add("ENTRY_MISSING", size, f"{name} covers more than the {size} entries that are there.")
            return
        root = self._root(signed.size)
        if root != signed.root:
            found = "an entry is missing" if root is None else f"these entries make {root.hex()}"
            self._report.add(reason, -1, f"{name} was signed with the root {signed.root.hex()}, but {found}.")

    def _counted(self, count: int, covered: int) -> None:
        if isinstance(self._signed, int) and count != self._signed:
            reason = "CHECKPOINT_MISSING" if count < self._signed else "CHECKPOINT_UNEXPECTED"
            self._report.add(reason, -1, f"{count} checkpoints are there, {self._signed} were signed.")
        if covered < len(self._levels[0]):
            self._report.add("ENTRY_UNSIGNED", max(covered, 0), "no good checkpoint covers the log from here on.")

    def _witness(self, text: str, keys: Iterable[VerifierKey]) -> None:
        """Compare a checkpoint that was kept outside."""
        try:
            signed = SignedCheckpoint.parse(_note_of(text))
        except NotACheckpointError as error:
            self._report.add("WITNESS_UNREADABLE", -1, f"the witness is no checkpoint: {error}.")
            return
        name = f"the witness's checkpoint over {signed.size} entries"
        if signed.origin != self._report.origin:
            self._report.add("WITNESS_ORIGIN", -1, f"{name} is of the log {signed.origin!r}.")
            return
        if not any(signed.signed_by(key) for key in keys):
            self._report.add("WITNESS_SIGNATURE", -1, f"{name} is signed by a key that this export does not know.")
        self._covers(signed, name, reason="WITNESS_ROOT")
        self._report.witnesses += 1


def _note_of(text: str) -> str:
    """Return the note in a text: the text itself, or the `note` of the JSON that `GET /v1/audit/checkpoint` answers."""
    if text.lstrip().startswith("{"):
        try:
            return str(json.loads(text).get("note"))
        except ValueError as error:
            raise NotACheckpointError(f"no JSON: {error}") from None
    return text.replace("\r\n", "\n")


def _shown(body: bytes) -> str:
    """Return what an entry says of itself, for a line to people."""
    try:
        entry = json.loads(body)
        said = " ".join(str(entry[name]) for name in ("happened_at", "principal", "action", "resource"))
    except (ValueError, KeyError, TypeError):
        return "It cannot be read any more."
    return f"It says: {said}"


def _printable(line: str) -> str:
    """Return a line without what could steer a terminal: tampered texts are shown, too."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in line)


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _limit(size: object) -> int:
    return size if isinstance(size, int) else sys.maxsize


def _unhex(value: object) -> bytes:
    try:
        return bytes.fromhex(str(value))
    except ValueError:
        return b"not a hash"


def main(arguments: list[str] | None = None) -> int:
    """Verify an export and write the report; return the exit code."""
    parser = argparse.ArgumentParser(prog="verify.py", description=(__doc__ or "").splitlines()[0])
    here = Path(__file__).resolve().parent
    parser.add_argument("export", nargs="?", type=Path, default=here, help="archive or folder; by default this one")
    parser.add_argument("--key", action="append", default=[], help="a verifier key that may have signed; repeatable")
    parser.add_argument("--witness", action="append", default=[], type=Path, help="file of a checkpoint kept outside")
    asked = parser.parse_args(arguments)
    try:
        witnesses = [each.read_text(encoding="utf-8") for each in asked.witness]
    except (OSError, ValueError) as error:
        parser.error(f"a witness cannot be read: {error}")
    report = verify(asked.export, keys=asked.key, witnesses=witnesses)
    encoding = sys.stdout.encoding or "utf-8"  # which may lack what an entry says
    sys.stdout.write(report.text().encode(encoding, "backslashreplace").decode(encoding))
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
