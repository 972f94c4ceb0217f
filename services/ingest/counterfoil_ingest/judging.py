"""Hold the rows of a file against a contract: what all rows show at once is seen in columns, the rest row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from counterfoil_ingest import validation
from counterfoil_ingest.column_checks import ColumnChecks
from counterfoil_ingest.entities import MAX_RECORD_BYTES, Candidate, Finding, Header, Quarantined
from counterfoil_ingest.files import Rows
from counterfoil_ingest.placing import Judged
from counterfoil_ingest.registry import Compiled


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows of one file go, and in whose name."""

    workspace: str
    dataset: str
    source_id: str
    traceparent: str
    file_sha256: str


class Judge:
    """Judges rows for one target; `new_id` names what goes to quarantine."""

    def __init__(self, target: Target, *, new_id: Callable[[], str]) -> None:
        self._target = target
        self._new_id = new_id
        self._checks: tuple[Compiled, ColumnChecks] | None = None

    def judge(self, rows: Rows, compiled: Compiled | None, *, received_at: int) -> Judged:
        """Return rows as what the log takes; without a contract all of them are refused."""
        target = self._target
        versions = {target.dataset: compiled.version} if compiled else {}
        header = Header(target.source_id, received_at, target.traceparent, versions)
        count = len(rows.datas)
        ids = [f"{target.file_sha256}#{number}" for number in range(rows.first, rows.first + count)]
        refused = {
            index: self._quarantined(ids[index], rows.datas[index], findings, compiled, received_at)
            for index in self._doubtful(rows, compiled)
            if (findings := self._findings(rows, index, compiled))
        }
        return Judged(
            workspace=target.workspace,
            header=header,
            ids=ids,
            datasets=[target.dataset] * count,
            datas=rows.datas,
            refused=refused,
            unknown=frozenset(),
        )

    def _doubtful(self, rows: Rows, compiled: Compiled | None) -> list[int]:
        """Return the rows that have to be looked at one by one."""
        count = len(rows.datas)
        if compiled is None:
            return list(range(count))
        if rows.columns is not None:
            proven = self._checks_of(compiled).proven(rows.columns, count)
        else:
            proven = np.fromiter(map(compiled.validator.is_valid, rows.values), np.bool_, count)
            proven &= np.fromiter((type(value) is dict for value in rows.values), np.bool_, count)
        if compiled.rules is not None:
            for index in np.flatnonzero(proven).tolist():
                proven[index] = compiled.rules.keep(_value(rows, index), rows.datas[index])
        doubtful = ~proven
        doubtful[[*rows.broken, *rows.apart]] = True
        doubtful |= np.fromiter(map(len, rows.datas), np.int64, count) > MAX_RECORD_BYTES
        found: list[int] = np.flatnonzero(doubtful).tolist()
        return found

    def _checks_of(self, compiled: Compiled) -> ColumnChecks:
        if self._checks is None or self._checks[0] is not compiled:
            self._checks = compiled, ColumnChecks(compiled.json_schema)
        return self._checks[1]

    def _findings(self, rows: Rows, index: int, compiled: Compiled | None) -> tuple[Finding, ...]:
        if index in rows.broken:
            return (rows.broken[index],)
        candidate = Candidate("", self._target.dataset, rows.datas[index], _value(rows, index))
        return validation.findings_of(candidate, compiled)

    def _quarantined(
        self,
        record_id: str,
        raw: bytes,
        findings: tuple[Finding, ...],
        compiled: Compiled | None,
        received_at: int,
    ) -> Quarantined:
        return Quarantined(
            quarantine_id=self._new_id(),
            workspace=self._target.workspace,
            dataset=self._target.dataset,
            source_id=self._target.source_id,
            record_id=record_id,
            findings=findings,
            contract_id=compiled.contract_id if compiled else "",
            contract_version=compiled.version if compiled else "",
            received_at=received_at,
            traceparent=self._target.traceparent,
            raw=raw,
        )


def _value(rows: Rows, index: int) -> Any:
    return rows.values[index] if rows.columns is None else orjson.loads(rows.datas[index])
