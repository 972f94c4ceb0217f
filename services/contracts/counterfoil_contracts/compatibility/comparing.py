"""The verdict on two schemas: a proof, or a record that breaks, or neither, which counts as breaking."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import orjson

from counterfoil_contracts.compatibility.containment import Containment, Proof, contained
from counterfoil_contracts.compatibility.drafts import DRAFT_2020, draft_of, in_2020
from counterfoil_contracts.compatibility.witnesses import MOST_TRIED, TO_CHECK_A_PROOF, Fault, Judges, Path, search
from counterfoil_contracts.entities import Break, Comparison, Verdict

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Rules:
    """What schemas do not say, of a record that they accept.

    `kept` tells whether the writer's rules hold; `broken` yields those of the reader's that do not and the writer does
    not have. `demanding` when there is such a rule: of it nothing can be proven. `telling` says as a schema what values
    are worth trying.
    """

    kept: Callable[[Any], bool]
    broken: Callable[[Any], Iterable[Fault]]
    demanding: bool
    telling: Any = None


def compare(
    writer: Any, reader: Any, *, examples: Sequence[Any] = (), draft: int = DRAFT_2020, rules: Rules | None = None
) -> Comparison:
    """Compare two valid schemas; `draft` is that of one whose `$schema` names none. A record outweighs a proof.

    Formats are asserted, as they are when records are validated. What a schema refers to elsewhere is not fetched.
    """
    written, read = (in_2020(each, draft_of(each, draft)) for each in (writer, reader))
    proven = contained(written, read)
    if rules is not None and rules.demanding and proven.proof is Proof.YES:
        proven = Containment(Proof.UNKNOWN)
    judges = _judges(written, read)
    found = search(
        judges if rules is None else _ruled(judges, rules),
        writer=written,
        reader=read,
        difference=proven.difference,
        telling=None if rules is None else rules.telling,
        examples=examples,
        most=TO_CHECK_A_PROOF if proven.proof is Proof.YES else MOST_TRIED,
    )
    if found:
        breaks = (Break(_shown(each.path), each.keyword, each.detail, orjson.dumps(each.record)) for each in found)
        return Comparison(Verdict.PROVEN_BREAKING, tuple(breaks))
    return Comparison(Verdict.PROVEN_COMPATIBLE if proven.proof is Proof.YES else Verdict.UNPROVEN)


def _judges(writer: Any, reader: Any) -> Judges:
    written, read = (
        jsonschema_rs.Draft202012Validator(each, validate_formats=True, offline=True, mask="the value")
        for each in (writer, reader)
    )
    return Judges(written.is_valid, lambda record: not read.is_valid(record), read.iter_errors)


def _ruled(judges: Judges, rules: Rules) -> Judges:
    """Return judges that also ask the rules, of records only that both schemas accept."""

    def refuses(record: Any) -> bool:
        return judges.refuses(record) or any(True for _ in rules.broken(record))

    def faults(record: Any) -> Iterator[Fault]:
        yield from judges.faults(record) if judges.refuses(record) else rules.broken(record)

    return Judges(lambda record: judges.accepts(record) and rules.kept(record), refuses, faults)


def _shown(path: Path) -> str:
    """Return a path as JSONPath writes it (RFC 9535, section 2.7)."""
    text = "$"
    for part in path:
        plain = isinstance(part, str) and _PLAIN_NAME.fullmatch(part)
        text += f".{part}" if plain else f"[{orjson.dumps(part).decode()}]"
    return text
