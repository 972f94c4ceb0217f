"""The CRM's exports: contacts, won deals, and whom the mailing was sent to. Property names are HubSpot's."""

from collections.abc import Iterator
from datetime import datetime

from harbour_store.behaviour import Behaviour
from harbour_store.calendar import MAILED_AT
from harbour_store.campaigns import MAILING
from harbour_store.events import CURRENCY, order_id
from harbour_store.people import Person

Row = dict[str, str]


def contacts(people: list[Person]) -> Iterator[Row]:
    """Yield one row per contact."""
    for person in people:
        yield {
            "hs_object_id": person.contact_id,
            "email": person.crm_email,
            "firstname": person.first_name,
            "lastname": person.last_name,
            "phone": person.phone,
            "lifecyclestage": "customer",
            "createdate": _zulu(person.registered_at),
        }


def deals(behaviour: Behaviour) -> Iterator[Row]:
    """Yield one row per won deal; everybody's first order, long before, is among them."""
    for number, order in enumerate(behaviour.orders):
        yield {
            "hs_object_id": str(50_000_000 + number),
            "dealname": order_id(number),
            "contact_id": order.person.contact_id,
            "amount": str(order.value),
            "discount": str(order.discount),
            "deal_currency_code": CURRENCY,
            "dealstage": "closedwon",
            "closedate": _zulu(order.ordered_at),
        }


def mailings(people: list[Person], behaviour: Behaviour) -> Iterator[Row]:
    """Yield one row per contact the mailing was sent to."""
    for person in people:
        if person.number in behaviour.mailed:
            yield {"contact_id": person.contact_id, "campaign": MAILING, "sent_at": _zulu(MAILED_AT)}


def _zulu(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
