"""One form for the events of every protocol and of the native API: times, campaign and click ids, revenue.

What is added stands beside what was sent; nothing that was sent is lost. The rules, for those who read records:
docs/ingest/events.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalException
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

TOLERANCE: Final = 5_000_000
"""Microseconds. A request takes a moment to arrive: only clocks that differ by more are told apart from that."""

ORDERS: Final = frozenset(
    {"Order Completed", "Order Updated", "Order Refunded", "Order Cancelled", "Checkout Started", "transaction"}
)
"""The events whose `properties.revenue` is found where they do not state it: Segment's, and Snowplow's transaction."""

CLICK_IDS: Final = (
    *("gclid", "gbraid", "wbraid", "dclid", "fbclid", "msclkid", "ttclid", "twclid", "li_fat_id", "sccid", "epik"),
    *("yclid", "rdt_cid", "irclickid", "srsltid"),
)
"""The query parameters by which advertising platforms find a click again, in lower case."""

_CAMPAIGN: Final[Mapping[str, str]] = {
    "utm_source": "source",
    "utm_medium": "medium",
    "utm_campaign": "name",
    "utm_term": "term",
    "utm_content": "content",
    "utm_id": "id",
}
_MARKS: Final = ("utm_", *CLICK_IDS)
_SIGNS: Final = ("utm_", "%", *sorted({f"{name[-2:]}=" for name in CLICK_IDS}))
"""An address has one of these where it names a campaign or a click: they are fewer to look for. A name may have a %."""
_LONGEST: Final = 8_192
_LONGEST_TIME, _LONGEST_NUMBER = 64, 40
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_A_SECOND: Final = 1_000_000  # some SDKs cut the time of sending to seconds
_LANDINGS: Final = ("page", "screen")
_MOST: Final = 1e15
"""An amount of money is less."""


def land(record: dict[str, Any], received_at: int, *, corrects: bool = True) -> None:
    """Complete an event in place; its objects, which belong to what was sent, are replaced and not changed.

    `received_at` is microseconds UTC; `corrects` is False for events of the past, which are sent long after.
    """
    if corrects:
        _set_time(record, received_at)
    _set_advertisement(record)
    if isinstance(event := record.get("event"), str) and event in ORDERS:
        _set_revenue(record)


def moment(text: Any) -> int | None:
    """Return an RFC 3339 time in microseconds UTC; None when it is none, or names no zone."""
    if not isinstance(text, str) or len(text) > _LONGEST_TIME:
        return None
    try:
        time = datetime.fromisoformat(text)
        return None if time.tzinfo is None else (time - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None


def written(moment: int) -> str:
    """Return microseconds UTC as an RFC 3339 time."""
    time = _EPOCH + moment * _MICROSECOND
    return time.isoformat(timespec="microseconds" if moment % 1_000 else "milliseconds").replace("+00:00", "Z")


def by_our_clock(stated: Any, *, sent_at: Any, received_at: int) -> str | None:
    """Return when something happened by our clock; None where the time that is stated stays.

    That is `received_at - (sent_at - stated)` where the sender's clock differs from ours, and no later than it arrived.
    Where it was sent before it happened, these two contradict each other, and nothing follows from them.
    """
    happened = moment(stated)
    if happened is None or happened // 1_000 == received_at // 1_000:  # or it is when it arrived, by our clock already
        return None
    ours = happened
    if differs(sent_at, received_at) and (sent := moment(sent_at)) is not None and sent - happened > -_A_SECOND:
        ours = received_at - max(sent - happened, 0)
    if ours > received_at + TOLERANCE:
        ours = received_at
    try:
        return None if ours == happened else written(ours)
    except OverflowError:  # before the year 1
        return None


def differs(sent_at: Any, received_at: int) -> bool:
    """Tell whether a clock that said so as it sent is another than ours."""
    sent = moment(sent_at)
    return sent is not None and abs(received_at - sent) > TOLERANCE


def may_have_parameters(text: bytes) -> bool:
    """Tell whether a JSON text may hold an address with parameters; an `=` can be escaped."""
    return b"=" in text or (b"\\" in text and b"\\u003" in text)  # one byte is looked for ten times as fast as more


def may_name_a_click(text: bytes) -> bool:
    """Tell whether a JSON text in UTF-8 may hold an address that `landed` finds something in; a name can be escaped."""
    if not may_have_parameters(text):
        return False
    if b"\\" in text and b"\\u" in text:
        return True
    lower = text.decode().lower()  # as a text, of which another letter than K is k
    return any(sign in lower for sign in _SIGNS) and any(mark in lower for mark in _MARKS)


def landed(url: Any) -> dict[str, dict[str, str]]:
    """Return `campaign` (source, medium, name, term, content, id) and `click_ids` of an address, where it has them."""
    if not isinstance(url, str) or len(url) > _LONGEST or "=" not in url:
        return {}
    lower = url.lower()
    if not any(mark in lower for mark in _MARKS):
        return {}
    try:
        pairs = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query, max_num_fields=500)}
    except ValueError:  # it is no address, or has more parameters than one has
        return {}
    campaign = {to: pairs[name] for name, to in _CAMPAIGN.items() if pairs.get(name)}
    click_ids = {name: pairs[name] for name in CLICK_IDS if pairs.get(name)}
    return {name: found for name, found in (("campaign", campaign), ("click_ids", click_ids)) if found}


def revenue(properties: Mapping[str, Any]) -> float | None:
    """Return what an order brings after discounts, without tax and shipping; None when its properties do not tell.

    The first of: `subtotal`; `total` less `tax` and `shipping`; `value`; its products' prices less `discount`.
    """
    try:
        found = _revenue(properties)
    except DecimalException:  # numbers that no sum can hold
        return None
    return float(found) if found is not None and math.isfinite(found) and abs(found) < _MOST else None


def _set_time(record: dict[str, Any], received_at: int) -> None:
    stated, own, sent_at = (record.get(name) for name in ("timestamp", "original_timestamp", "sent_at"))
    ours = by_our_clock(stated, sent_at=sent_at, received_at=received_at)
    if ours is None or stated == by_our_clock(own, sent_at=sent_at, received_at=received_at):  # or has landed before
        return
    if own is not None and own != stated:
        record["original_timestamp_"] = own
    record["original_timestamp"] = stated
    record["timestamp"] = ours


def _set_advertisement(record: dict[str, Any]) -> None:
    context = record.get("context", {})
    if not isinstance(context, dict):
        return
    found = landed(_address(record, context))
    added = {}
    for name, value in found.items():
        own = context.get(name) or {}
        if not own or (name == "click_ids" and isinstance(own, dict) and not value.keys() <= own.keys()):
            added[name] = {**value, **own}
    if added:
        record["context"] = {**context, **added}


def _address(record: Mapping[str, Any], context: Mapping[str, Any]) -> Any:
    """Return the address of the page on which an event happened, as far as it is told."""
    page = context.get("page")
    if isinstance(page, dict) and isinstance(url := page.get("url"), str) and url:
        search = page.get("search")
        return url + search if "?" not in url and isinstance(search, str) and search.startswith("?") else url
    properties = record.get("properties")
    return properties.get("url") if record.get("type") in _LANDINGS and isinstance(properties, dict) else None


def _set_revenue(record: dict[str, Any]) -> None:
    properties = record.get("properties")
    if isinstance(properties, dict) and properties.get("revenue") is None:
        found = revenue(properties)
        if found is not None:
            record["properties"] = {**properties, "revenue": found}


def _revenue(properties: Mapping[str, Any]) -> Decimal | None:
    subtotal, total, value = (_number(properties.get(name)) for name in ("subtotal", "total", "value"))
    if subtotal is not None:
        return subtotal
    if total is not None:
        left = total - sum(_number(properties.get(name)) or 0 for name in ("tax", "shipping"))
        return left if left >= 0 or total < 0 else None
    if value is not None:
        return value
    products = properties.get("products")
    if not isinstance(products, list) or not products:
        return None
    amounts = [_amount(each) for each in products]
    if None in amounts:
        return None
    left = sum((each for each in amounts if each is not None), Decimal(0)) - (_number(properties.get("discount")) or 0)
    return left if left >= 0 else None


def _amount(product: Any) -> Decimal | None:
    """Return price times quantity, which is one where it is not said."""
    price = _number(product.get("price")) if isinstance(product, dict) else None
    if price is None:
        return None
    quantity = _number(product.get("quantity", 1))
    return None if quantity is None else price * quantity


def _number(value: Any) -> Decimal | None:
    """Return a number, or a text that is one, exactly as it is written; None for anything else."""
    if type(value) not in (int, float, str) or len(text := str(value)) > _LONGEST_NUMBER:
        return None
    try:
        number = Decimal(text)
    except DecimalException:
        return None
    return number if number.is_finite() else None
