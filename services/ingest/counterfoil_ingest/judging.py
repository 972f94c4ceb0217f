"""Hold the rows of a file against a contract: what all rows show at once is seen in columns, the rest row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from counterfoil_ingest import validation
from counterfoil_ingest.column_checks import ColumnChecks
from counterfoil_ingest.entities import MAX_RECORD_BYTES, Candidate, Finding, Header, Quarantined
from counterfoil_ingest.files import Rows
from counterfoil_ingest.json_columns import Mask
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


@dataclass(frozen=True, slots=True)
class _Under:
    """The contract that a row was held against, and when."""

    compiled: Compiled | None
    received_at: int


class Judge:
    """Judges rows for one target; `new_id` names what goes to quarantine."""

    def __init__(self, target: Target, *, new_id: Callable[[], str]) -> None:
        self._target = target
        self._new_id = new_id
        self._checks: tuple[Compiled, ColumnChecks] | None = None

    def judge(self, rows: Rows, contracts: Mapping[str, Compiled | None], *, received_at: int) -> Judged:
        """Return rows as what the log takes, by the contract of each dataset; where there is none, rows are refused."""
        target, count = self._target, len(rows.datas)
        versions = {name: compiled.version for name, compiled in contracts.items() if compiled}
        header = Header(target.source_id, received_at, target.traceparent, versions)
        ids = [f"{target.file_sha256}#{number}" for number in range(rows.first, rows.first + count)]
        if rows.ids:
            ids = [named or numbered for named, numbered in zip(rows.ids, ids, strict=True)]
        datasets = rows.datasets or [target.dataset] * count
        refused = {
            index: self._quarantined(
                rows, index, (ids[index], datasets[index]), findings, _Under(compiled, received_at)
            )
            for index in self._doubtful(rows, datasets, contracts)
            for compiled in (contracts.get(datasets[index]),)
            if (findings := self._findings(rows, index, datasets[index], compiled))
        }
        return Judged(
            workspace=target.workspace,
            header=header,
            ids=ids,
            datasets=datasets,
            datas=rows.datas,
            refused=refused,
            unknown=frozenset(),
        )

    def _doubtful(self, rows: Rows, datasets: Sequence[str], contracts: Mapping[str, Compiled | None]) -> list[int]:
        """Return the rows that have to be looked at one by one."""
        count = len(rows.datas)
        proven = np.zeros(count, np.bool_)
        names = set(datasets)
        for name in names:
            compiled = contracts.get(name)
            if compiled is not None:
                proven |= self._proven(rows, None if len(names) == 1 else (name, datasets), compiled)
        doubtful = ~proven
        doubtful[[*rows.broken, *rows.apart]] = True
        doubtful |= np.fromiter(map(len, rows.datas), np.int64, count) > MAX_RECORD_BYTES
        found: list[int] = np.flatnonzero(doubtful).tolist()
        return found

    def _proven(self, rows: Rows, only: tuple[str, Sequence[str]] | None, compiled: Compiled) -> Mask:
        """Return which rows keep a contract for sure; `only` those of one dataset among others."""
        count = len(rows.datas)
        if rows.columns is not None:
            proven = self._checks_of(compiled).proven(rows.columns, count)
        elif only is None:
            proven = np.fromiter(map(compiled.validator.is_valid, rows.values), np.bool_, count)
            proven &= np.fromiter((type(value) is dict for value in rows.values), np.bool_, count)
        else:
            wanted, datasets = only
            proven = np.zeros(count, np.bool_)
            for index in [index for index, name in enumerate(datasets) if name == wanted]:
                value = rows.values[index]
                proven[index] = type(value) is dict and compiled.validator.is_valid(value)
        if compiled.rules is not None:
            for index in np.flatnonzero(proven).tolist():
                proven[index] = compiled.rules.keep(_value(rows, index), rows.datas[index])
        return proven

    def _checks_of(self, compiled: Compiled) -> ColumnChecks:
        if self._checks is None or self._checks[0] is not compiled:
            self._checks = compiled, ColumnChecks(compiled.json_schema)
        return self._checks[1]

    def _findings(self, rows: Rows, index: int, dataset: str, compiled: Compiled | None) -> tuple[Finding, ...]:
        if index in rows.broken:
            return (rows.broken[index],)
        candidate = Candidate("", dataset, rows.datas[index], _value(rows, index))
        return validation.findings_of(candidate, compiled)

    def _quarantined(
        self,
        rows: Rows,
        index: int,
        name: tuple[str, str],
        findings: tuple[Finding, ...],
        under: _Under,
    ) -> Quarantined:
        record_id, dataset = name
        return Quarantined(
            quarantine_id=self._new_id(),
            workspace=self._target.workspace,
            dataset=dataset,
            source_id=self._target.source_id,
            record_id=record_id,
            findings=findings,
            contract_id=under.compiled.contract_id if under.compiled else "",
            contract_version=under.compiled.version if under.compiled else "",
            received_at=under.received_at,
            traceparent=self._target.traceparent,
            raw=rows.origins[index] if rows.origins else rows.datas[index],
            record=rows.datas[index] if rows.origins else b"",
        )


def _value(rows: Rows, index: int) -> Any:
    return rows.values[index] if rows.columns is None else orjson.loads(rows.datas[index])
