"""Bundles as text: cutting them into policies with their lines, and checking them before anybody asks them."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import cedarpy
import orjson
from counterfoil_chassis.errors import FieldViolation
from counterfoil_chassis.policy import BundleUnreadableError, Policies

from counterfoil_governance.entities import Policy, PolicyEffect
from counterfoil_governance.errors import PoliciesInvalidError

MOST_POLICIES: Final = 500
DEEPEST: Final = 50
"""How deep brackets may nest, and how many `if` a policy may hold. Cedar's parser recurses: some 1,000 nested brackets
or 10,000 operators in a row overflow its stack and end the process. Nothing like that reaches it."""
MOST_OPERATORS: Final = 2000
"""How many characters of operators a policy may hold; `&&` counts twice."""
_OPERATORS: Final = frozenset("&|+-*.!<>=")
MOST_FINDINGS: Final = 50
_FIELD: Final = "policies"
_WORD: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|[A-Za-z_][A-Za-z0-9_]*|[][(){};]|.', re.DOTALL)
_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_POSITION: Final = re.compile(r"^for policy `[^`]*`, ")


@dataclass(frozen=True)
class _Piece:
    """The text of one policy with its comments, and the line where it begins."""

    line: int
    text: str
    too_deep: bool

    @functools.cached_property
    def document(self) -> Any:
        """Return what Cedar reads; raise ValueError when it cannot."""
        return _parsed(self.text)


@dataclass(frozen=True)
class CheckedPolicies:
    """A text without faults, the schema it was held to, and its policies in their order."""

    text: str
    schema: str
    policies: Sequence[Policy]


def shipped_policies() -> str:
    """Return the policies that every workspace begins with."""
    return _shipped("policies.cedar")


def shipped_schema() -> str:
    """Return this release's schema, which new bundles are held to."""
    return _shipped("schema.cedarschema")


def read_policies(text: str) -> Sequence[Policy]:
    """Return the policies of a bundle in the order of their text; the bundle was checked before."""
    return [policy for piece in _pieces(text) if (policy := _policy(piece)) is not None]


def check_policies(text: str, *, schema: str) -> CheckedPolicies:
    """Return a new bundle as checked; raise PoliciesInvalidError with a violation for every fault, by its line.

    Each policy needs a unique @id and an @owner, and must fit the schema.
    """
    pieces = list(_pieces(text))
    findings: list[FieldViolation] = []
    if not pieces:
        findings.append(_finding(1, "POLICY_NONE", "there is no policy; without one nothing is allowed to anybody"))
    if len(pieces) > MOST_POLICIES:
        findings.append(_finding(1, "POLICY_TOO_MANY", f"a bundle holds at most {MOST_POLICIES} policies"))
    if not findings:
        findings += [fault for piece in pieces if (fault := _shape_fault(piece))]
    if not findings:
        findings += _faults(pieces)
    if not findings:
        findings += _schema_faults(pieces, schema)
    if not findings and (fault := _whole_fault(text, pieces, schema)):
        findings.append(fault)
    if findings:
        first = findings[0]
        raise PoliciesInvalidError(
            f"The bundle has {len(findings)} fault(s), the first at {first.description}. Correct and submit it again.",
            metadata={"faults": str(len(findings))},
            violations=findings[:MOST_FINDINGS],
        )
    return CheckedPolicies(text, schema, read_policies(text))


def _pieces(text: str) -> Iterator[_Piece]:
    """Cut a text after each `;` outside brackets, strings and comments; what follows the last is a piece."""
    words: list[str] = []
    begin, line, begin_line, depth = 0, 1, 0, 0
    for match in _WORD.finditer(text):
        word = match[0]
        if not word.isspace() and not word.startswith("//"):
            begin_line = begin_line or line
            words.append(word)
            depth += (word in _OPENING) - (word in _CLOSING)
            if word == ";" and depth <= 0:
                yield _piece(begin_line, text[begin : match.end()], words)
                words, begin, begin_line, depth = [], match.end(), 0, 0
        line += word.count("\n")
    if words:
        yield _piece(begin_line, text[begin:], words)


