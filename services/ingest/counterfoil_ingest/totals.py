"""Totals of a day that senders and platforms report, and how they compare with the records that are here."""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

_ROUNDING: Final = 1e-9
"""Of sums of floating-point numbers, relative."""


class State(enum.IntEnum):
    """How a total compares; the numbers are those of `ingest.v1.Reconciliation.State`."""

    WAITING = 1
    MATCHED = 2
    GAP = 3
    ERROR = 4


@dataclass(frozen=True, slots=True)
class Total:
    """One total as it is reported; `match` is sorted, no `judge_after` = a difference counts at once."""

    dataset: str
    day: str
    reported: float
    day_property: str = ""
    source_id: str = ""
    match: tuple[tuple[str, str], ...] = ()
    sum_of: str = ""
    tolerance_percent: float = 0.0
    reported_by: str = ""
    judge_after: datetime | None = None

    @property
    def identity(self) -> str:
        """Return what the same total reported again has, too, whatever the number is now."""
        named = [self.dataset, self.day, self.day_property, self.source_id, self.match, self.sum_of, self.reported_by]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]

    @property
    def question(self) -> tuple[str, bool, tuple[str, ...], str]:
        """Return what totals share that one query answers: day's property, by source or not, properties, sum."""
        return self.day_property, bool(self.source_id), tuple(name for name, _ in self.match), self.sum_of

    @property
    def cell(self) -> tuple[str, ...]:
        """Return where its number stands in that query's answer: day, source, the properties' values."""
        return (self.day, *([self.source_id] if self.source_id else []), *(value for _, value in self.match))

    def agrees_with(self, received: float) -> bool:
        """Tell whether what is here is what was reported, within the tolerance."""
        allowed = abs(self.reported) * (self.tolerance_percent / 100 + _ROUNDING)
        return abs(received - self.reported) <= allowed


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One reported total and how it compares."""

    workspace: str
    reconciliation_id: str
    total: Total
    reported_at: datetime
    state: State = State.WAITING
    received: float | None = None
    detail: str = ""
    compared_at: datetime | None = None

    @property
    def differs(self) -> bool:
        """Tell whether it must not be taken for the same."""
        return self.state in (State.GAP, State.ERROR)

    def compared(self, received: float, *, quarantined: int, now: datetime) -> Reconciliation:
        """Return it with what is here; a difference before its time waits."""
        total = self.total
        detail = f"{_number(total.reported)} reported, {_number(received)} here."
        state = State.MATCHED
        if not total.agrees_with(received):
            late = total.judge_after is not None and now < total.judge_after
            state = State.WAITING if late else State.GAP
            share = f" ({100 * (received / total.reported - 1):+.3g} %)" if total.reported else ""
            detail = detail[:-1] + f"{share}."
            if quarantined:
                detail += f" {quarantined} records of that day are in quarantine."
        return replace(self, state=state, received=received, detail=detail, compared_at=now)

    def failed(self, why: str, *, now: datetime) -> Reconciliation:
        """Return it as one that could not be compared."""
        return replace(self, state=State.ERROR, received=None, detail=why[:1000], compared_at=now)


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.9g}"
