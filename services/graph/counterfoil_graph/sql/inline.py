"""Single persons as SQLite answers them in the loop itself; the answers are those of `reading`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson
from counterfoil_chassis.inline import InlineRead

from counterfoil_graph.entities import FOREVER, PARTITION, IdentifierSeen, Name, State
from counterfoil_graph.sql.reading import KINDS
from counterfoil_graph.store import CONSUMER, EventKey

_HERE = "workspace = :workspace"
_PLACE = f"FROM cursor WHERE {_HERE} AND consumer = '{CONSUMER}' AND partition = {PARTITION}"
_LISTED = "(SELECT value FROM json_each(:listed))"
_NOW = f"tx_to = {FOREVER}"
_THEN = "tx_from <= :at AND tx_to > :at"

_STATE = f"""
    SELECT log_epoch, next_offset, mappings_sha256, rebuild_until, known_us,
        (SELECT COUNT(*) FROM forgotten WHERE {_HERE})
    FROM (SELECT :workspace AS workspace)
    LEFT JOIN (SELECT workspace, log_epoch, next_offset {_PLACE}) USING (workspace)
    LEFT JOIN graph USING (workspace)
    LEFT JOIN block USING (workspace, next_offset)
"""  # noqa: S608 - constants only
_PERSONS = f"SELECT place, person FROM assignment WHERE {_HERE} AND %s AND place IN {_LISTED}"  # noqa: S608
_IDENTIFIERS = f"""
    SELECT person, place, type, value, first_us, last_us, records, shared
    FROM assignment JOIN identifier USING (workspace, place)
    WHERE {_HERE} AND %s AND person IN {_LISTED}
"""  # noqa: S608
_ERASED = f"SELECT 1 FROM erased_person WHERE {_HERE} AND person = :number"  # noqa: S608
_WERE = f"""
    SELECT place FROM assignment WHERE {_HERE} AND place IN {_LISTED} AND place = person
    GROUP BY place HAVING MAX(tx_to) < {FOREVER}
"""  # noqa: S608
_EVENTS = f"""
    SELECT DISTINCT place_of, kind, type, key FROM journey_event
    WHERE {_HERE} AND place_of IN {_LISTED} AND tx_from <= :at
"""  # noqa: S608


class InlinePersonReader:
    """See `store.PersonReader`."""

    def __init__(self, inline: InlineRead, workspace: str) -> None:
        self._inline = inline
        self._workspace = workspace
        self._rebuild_until: int | None = None

    async def state(self) -> State:
        """Return the state as it is now."""
        [(epoch, next_offset, sha256, until, known_us, erasures)] = self._rows(_STATE)
        self._rebuild_until = until or 0
        return State(epoch or "", next_offset or 0, sha256 or "", known_us, erasures)

    async def rebuild_until(self) -> int:
        """Return the offset up to which the graph was read before it was last rebuilt, 0 = it never was."""
        if self._rebuild_until is None:
            await self.state()
        return self._rebuild_until or 0

    async def persons(self, places: Collection[int], *, at: int | None = None) -> dict[int, int]:
        """Return the persons of identifiers, in a state (None = now)."""
        return dict(self._rows(_PERSONS % _assigned(at), places, at=at))

    async def identifiers(self, persons: Collection[int], *, at: int | None = None) -> dict[int, list[IdentifierSeen]]:
        """Return the identifiers of persons, by type and value, in a state (None = now)."""
        found: dict[int, list[IdentifierSeen]] = {person: [] for person in persons}
        for person, place, type_, value, first, last, records, shared in self._rows(
            _IDENTIFIERS % _assigned(at), persons, at=at
        ):
            found[person].append(IdentifierSeen(place, Name(type_, value), first, last, records, bool(shared)))
        for each in found.values():
            each.sort(key=lambda one: one.name)
        return found

    async def is_erased(self, number: int) -> bool:
        """Tell whether a person of this number was erased."""
        return bool(self._rows(_ERASED, number=number))

    async def were_persons(self, places: Collection[int]) -> set[int]:
        """Return those identifiers that were the first of a person once and are not now."""
        return {place for (place,) in self._rows(_WERE, places)}

    async def event_keys(self, places: Collection[int], *, at: int) -> list[EventKey]:
        """Return what was told of the journeys of some identifiers, in a state, each event once."""
        return [
            EventKey(place, KINDS[kind], type_, key) for place, kind, type_, key in self._rows(_EVENTS, places, at=at)
        ]

    def _rows(self, statement: str, listed: Collection[int] = (), **parameters: Any) -> list[Any]:
        values = {"workspace": self._workspace, "listed": orjson.dumps(list(listed)).decode(), **parameters}
        return self._inline.rows(statement, values)


def _assigned(at: int | None) -> str:
    return _NOW if at is None else _THEN