def _piece(line: int, text: str, words: Sequence[str]) -> _Piece:
    depths = itertools.accumulate((word in _OPENING) - (word in _CLOSING) for word in words)
    too_deep = max(depths) > DEEPEST or words.count("if") > DEEPEST
    return _Piece(line, text.strip(), too_deep or sum(word in _OPERATORS for word in words) > MOST_OPERATORS)


def _shape_fault(piece: _Piece) -> FieldViolation | None:
    """Refuse what must not reach Cedar's parser, and what it cannot parse."""
    if piece.too_deep:
        what = f"a policy nests at most {DEEPEST} brackets, holds as many `if`, and not too many operators"
        return _finding(piece.line, "POLICY_TOO_DEEP", f"{what}; cut it into several")
    try:
        document = piece.document
    except ValueError as error:
        return _finding(piece.line, "POLICY_SYNTAX", str(error))
    if document["templates"]:
        return _finding(piece.line, "POLICY_TEMPLATE", "?principal and ?resource are not supported; write them out")
    if len(document["staticPolicies"]) != 1:
        return _finding(piece.line, "POLICY_SYNTAX", "write one policy after the other, each ended by `;`")
    try:
        cedarpy.PolicySet.from_json_str(orjson.dumps(document).decode())
    except (ValueError, TypeError):  # Cedar's recursion limit, or orjson's
        return _finding(piece.line, "POLICY_TOO_DEEP", "a condition is too long; cut the policy into several")
    return None


def _faults(pieces: Sequence[_Piece]) -> Iterator[FieldViolation]:
    seen: dict[str, int] = {}
    for piece in pieces:
        annotations = _annotations(piece)
        name = annotations.get("id") or ""
        if not _ID.fullmatch(name):
            what = "a policy needs an @id of lower-case letters, digits and hyphens, by which refusals name it"
            yield _finding(piece.line, "POLICY_ID", what)
        elif name in seen:
            yield _finding(piece.line, "POLICY_ID_REPEATED", f"the @id {name} is used in line {seen[name]} already")
        seen.setdefault(name, piece.line)
        if not (annotations.get("owner") or "").strip():
            yield _finding(piece.line, "POLICY_OWNER", "a policy needs an @owner, whom people ask about it")


def _schema_faults(pieces: Sequence[_Piece], schema: str) -> Iterator[FieldViolation]:
    parsed = cedarpy.Schema.from_str(schema)
    for piece in pieces:
        result = cedarpy.validate_policies(piece.text, parsed)
        name = _annotations(piece)["id"]
        for error in dict.fromkeys(_POSITION.sub("", each.error) for each in result.errors):
            yield _finding(piece.line, "POLICY_SCHEMA", f"{name}: {error}")


def _whole_fault(text: str, pieces: Sequence[_Piece], schema: str) -> FieldViolation | None:
    """Compare the bundle as every process will read it with the policies that were checked here one by one."""
    read = list(_parsed(text)["staticPolicies"].values())
    checked = [document for piece in pieces for document in piece.document["staticPolicies"].values()]
    try:
        Policies(version=0, policies=text, schema=schema)
    except BundleUnreadableError as error:
        return _finding(1, "POLICY_SYNTAX", f"the bundle cannot be read as a whole: {error}")
    if read != checked:
        return _finding(1, "POLICY_SYNTAX", "the bundle reads otherwise as a whole than policy by policy")
    return None


def _policy(piece: _Piece) -> Policy | None:
    document = piece.document
    for policy in document["staticPolicies"].values():
        annotations = policy.get("annotations", {})
        return Policy(
            policy_id=annotations.get("id") or "",
            owner=annotations.get("owner") or "",
            effect=PolicyEffect(policy["effect"]),
            description=annotations.get("description") or "",
            text=piece.text,
        )
    return None


def _annotations(piece: _Piece) -> Mapping[str, str | None]:
    """Return the annotations of a policy that parses."""
    documents: Iterable[Any] = piece.document["staticPolicies"].values()
    return next((document.get("annotations", {}) for document in documents), {})


def _parsed(text: str) -> Any:
    return orjson.loads(cedarpy.policies_to_json_str(text))


def _finding(line: int, reason: str, description: str) -> FieldViolation:
    return FieldViolation(_FIELD, reason, f"line {line}: {description}")


@functools.cache
def _shipped(name: str) -> str:
    return (files("counterfoil_governance") / "shipped" / name).read_text("utf-8")
