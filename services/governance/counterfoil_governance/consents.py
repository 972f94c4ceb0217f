"""The consent ledger: what persons and laws allow, for which purpose; without a record, nothing."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from counterfoil_chassis.clock import to_micros
from counterfoil_chassis.errors import FieldViolation
from counterfoil_chassis.secrecy import derive_key

from counterfoil_governance.entities import Consent, ConsentState
from counterfoil_governance.errors import ConsentPeriodError, LedgerRevisionUnknownError
from counterfoil_governance.recording import Recorder
from counterfoil_governance.store import Stores

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far ahead of ours a sender's clock may be: a record must not lie in the future, where a later withdrawal of the
person could not replace it."""
GRANTED: Final = "GRANTED"
WITHDRAWN: Final = "WITHDRAWN"
EXPIRED: Final = "EXPIRED"
NO_RECORD: Final = "NO_RECORD"


class Pseudonyms:
    """Keyed hashes of identifiers for one purpose, by workspace: what is found by them holds no identifier."""

    def __init__(self, secret: bytes, purpose: str = "consent subjects") -> None:
        self._purpose = purpose
        self._secret = derive_key(secret, purpose)
        self._keys: dict[str, bytes] = {}

    def key(self, workspace: str) -> bytes:
        """Return the 32 bytes that a workspace's hashes are made with."""
        key = self._keys.get(workspace)
        if key is None:
            key = self._keys[workspace] = derive_key(self._secret, f"{self._purpose} of {workspace}")
        return key

    def subject(self, workspace: str, *, type: str, value: str) -> bytes:  # noqa: A002 - the word for it
        """Return the hash of an identifier; e-mail addresses count in lower case, white space around it does not."""
        said = value.strip()
        said = said.lower() if type == "email" else said
        return hmac.digest(self.key(workspace), f"{type}\0{said}".encode(), "sha256")


@dataclass(frozen=True)
class Recorded:
    """What recording did: how many were new, how many of these cannot replace a later one, the revision after them."""

    recorded: int
    superseded: int
    revision: int


@dataclass(frozen=True)
class ConsentAnswer:
    """Whether a purpose is allowed for one person, why, and by which record."""

    allowed: bool
    reason: str
    consent: Consent | None


def with_content(consent: Consent, *, index: int, now: datetime) -> Consent:
    """Return a new record with the hash of what it says; raise ConsentPeriodError when its times make no sense."""
    field = f"consents[{index}]"
    if consent.happened_at > now + CLOCK_TOLERANCE:
        raise ConsentPeriodError(
            f"{field} lies in the future. Record what happened, with the time when it did.",
            violations=[FieldViolation(f"{field}.happened_at", "CONSENT_PERIOD", "must not lie in the future")],
        )
    if consent.expires_at is not None and consent.expires_at <= consent.happened_at:
        raise ConsentPeriodError(
            f"{field} ends before it begins. Say a later expires_at, or none.",
            violations=[FieldViolation(f"{field}.expires_at", "CONSENT_PERIOD", "must be later than happened_at")],
        )
    ends = "" if consent.expires_at is None else str(to_micros(consent.expires_at))
    said = (
        consent.subject.hex(),
        consent.purpose,
        consent.state.value,
        consent.basis.value,
        str(to_micros(consent.happened_at)),
        ends,
        consent.evidence,
    )
    return replace(consent, content=hashlib.sha256("\0".join(said).encode()).digest())


async def record(stores: Stores, consents: Sequence[Consent], *, recorder: Recorder) -> Recorded:
    """Append the records that are new; the very same again adds nothing. The audit log gets counts only."""
    workspace = recorder.workspace
    revision = await stores.consents.lock(workspace)
    known = await stores.consents.known(workspace, [consent.content for consent in consents])
    fresh = {consent.content: consent for consent in consents if consent.content not in known}
    new = [replace(consent, revision=revision + 1 + place) for place, consent in enumerate(fresh.values())]
    superseded = await _superseded(stores, workspace, new, revision=revision)
    if new:
        await stores.consents.add(new)
        withdrawn = sum(consent.state is ConsentState.WITHDRAWN for consent in new)
        await recorder.record(
            stores,
            "consents.record",
            "consents",
            recorded=len(new),
            withdrawn=withdrawn,
            superseded=superseded,
            ledger_revision=revision + len(new),
        )
    return Recorded(len(new), superseded, revision + len(new))


async def check(
    stores: Stores, workspace: str, *, purpose: str, people: Sequence[Sequence[bytes]], revision: int, at: datetime
) -> tuple[Sequence[ConsentAnswer], int]:
    """Return for each person, by the hashes of its identifiers, whether the purpose is allowed, and the revision read.

    The latest record of all its identifiers holds, up to the revision; 0 = the newest.
    Raises LedgerRevisionUnknownError.
    """
    newest = await stores.consents.revision(workspace)
    if revision > newest:
        raise LedgerRevisionUnknownError(
            f"The consent ledger is at revision {newest}; {revision} is not reached.",
            metadata={"ledger_revision": str(newest)},
        )
    read = revision or newest
    subjects = list({subject for person in people for subject in person})
    holding = latest(await stores.consents.of_subjects(workspace, subjects, purpose=purpose, revision=read))
    return [_answer([holding.get((subject, purpose)) for subject in person], at=at) for person in people], read


def latest(consents: Iterable[Consent]) -> Mapping[tuple[bytes, str], Consent]:
    """Return the record that holds for each subject and purpose, whatever order they come in."""
    holding: dict[tuple[bytes, str], Consent] = {}
    for consent in consents:
        place = (consent.subject, consent.purpose)
        held = holding.get(place)
        if held is None or held.rank < consent.rank:
            holding[place] = consent
    return holding


async def _superseded(stores: Stores, workspace: str, new: Sequence[Consent], *, revision: int) -> int:
    """Count the records that could not replace what was there when they came; those of one call come in its order."""
    subjects = list({consent.subject for consent in new})
    holding = dict(latest(await stores.consents.of_subjects(workspace, subjects, purpose="", revision=revision)))
    count = 0
    for consent in new:
        place = (consent.subject, consent.purpose)
        held = holding.get(place)
        if held is not None and held.rank > consent.rank:
            count += 1
        else:
            holding[place] = consent
    return count


def _answer(held: Sequence[Consent | None], *, at: datetime) -> ConsentAnswer:
    found = [consent for consent in held if consent is not None]
    if not found:
        return ConsentAnswer(allowed=False, reason=NO_RECORD, consent=None)
    consent = max(found, key=lambda each: each.rank)
    if consent.state is ConsentState.WITHDRAWN:
        return ConsentAnswer(allowed=False, reason=WITHDRAWN, consent=consent)
    if consent.expires_at is not None and consent.expires_at <= at:
        return ConsentAnswer(allowed=False, reason=EXPIRED, consent=consent)
    return ConsentAnswer(allowed=True, reason=GRANTED, consent=consent)
