"""What is done to schemas that anybody may send: see that they are some, and compare them. It may take for ever.

The work is exponential for some small schemas and no library bounds it, so it is done in a process of its own, which is
ended when it takes too long (`apart`). What goes there and comes back is plain JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import jsonschema_rs
import orjson

from counterfoil_contracts.compatibility.comparing import compare
from counterfoil_contracts.compatibility.rules import LENIENT, STRICT, Difference, TooMuchToCompareError, violations
from counterfoil_contracts.entities import Verdict
from counterfoil_contracts.schema_entities import Policy

TOO_MUCH: Final = (
    "comparing these two schemas takes more time or memory than there is for it; what is not proven counts as breaking"
)
_UNPROVEN: Final = (
    "neither a proof that it is compatible nor a record that breaks was found; what is not proven counts as breaking"
)
_DETAILS: Final = 1000
"""Characters of a sentence, and bytes of a record, that are told."""
_ALLOWED: Final[Mapping[Policy, frozenset[str]]] = {Policy.CONFLUENT_STRICT: STRICT, Policy.CONFLUENT_LENIENT: LENIENT}


@dataclass(frozen=True)
class Break:
    """A place where a reader's schema does not take what a writer's allows; `witness` is a record as JSON."""

    path: str
    rule: str
    detail: str
    witness: str = ""


class Judge(Protocol):
    """Where the work is done."""

    async def fault_of(self, document: Any) -> str:
        """Return why a document of draft 2020-12 is no schema, or holds references to nowhere; empty = it is one."""

    async def breaks(self, writer: Any, reader: Any, policy: Policy) -> Sequence[Break]:
        """Return where a reader's document breaks with a writer's; both are whole, and of draft 2020-12."""


def fault_of(document: Any) -> str:
    """Return why a document of draft 2020-12 is no schema, or holds references to nowhere; empty = it is one."""
    try:
        jsonschema_rs.Draft202012Validator(document, validate_formats=True, offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        where = "".join(f"[{part!r}]" for part in getattr(error, "instance_path", ()))
        text = getattr(error, "message", None) or str(error)
        return f"{text[:_DETAILS]}{' (at $' + where[:_DETAILS] + ')' if where else ''}"
    return ""


def breaks(writer: Any, reader: Any, policy: Policy) -> Sequence[Break]:
    """Return where a reader's document breaks with a writer's; both are whole, and of draft 2020-12."""
    if orjson.dumps(writer) == orjson.dumps(reader):
        return []
    if policy in _ALLOWED:
        try:
            return [_told(each) for each in violations(writer, reader, allowed=_ALLOWED[policy])]
        except TooMuchToCompareError:
            return [Break("#", "UNPROVEN", TOO_MUCH)]
    comparison = compare(writer, reader)
    if comparison.verdict is Verdict.PROVEN_COMPATIBLE:
        return []
    if comparison.verdict is Verdict.UNPROVEN:
        return [Break("$", "UNPROVEN", _UNPROVEN)]
    return [Break(each.path, each.keyword, each.detail[:_DETAILS], _whole(each.witness)) for each in comparison.breaks]


def _told(difference: Difference) -> Break:
    where = "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in difference.path)
    return Break(f"#{where}", difference.kind, difference.kind.replace("_", " ").lower())


def _whole(witness: bytes) -> str:
    """Return a record, unless it is larger than anybody reads."""
    return witness.decode() if len(witness) <= _DETAILS else ""
