"""Who allowed what: most people, not all, some withdrew, and some answers arrive late."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from harbour_store.calendar import BEGIN
from harbour_store.draws import Draws
from harbour_store.events import strangers
from harbour_store.people import Person

MEASUREMENT: Final = "measurement"
ADVERTISING: Final = "advertising"
FORM: Final = "sign-up form, version 2 (synthetic)"
BANNER: Final = "cookie banner, version 4 (synthetic)"

_NEVER_ASKED: Final = 0.03
_WITHDREW: Final = 0.02
_LATE: Final = 0.25
_ADVERTISING: Final = 0.4
_BANNER_ACCEPTED: Final = 0.7


@dataclass(frozen=True)
class Answers:
    """Records of the ledger: those of the first delivery, and those that arrive after it although they are older."""

    prompt: list[dict[str, Any]]
    late: list[dict[str, Any]]
    without: frozenset[int]
    """Numbers of the customers that nothing may be measured of: never asked, or withdrawn."""


def make_consents(seed: int, people: list[Person]) -> Answers:
    """Make everybody's answers; they depend on nothing that anybody buys."""
    draws = Draws(seed, "consents")
    prompt: list[dict[str, Any]] = []
    late: list[dict[str, Any]] = []
    without: set[int] = set()
    for person in people:
        never, withdrew, is_late = (draws.chance(share) for share in (_NEVER_ASKED, _WITHDREW, _LATE))
        advertising = draws.chance(_ADVERTISING)
        if never or withdrew:
            without.add(person.number)
        if never:
            continue
        granted = list(_answers(person, MEASUREMENT, "GRANTED", person.registered_at))
        # Of those who withdrew, some first answers come after the withdrawal: older, they change nothing.
        (late if withdrew and is_late else prompt).extend(granted)
        if withdrew:
            prompt += _answers(person, MEASUREMENT, "WITHDRAWN", BEGIN + timedelta(days=5))
        if advertising:
            prompt += _answers(person, ADVERTISING, "GRANTED", person.registered_at)
    for device, _ in strangers(seed, len(people)):
        if draws.chance(_BANNER_ACCEPTED):
            subject = {"type": "anonymous_id", "value": device}
            prompt.append(_answer(subject, MEASUREMENT, state="GRANTED", at=BEGIN, evidence=BANNER))
    return Answers(prompt, late, frozenset(without))


def _answers(person: Person, purpose: str, state: str, at: datetime) -> Iterator[dict[str, Any]]:
    """Yield one answer under both names of a person: the shop's and the CRM's."""
    for kind, value in (("user_id", person.user_id), ("crm_contact_id", person.contact_id)):
        yield _answer({"type": kind, "value": value}, purpose, state=state, at=at, evidence=FORM)


def _answer(subject: dict[str, str], purpose: str, *, state: str, at: datetime, evidence: str) -> dict[str, Any]:
    return {
        "subject": subject,
        "purpose": purpose,
        "state": state,
        "basis": "CONSENT",
        "happened_at": at.isoformat().replace("+00:00", "Z"),
        "evidence": evidence,
    }
