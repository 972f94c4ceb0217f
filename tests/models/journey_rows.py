"""Journeys for tests: a few words per event, and the Arrow table that graph would stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from counterfoil_chassis.clock import to_micros

SCHEMA = pa.schema(
    [
        ("person_id", pa.string()),
        ("event_id", pa.string()),
        ("conversion", pa.bool_()),
        ("type", pa.string()),
        ("time_us", pa.int64()),
        ("channel", pa.string()),
        ("campaign", pa.string()),
        ("campaign_end_us", pa.int64()),
        ("value_micros", pa.int64()),
        ("currency", pa.string()),
    ]
)
JANUARY = datetime(2025, 1, 1, tzinfo=UTC)


def at(days: float) -> datetime:
    """Return the moment so many days after the first of January 2025."""
    return JANUARY + timedelta(days=days)


@dataclass(frozen=True)
class Event:
    """A touchpoint with a channel, or a conversion with a value; `day` counts from the first of January 2025."""

    person: str
    day: float
    channel: str = ""
    value: float = 0.0
    campaign: str = ""
    campaign_end: float | None = None
    currency: str = "USD"
    type: str = "order"
    event_id: str = ""

    @property
    def converts(self) -> bool:
        return not self.channel


def table(events: Sequence[Event]) -> pa.Table:
    """Return the rows by person and time, as graph streams them."""
    events = sorted(events, key=lambda one: (one.person, one.day))
    rows = [
        {
            "person_id": one.person,
            "event_id": one.event_id or f"event-{place:04d}",
            "conversion": one.converts,
            "type": one.type if one.converts else "click",
            "time_us": to_micros(at(one.day)),
            "channel": one.channel or None,
            "campaign": one.campaign or None,
            "campaign_end_us": None if one.campaign_end is None else to_micros(at(one.campaign_end)),
            "value_micros": round(one.value * 1_000_000) if one.converts else None,
            "currency": one.currency if one.converts else None,
        }
        for place, one in enumerate(events)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
