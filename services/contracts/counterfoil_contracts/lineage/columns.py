"""What an output's fields are made of, as its facets `columnLineage` and `lineage` tell it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from counterfoil_contracts.lineage.entities import ColumnLink, Name

_LONGEST_DESCRIPTION = 1000


def links_of(facets: Mapping[str, Any]) -> tuple[ColumnLink, ...] | None:
    """Return the links that a dataset's facets tell, each once; None when they tell nothing of its fields."""
    told = [facet for name in ("columnLineage", "lineage") if (facet := facets.get(name))]
    if not told:
        return None
    found: dict[ColumnLink, None] = {}
    for facet in told:
        for field, entry in (facet.get("fields") or {}).items():
            for source in entry.get("inputFields") or entry.get("inputs") or ():
                found.update(dict.fromkeys(_links(source, field, entry)))
        for source in facet.get("dataset") or facet.get("inputs") or ():
            found.update(dict.fromkeys(_links(source, "", {})))
    return tuple(found)


def _links(source: Mapping[str, Any], target_field: str, entry: Mapping[str, Any]) -> Iterator[ColumnLink]:
    """Yield one link per transformation; without any the value itself is taken over."""
    if source.get("type") == "JOB" or "name" not in source:
        return
    name, field = Name(source["namespace"], source["name"]), source.get("field") or ""
    older: dict[str, Any] = {"type": "DIRECT", "subtype": entry.get("transformationType"), "masking": False}
    older["description"] = entry.get("transformationDescription")
    if older["subtype"] == "MASKED":
        older["masking"] = True
    if not target_field:
        older["type"] = "INDIRECT"
    for each in source.get("transformations") or (older,):
        yield ColumnLink(
            source=name,
            source_field=field,
            target_field=target_field,
            direct=str(each["type"]).upper() != "INDIRECT",
            subtype=each.get("subtype") or "",
            description=(each.get("description") or "").replace("\0", "")[:_LONGEST_DESCRIPTION],
            masking=bool(each.get("masking")),
        )
