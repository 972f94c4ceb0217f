"""JSON and query text to messages. Every fault is kept with the path of its field; nothing is dropped silently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from counterfoil_gateway.fields import OUTPUT_ONLY, behaves, descriptor, is_json, map_entry, message_name, message_of
from counterfoil_gateway.values import AS_TEXT, SPECIAL, Faults, kind_of, scalar


class Reader:
    """Reads messages of any type; keeps the field names of each type it has met."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, FieldDescriptor]] = {}

    def names(self, message: Descriptor) -> dict[str, FieldDescriptor]:
        """Return the fields by either spelling: `person_id` and `personId`."""
        known = self._names.get(message.full_name)
        if known is None:
            known = {k: f for f in message.fields for k in (f.json_name, f.name)}
            self._names[message.full_name] = known
        return known

    def read(
        self,
        into: Message,
        value: Any,
        faults: Faults,
        *,
        path: str = "",
        skip: frozenset[str] = frozenset(),
        nulls: bool = False,
    ) -> None:
        """Fill a message; `skip` names fields that come from elsewhere, `nulls` lets null stand for "clear it"."""
        special = SPECIAL.get(into.DESCRIPTOR.full_name)
        if special is not None:
            special(into, value, path, faults)
        elif not isinstance(value, dict):
            faults.add(path, "type", f"must be an object, not {kind_of(value)}")
        else:
            self._members(into, value, faults, path=path, skip=skip, nulls=nulls)

    def _members(
        self, into: Message, value: Mapping[str, Any], faults: Faults, *, path: str, skip: frozenset[str], nulls: bool
    ) -> None:
        known = self.names(descriptor(into))
        seen: set[str] = set()
        chosen: dict[str, str] = {}
        for key, item in value.items():
            here = f"{path}.{key}" if path else key
            field = known.get(key)
            if field is None or field.name in skip:
                faults.add(here, "unknown_field", "comes from the path" if field else "no such field")
            elif field.name in seen:
                faults.add(here, "duplicate", f"{field.name} is given twice")
            elif item is None and not _takes_null(field):
                seen.add(field.name)
                if not nulls:
                    faults.add(here, "null", "must not be null; leave it out")
            else:
                seen.add(field.name)
                other = _chosen(field, chosen)
                if other == field.name:
                    self._field(into, field, item, here, faults)
                else:
                    faults.add(here, "oneof", f"{other} is given too; give one of them")

    def _field(self, into: Message, field: FieldDescriptor, item: Any, here: str, faults: Faults) -> None:
        entry = map_entry(field)
        if entry is not None:
            self._map(getattr(into, field.name), entry, item, here, faults)
        elif field.is_repeated:
            self._list(getattr(into, field.name), field, item, here, faults)
        elif field.message_type is not None:
            child = getattr(into, field.name)
            child.SetInParent()
            self.read(child, item, faults, path=here)
        elif (got := scalar(field, item, here, faults)) is not None:
            setattr(into, field.name, got)

    def _map(self, into: Any, entry: Descriptor, item: Any, here: str, faults: Faults) -> None:
        if not isinstance(item, dict):
            faults.add(here, "type", f"must be an object, not {kind_of(item)}")
            return
        of = entry.fields_by_name["value"]
        for k, v in item.items():
            at = f"{here}[{k!r}]"
            key = scalar(entry.fields_by_name["key"], k, at, faults, text=True)
            if key is None:
                continue
            if v is None and not _takes_null(of):
                faults.add(at, "null", "must not be null; leave it out")
            elif of.message_type is not None:
                into[key].SetInParent()
                self.read(into[key], v, faults, path=at)
            elif (got := scalar(of, v, at, faults)) is not None:
                into[key] = got

    def _list(self, into: Any, field: FieldDescriptor, item: Any, here: str, faults: Faults) -> None:
        if not isinstance(item, list):
            faults.add(here, "type", f"must be a list, not {kind_of(item)}")
            return
        for i, v in enumerate(item):
            if field.message_type is not None:
                self.read(into.add(), v, faults, path=f"{here}[{i}]")
            elif (got := scalar(field, v, f"{here}[{i}]", faults)) is not None:
                into.append(got)

    def from_text(
        self, into: Message, dotted: str, values: Sequence[str], faults: Faults, *, closed: frozenset[str] = frozenset()
    ) -> None:
        """Set one query parameter or path variable, e.g. `filter.country=GB`; `closed` paths come from elsewhere."""
        *parents, leaf = dotted.split(".")
        names: list[str] = []
        target: Any = into
        for name in parents:
            field = self.names(target.DESCRIPTOR).get(name)
            if field is None or field.message_type is None or field.is_repeated or message_name(field) in SPECIAL:
                faults.add(dotted, "unknown_parameter", "no such parameter")
                return
            target = getattr(target, field.name)
            names.append(field.name)
        field = self.names(target.DESCRIPTOR).get(leaf)
        if field is None or ".".join((*names, field.name)) in closed or (names or [field.name])[0] in closed:
            faults.add(dotted, "unknown_parameter", "no such parameter")
        elif not field.is_repeated and len(values) > 1:
            faults.add(dotted, "duplicate", "given more than once")
        else:
            self._parameter(target, field, dotted, values, faults)

    def _parameter(
        self, into: Message, field: FieldDescriptor, dotted: str, values: Sequence[str], faults: Faults
    ) -> None:
        if field.message_type is not None:
            if field.is_repeated or message_name(field) not in AS_TEXT:
                faults.add(dotted, "unknown_parameter", "this field cannot be a query parameter")
                return
            child = getattr(into, field.name)
            child.SetInParent()
            self.read(child, values[0], faults, path=dotted)
            return
        for value in values:
            got = scalar(field, value, dotted, faults, text=True)
            if got is None:
                continue
            if field.is_repeated:
                getattr(into, field.name).append(got)
            else:
                setattr(into, field.name, got)

    def implied_mask(self, value: Mapping[str, Any], message: Descriptor, prefix: str = "") -> list[str]:
        """Return the paths that are sent: without `update_mask` they are what changes (AIP-134).

        Output-only fields are left out (AIP-203).
        """
        paths: list[str] = []
        for key, item in value.items():
            field = self.names(message)[key]
            if behaves(field, OUTPUT_ONLY):
                continue
            nested = field.message_type is not None and not field.is_repeated and message_name(field) not in SPECIAL
            if nested and isinstance(item, dict) and item:
                paths += self.implied_mask(item, message_of(field), f"{prefix}{field.name}.")
            else:
                paths.append(prefix + field.name)
        return paths


def _takes_null(field: FieldDescriptor) -> bool:
    return message_name(field) == "google.protobuf.Value" or is_json(field)


def _chosen(field: FieldDescriptor, chosen: dict[str, str]) -> str:
    """Return the member of the field's oneof that was given first; the field itself outside of one."""
    oneof = field.containing_oneof
    if oneof is None or len(oneof.fields) < 2:
        return field.name
    return chosen.setdefault(oneof.name, field.name)
