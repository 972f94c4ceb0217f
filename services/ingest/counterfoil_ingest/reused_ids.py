"""Tells a record that comes again from another record under the same id.

Senders that get no answer send again, and what they send then differs in what says when: such a record is a duplicate
and dropped. One that differs in anything else has taken the id of another, and dropping it would lose it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from counterfoil_ingest.entities import Finding
from counterfoil_ingest.protocols.landing import written

REASON: Final = "MESSAGE_ID_REUSED"

_ABOUT_SENDING: Final = frozenset({"sent_at", "sentAt", "received_at", "receivedAt", "_metadata", "stm"})
"""What a sender writes anew each time it sends; `_metadata` counts the attempts of Segment's SDK for browsers."""
_TIMES: Final = ("timestamp", "original_timestamp", "original_timestamp_")
_ADDED: Final = {"context": ("campaign", "click_ids"), "properties": ("revenue",)}
"""What is added where a record lands; a record that landed in an older release may lack it."""
_NAMED: Final = 5


def differing(data: bytes, older: bytes, *, received_at: int, older_received_at: int) -> list[str]:
    """Return the names of the properties in which a record differs from the one that has its id; none = it is that one.

    Both are JSON; what cannot be parsed differs in `$`. Times are microseconds UTC.
    """
    if data == older:
        return []
    new, old = _parsed(data), _parsed(older)
    if new is None or old is None:
        return ["$"]
    others = (new.keys() | old.keys()) - _ABOUT_SENDING - {*_TIMES}
    names = [name for name in others if _differ(name, new.get(name), old.get(name))]
    if not _at_one_time(new, old, received_at, older_received_at):
        names.append("timestamp")
    return sorted(names)


def finding(names: list[str], offset: int) -> Finding:
    """Return what is said of a record whose id that at an offset has, from which it differs in some properties."""
    told = ", ".join(f"`{name[:64]}`" for name in names[:_NAMED]) + (" and more" if len(names) > _NAMED else "")
    text = f"The record at offset {offset} has this id, and differs in {told}. Give this one an id of its own."
    return Finding(REASON, "$.message_id", text)


def fingerprint(raw: bytes) -> bytes:
    """Return what is the same whenever a sender sends the same record: SHA-256 of it without what is about sending."""
    value = _parsed(raw)
    if value is None:
        return hashlib.sha256(raw).digest()
    left_out = {*_ABOUT_SENDING, "timestamp"} if "original_timestamp" in value else _ABOUT_SENDING
    told = {name: each for name, each in value.items() if name not in left_out}
    try:
        return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).digest()
    except orjson.JSONEncodeError:  # it is deeper than can be written
        return hashlib.sha256(raw).digest()


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _differ(name: str, new: Any, old: Any) -> bool:
    if new == old:
        return False
    if name not in _ADDED:
        return True
    new, old = (dict(each) if isinstance(each, dict) else each or {} for each in (new, old))
    if not isinstance(new, dict) or not isinstance(old, dict):
        return True
    for added in _ADDED[name]:
        if (added in new) != (added in old):
            new.pop(added, None)
            old.pop(added, None)
    for each in (new, old):
        if isinstance(each.get("snowplow"), dict):
            each["snowplow"] = {key: value for key, value in each["snowplow"].items() if key not in _ABOUT_SENDING}
    return bool(new != old)


def _at_one_time(new: Mapping[str, Any], old: Mapping[str, Any], received_at: int, older_received_at: int) -> bool:
    """Tell whether two records say the same of when it happened; which of its times was corrected may differ."""
    times = [[each[name] for name in _TIMES if each.get(name) is not None] for each in (new, old)]
    if any(each in times[1] for each in times[0]) or times == [[], []]:
        return True
    arrived = (_to_milliseconds(received_at), _to_milliseconds(older_received_at))
    return (new.get("timestamp"), old.get("timestamp")) == arrived  # neither said when


def _to_milliseconds(micros: int) -> str:
    return written(micros // 1_000 * 1_000)
