"""Golden records: made-up records that stand for what must stay right, named in the contract itself.

ODCS has no word for them, so the custom property `goldenRecords` of a `schema[]` object lists them. Each keeps the
version that names it, and a change is held against them before any other record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import jsonschema_rs
import orjson

from counterfoil_contracts.entities import RecordRule
from counterfoil_contracts.odcs.expressions import holds
from counterfoil_contracts.odcs.findings import Findings, Path

GOLDEN_RECORDS: Final = "goldenRecords"
MOST_RECORDS: Final = 20
_MOST_TOLD: Final = 5  # faults of one record


def golden_records(
    node: Mapping[str, Any], path: Path, found: Findings, *, schema: Mapping[str, Any], rules: Sequence[RecordRule]
) -> tuple[bytes, ...]:
    """Return the golden records of one `schema[]` object as JSON; what does not keep the contract is a finding."""
    golden: list[bytes] = []
    validator = jsonschema_rs.Draft202012Validator(dict(schema), validate_formats=True)
    for index, custom in enumerate(node.get("customProperties", [])):
        if custom["property"] != GOLDEN_RECORDS:
            continue
        place: Path = (*path, "customProperties", index, "value")
        records = custom["value"]
        if not isinstance(records, list) or len(records) > MOST_RECORDS:
            found.add("GOLDEN_RECORD", place, f"goldenRecords is a list of at most {MOST_RECORDS} records.")
            continue
        for number, record in enumerate(records):
            faults = [each.message for each in validator.iter_errors(record)][:_MOST_TOLD]
            faults = faults or [
                f"the rule {rule.rule_id} does not hold" for rule in rules if not holds(rule.expression, record)
            ]
            for fault in faults:
                found.add("GOLDEN_RECORD", (*place, number), f"A golden record breaks its own contract: {fault}.")
            golden.append(orjson.dumps(record))
    return tuple(golden)
