"""A schema with all that it refers to, as one document of draft 2020-12: nothing is left to look up elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urljoin

from counterfoil_contracts.compatibility.drafts import DRAFT_7, draft_of, in_2020, parts_of

_IDENTIFIERS: Final = ("$id", "$schema")


@dataclass(frozen=True)
class Linked:
    """A schema's document, and what the names in its `$ref`s stand for."""

    document: Any
    names: Mapping[str, Linked] = field(default_factory=dict)


def bundled(schema: Linked) -> Any:
    """Return the document with each schema that it refers to once in its `$defs`, and every `$ref` within it.

    Where `$schema` names no draft, it is 7, as the clients of registries have it. A `$ref` that names none of the
    references stays as it is: it may mean a part with an `$id` of its own.
    """
    root = _in_2020(schema.document)
    if not schema.names:
        return root
    if not isinstance(root, dict):
        return root
    keys = _keys_of(schema, taken=root.get("$defs", {}))
    definitions: dict[str, Any] = {}
    for linked, key in keys.values():
        document = _in_2020(linked.document)
        definitions[key] = _relinked(document, linked, keys, at=f"#/$defs/{key}")
    whole = _relinked(root, schema, keys, at="#")
    whole["$defs"] = {**whole.get("$defs", {}), **definitions}
    return whole


def _in_2020(document: Any) -> Any:
    return in_2020(document, draft_of(document, DRAFT_7))


_Keys = dict[int, tuple[Linked, str]]


def _keys_of(schema: Linked, *, taken: Mapping[str, Any]) -> _Keys:
    """Return what is referred to, near or far, by identity, each with a name that is free in the whole's `$defs`."""
    keys: _Keys = {}
    waiting = list(schema.names.values())
    number = 0
    while waiting:
        linked = waiting.pop(0)
        if id(linked) in keys:
            continue
        number += 1
        while (key := f"reference_{number}") in taken:
            number += 1
        keys[id(linked)] = (linked, key)
        waiting.extend(linked.names.values())
    return keys


def _relinked(document: Any, linked: Linked, keys: _Keys, *, at: str) -> Any:
    """Return a document whose `$ref`s hold where it stands in the whole."""
    if not isinstance(document, dict):
        return document
    said = document.get("$id")
    base = said if isinstance(said, str) else ""
    names = {name: keys[id(each)][1] for name, each in linked.names.items()}
    absolute = {_joined(base, name): key for name, key in names.items()}

    def target(reference: str) -> str:
        address, _, fragment = reference.partition("#")
        key = names.get(address) or absolute.get(_joined(base, address)) if address else None
        if key is not None:
            return _pointer(f"#/$defs/{key}", fragment, reference)
        if not address or (base and _joined(base, address) == base.partition("#")[0]):
            return _pointer(at, fragment, f"#{fragment}")
        return reference

    moved = _with_references(document, target)
    if at != "#":
        for name in _IDENTIFIERS:
            moved.pop(name, None)
    return moved


def _pointer(at: str, fragment: str, otherwise: str) -> str:
    """Return where a fragment points; an anchor's name is the same wherever its document stands."""
    if fragment and not fragment.startswith("/"):
        return otherwise if otherwise.startswith("#") else f"#{fragment}"
    return f"{at}{fragment}"


def _joined(base: str, address: str) -> str:
    try:
        return urljoin(base, address)
    except ValueError:  # brackets that are no IPv6 address
        return address


def _with_references(schema: dict[str, Any], target: Callable[[str], str]) -> dict[str, Any]:
    """Return a copy with every `$ref` of the schema and its parts replaced; constants and examples are left alone."""
    changed = parts_of(schema, lambda part: _with_references(part, target) if isinstance(part, dict) else part)
    if isinstance(changed.get("$ref"), str):
        changed["$ref"] = target(changed["$ref"])
    return changed
