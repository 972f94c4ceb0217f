"""Who shops at the Harbour Store, on which devices, and how messily the systems know them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from harbour_store.calendar import BEGIN, OPENED
from harbour_store.draws import Draws

DESK_EMAIL: Final = "desk@harbour-store.example"
"""What the shop's desk types in for customers who give no address."""

_DEVICE_IDS: Final = UUID("0d5f4f0a-54a8-5a59-9a6a-3f1c1b6a7d10")
_FIRST: Final = (
    "Ada",
    "Ben",
    "Cleo",
    "Dora",
    "Emil",
    "Finn",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Klara",
    "Levi",
    "Mila",
)
_LAST: Final = ("Anker", "Brandt", "Clausen", "Deich", "Ebert", "Falk", "Gruber", "Hansen", "Ibsen", "Jensen", "Krog")
_PROVIDERS: Final = ("mail.example", "post.example", "inbox.example")

_MEAN_ORDERS_BEFORE: Final = 1.5
_RATE_SHAPE: Final = 2
_SHARED_EMAIL: Final = 0.02
_TYPO: Final = 0.03
_SHOUTED: Final = 0.05
_DESK: Final = 0.02
_SHARED_DEVICE: Final = 0.03
_LOGS_IN: Final = 0.8
KIOSK_SHARE: Final = 0.02


@dataclass(frozen=True)
class Person:
    """One customer as they really are, beside what the systems hold of them."""

    number: int
    first_name: str
    last_name: str
    email: str
    crm_email: str
    phone: str
    registered_at: datetime
    rate: float
    """Orders to be expected in the time before the campaigns, from habit alone."""
    devices: tuple[str, ...]
    """Anonymous ids; the first is the one they sign in on."""
    signs_in: tuple[bool, ...]

    @property
    def user_id(self) -> str:
        """Their id in the shop."""
        return f"hs-{self.number:06d}"

    @property
    def contact_id(self) -> str:
        """Their id in the CRM."""
        return str(700_000 + self.number)


def device_id(name: str) -> str:
    """Return the anonymous id of a device."""
    return str(uuid5(_DEVICE_IDS, name))


KIOSK: Final = device_id("kiosk")
"""The tablet in the shop on which many customers sign in."""


def make_people(seed: int, count: int) -> list[Person]:
    """Make the customers; a person's noise never depends on what they buy."""
    draws = Draws(seed, "people")
    people: list[Person] = []
    for number in range(1, count + 1):
        first, last = draws.pick(_FIRST), draws.pick(_LAST)
        email = f"{first}.{last}.{number}@{draws.pick(_PROVIDERS)}".lower()
        if people and draws.chance(_SHARED_EMAIL):
            email = people[-1].email
        devices = [device_id(f"{seed}:{number}:{index}") for index in range(1 + draws.below(3))]
        if people and draws.chance(_SHARED_DEVICE):
            devices.append(people[-1].devices[0])
        people.append(
            Person(
                number=number,
                first_name=first,
                last_name=last,
                email=email,
                crm_email=_as_typed_in(email, draws),
                phone=f"+49151{10_000_000 + number}",
                registered_at=draws.moment(OPENED, BEGIN),
                rate=draws.gamma(_RATE_SHAPE, mean=_MEAN_ORDERS_BEFORE),
                devices=tuple(devices),
                signs_in=tuple(index == 0 or draws.chance(_LOGS_IN) for index in range(len(devices))),
            )
        )
    return people


def _as_typed_in(email: str, draws: Draws) -> str:
    """Return the address as the CRM has it: mostly right, sometimes in capitals, misspelt, or the desk's own."""
    if draws.chance(_DESK):
        return DESK_EMAIL
    if draws.chance(_TYPO):
        at = 1 + draws.below(email.index("@") - 2)
        return email[:at] + email[at + 1] + email[at] + email[at + 2 :]
    return email.upper() if draws.chance(_SHOUTED) else email
