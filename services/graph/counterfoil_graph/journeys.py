"""Journeys: a person's touchpoints and conversions in order, put together from what each block told of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import zstandard

from counterfoil_graph.entities import ALWAYS, EventKind, JourneyEvent, Node, event_id, person_id
from counterfoil_graph.store import EventRow

if TYPE_CHECKING:
    import pyarrow as pa  # loaded where journeys are written: with NumPy it is a fifth of the process

CHUNK_ROWS: Final = 65_536
CHUNK_BYTES: Final = 2 << 20

_COLUMNS: Final = {
    "person_id": "string",
    "event_id": "string",
    "conversion": "bool",
    "type": "string",
    "time_us": "int64",
    "channel": "string",
    "campaign": "string",
    "campaign_end_us": "int64",
    "value_micros": "int64",
    "currency": "string",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are read: of a time, and of conversions only one type ("" = every type)."""

    since_us: int
    until_us: int
    conversion_type: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One complete Arrow IPC stream, zstd-compressed as a whole."""

    data: bytes
    rows: int


def assemble(
    rows: Iterable[EventRow], campaigns: Mapping[str, Node], identifier_types: Mapping[int, str]
) -> list[JourneyEvent]:
    """Return one person's events by time, then place; those without a time first.

    Rows of one kind, type and key are one event: values and records add up, the earliest time is its time, and what is
    said of it otherwise is what its first record says.
    """
    grouped: dict[tuple[EventKind, str, str], list[EventRow]] = {}
    for row in rows:
        grouped.setdefault((row.kind, row.type, row.key), []).append(row)
    events = [_event(each, campaigns, identifier_types) for each in grouped.values()]
    return sorted(events, key=lambda each: (ALWAYS if each.time_us is None else each.time_us, each.place))


def _event(rows: Sequence[EventRow], campaigns: Mapping[str, Node], types: Mapping[int, str]) -> JourneyEvent:
    first, time_us, value, records = rows[0], rows[0].time_us, rows[0].value_micros, rows[0].records
    if len(rows) > 1:
        first = min(rows, key=lambda each: each.place)
        time_us = min((each.time_us for each in rows if each.time_us is not None), default=None)
        value, records = sum(each.value_micros for each in rows), sum(each.records for each in rows)
    campaign = campaigns.get(first.campaign) if first.campaign else None
    if time_us is None and campaign is not None and campaign.valid_from_us != ALWAYS:
        time_us = campaign.valid_from_us
    return JourneyEvent(
        kind=first.kind,
        type=first.type,
        place=first.place,
        time_us=time_us,
        channel=first.channel,
        campaign=first.campaign,
        campaign_end_us=campaign.valid_to_us if campaign else None,
        value_micros=value,
        currency=first.currency,
        dataset=first.dataset,
        identifier_type=types.get(first.place_of, ""),
        records=records,
    )


def started_within(campaigns: Mapping[str, Node], wanted: Wanted) -> list[str]:
    """Return the campaigns that began in the time that is read."""
    return [key for key, node in campaigns.items() if wanted.since_us <= node.valid_from_us < wanted.until_us]


def encode(
    persons: Mapping[int, Sequence[int]],
    rows: Iterable[EventRow],
    campaigns: Mapping[str, Node],
    wanted: Wanted,
) -> list[Chunk]:
    """Return the journeys of persons (with the places of their identifiers) by person and time, in Arrow.

    CPU work, for a worker.
    """
    person_of = {place: person for person, places in persons.items() for place in places}
    by_person: dict[int, list[EventRow]] = {}
    for row in rows:
        by_person.setdefault(person_of[row.place_of], []).append(row)
    found: list[tuple[Any, ...]] = []
    for person in sorted(by_person):
        own_id = person_id(person)
        for event in assemble(by_person[person], campaigns, {}):
            if event.time_us is None or not wanted.since_us <= event.time_us < wanted.until_us:
                continue
            conversion = event.kind is EventKind.CONVERSION
            if conversion and wanted.conversion_type not in ("", event.type):
                continue
            found.append(
                (
                    own_id, event_id(event.place), conversion, event.type, event.time_us, event.channel,
                    event.campaign, event.campaign_end_us, event.value_micros, event.currency,
                )
            )  # fmt: skip
    import pyarrow as pa  # noqa: PLC0415 - see above

    schema = _schema()
    columns = zip(*found, strict=True) if found else [()] * len(schema)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return list(_chunks(pa.table(arrays, schema=schema)))


@cache
def _schema() -> pa.Schema:
    import pyarrow as pa  # noqa: PLC0415 - see above

    type_of: Any = pa.type_for_alias  # its stubs take literals only
    return pa.schema([(name, type_of(kind)) for name, kind in _COLUMNS.items()])


def _chunks(table: pa.Table) -> Iterator[Chunk]:
    for start in range(0, table.num_rows, CHUNK_ROWS):
        yield from _cut(table.slice(start, CHUNK_ROWS))


def _cut(table: pa.Table) -> Iterator[Chunk]:
    import pyarrow as pa  # noqa: PLC0415 - see above

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        for batch in table.combine_chunks().to_batches():
            stream.write_batch(batch)
    data = memoryview(sink.getvalue())
    if len(data) > CHUNK_BYTES and table.num_rows > 1:
        half = table.num_rows // 2
        yield from _cut(table.slice(0, half))
        yield from _cut(table.slice(half))
    else:
        yield Chunk(zstandard.ZstdCompressor(level=1).compress(data), table.num_rows)
