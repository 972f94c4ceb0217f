"""What the address of a landing page says of the advertisement that led there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

_CAMPAIGN: Final[Mapping[str, str]] = {
    "utm_source": "source",
    "utm_medium": "medium",
    "utm_campaign": "name",
    "utm_term": "term",
    "utm_content": "content",
    "utm_id": "id",
}
CLICK_IDS: Final = (
    *("gclid", "gbraid", "wbraid", "dclid", "fbclid", "msclkid", "ttclid", "twclid", "li_fat_id", "sccid", "epik"),
    *("yclid", "rdt_cid", "irclickid"),
)
"""The query parameters by which advertising platforms find a click again."""
_MARKS: Final = ("utm_", *CLICK_IDS)
_LONGEST: Final = 8_192


def landed(url: Any) -> dict[str, dict[str, str]]:
    """Return `campaign` (source, medium, name, term, content, id) and `click_ids` of an address, where it has them."""
    if not isinstance(url, str) or len(url) > _LONGEST or not any(mark in url for mark in _MARKS):
        return {}
    try:
        pairs = dict(parse_qsl(urlsplit(url).query, max_num_fields=500))
    except ValueError:  # it is no address, or has more parameters than one has
        return {}
    campaign = {to: pairs[name] for name, to in _CAMPAIGN.items() if pairs.get(name)}
    click_ids = {name: pairs[name] for name in CLICK_IDS if pairs.get(name)}
    return {name: found for name, found in (("campaign", campaign), ("click_ids", click_ids)) if found}
