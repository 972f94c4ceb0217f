"""The web shop's events as Segment's libraries send them."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from harbour_store.behaviour import Behaviour, Click, Order
from harbour_store.calendar import BEGIN, CAMPAIGNS_BEGIN, END, GAP_BEGIN, GAP_END, GAP_SOURCE
from harbour_store.campaigns import AD_CAMPAIGNS, AdCampaign
from harbour_store.draws import Draws
from harbour_store.people import KIOSK, KIOSK_SHARE, Person, device_id

CURRENCY: Final = "EUR"

_EVENT_IDS: Final = UUID("5b1a7c1e-0f5d-5f5f-8a54-3f1f8f7b9a21")
_LIBRARY: Final = {"name": "harbour-store", "version": "1.0.0"}
_PAGES: Final = ("/", "/ropes", "/lamps", "/jackets", "/charts", "/knots")
_VISITS_PER_PERSON: Final = 1.5
_STRANGERS_PER_PERSON: Final = 0.4
_STRANGER_CLICKS: Final = 3
_PROSPECTING: Final = tuple(campaign for campaign in AD_CAMPAIGNS if campaign.clicks)


def tracked(click: Click) -> bool:
    """Tell whether the shop's tag was there to see the visit."""
    return not (click.campaign.source == GAP_SOURCE and GAP_BEGIN <= click.clicked_at < GAP_END)


def strangers(seed: int, people: int) -> Iterator[tuple[str, list[tuple[datetime, AdCampaign]]]]:
    """Yield the devices of visitors who never buy nor sign in, each with its clicks."""
    draws = Draws(seed, "strangers")
    for number in range(int(people * _STRANGERS_PER_PERSON)):
        clicks = [
            (draws.moment(CAMPAIGNS_BEGIN, END), draws.pick(_PROSPECTING))
            for _ in range(1 + draws.below(_STRANGER_CLICKS))
        ]
        yield device_id(f"{seed}:stranger:{number}"), sorted(clicks, key=lambda click: click[0])


def web_events(seed: int, people: list[Person], behaviour: Behaviour) -> list[dict[str, Any]]:
    """Return every event that the shop's tag and server saw, oldest first."""
    found = [*_sign_ins(seed, people), *_visits(seed, people)]
    found += (_visit(c.device, c.clicked_at, c.campaign) for c in behaviour.clicks if tracked(c))
    for device, clicks in strangers(seed, len(people)):
        seen = (click for click in clicks if not _in_gap(*click))
        found += (_visit(device, at, campaign) for at, campaign in seen)
    found += (
        _order_completed(order, number) for number, order in enumerate(behaviour.orders) if order.ordered_at >= BEGIN
    )
    return sorted(found, key=lambda event: (event["timestamp"], event["messageId"]))


def order_id(number: int) -> str:
    """Return the id of an order, by its place among all of them."""
    return f"HS-{number:07d}"


def _in_gap(at: datetime, campaign: AdCampaign) -> bool:
    return campaign.source == GAP_SOURCE and GAP_BEGIN <= at < GAP_END


def _sign_ins(seed: int, people: list[Person]) -> Iterator[dict[str, Any]]:
    draws = Draws(seed, "sign-ins")
    for person in people:
        devices = [device for device, signs_in in zip(person.devices, person.signs_in, strict=True) if signs_in]
        if draws.chance(KIOSK_SHARE):
            devices.append(KIOSK)
        for device in devices:
            at = draws.moment(BEGIN, BEGIN + timedelta(days=14))
            traits = {"email": person.email, "firstName": person.first_name, "lastName": person.last_name}
            yield _event("identify", at, anonymousId=device, userId=person.user_id, traits=traits)


def _visits(seed: int, people: list[Person]) -> Iterator[dict[str, Any]]:
    draws = Draws(seed, "visits")
    for person in people:
        for _ in range(draws.poisson(_VISITS_PER_PERSON)):
            at, device = draws.moment(BEGIN, END), draws.pick(person.devices)
            yield _event("page", at, anonymousId=device, name="Page", properties={"path": draws.pick(_PAGES)})


def _visit(device: str, at: datetime, campaign: AdCampaign) -> dict[str, Any]:
    utm = {"source": campaign.source, "medium": "cpc", "name": campaign.name}
    return _event("page", at, anonymousId=device, name="Landing", properties={"path": "/"}, context={"campaign": utm})


def _order_completed(order: Order, number: int) -> dict[str, Any]:
    properties = {
        "order_id": order_id(number),
        "total": float(order.value),
        "discount": float(order.discount),
        "currency": CURRENCY,
    }
    return _event(
        "track",
        order.ordered_at,
        anonymousId=order.person.devices[0],
        userId=order.person.user_id,
        event="Order Completed",
        properties=properties,
    )


def _event(kind: str, at: datetime, **fields: Any) -> dict[str, Any]:
    context = {"library": _LIBRARY, **fields.pop("context", {})}
    key = "|".join(str(fields.get(name, "")) for name in ("anonymousId", "userId", "properties", "traits"))
    return {
        "type": kind,
        "messageId": str(uuid5(_EVENT_IDS, f"{kind}|{at.isoformat()}|{key}|{context.get('campaign', '')}")),
        "timestamp": at.isoformat().replace("+00:00", "Z"),
        **fields,
        "context": context,
    }
