"""Which fields of a dataset one compiled schema treats otherwise than another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the paths of the properties that differ, the deepest that say so; "" = something of the whole."""
    found: list[str] = []
    waiting: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = [("", old, new)]
    while waiting:
        path, before, after = waiting.pop()
        properties = before.get("properties"), after.get("properties")
        if not all(isinstance(each, dict) for each in properties):
            found.append(path)
            continue
        had, has = (each or {} for each in properties)
        required = set(before.get("required") or ()) ^ set(after.get("required") or ())
        inner = [name for name in {**had, **has} if had.get(name) != has.get(name) or name in required]
        outside = {name for name in {**before, **after} if before.get(name) != after.get(name)}
        if outside - {"properties", "required", "$id", "title", "description", "$defs"}:
            found.append(path)
        for name in inner:
            place = f"{path}.{name}" if path else name
            if name in required or not all(isinstance(each.get(name), dict) for each in (had, has)):
                found.append(place)
            else:
                waiting.append((place, had[name], has[name]))
    return sorted(dict.fromkeys(found))
