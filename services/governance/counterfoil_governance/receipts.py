"""The ledger of receipts: what producers may put, once and for all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol, TypeVar

from counterfoil_governance.entities import ReceiptEntry
from counterfoil_governance.errors import ReceiptDiffersError, ReceiptMalformedError, ReceiptProducerError
from counterfoil_governance.store import Stores

_RECEIPT_ID: Final = re.compile(
    r"(?P<producer>[a-z]+)\.[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)


def check_entry(entry: ReceiptEntry, *, service: str) -> None:
    """Check that a receipt names itself, a workspace, and the service that puts it.

    Raises ReceiptMalformedError, ReceiptProducerError.
    """
    match = _RECEIPT_ID.fullmatch(entry.receipt_id)
    if match is None or not entry.workspace:
        raise ReceiptMalformedError(
            f"Receipt {entry.receipt_id!r}: a receipt needs an id <service>.<UUIDv7> and a workspace.",
            metadata={"receipt_id": entry.receipt_id},
        )
    if not entry.producer == match["producer"] == service:
        raise ReceiptProducerError(
            f"Receipt {entry.receipt_id!r} names the producer {entry.producer!r}; {service!r} puts only its own.",
            metadata={"receipt_id": entry.receipt_id, "service": service},
        )


async def put_receipts(stores: Stores, entries: Sequence[ReceiptEntry], *, service: str, now: datetime) -> int:
    """Append the receipts that are new and return how many; all of them or, on an error, none.

    Raises ReceiptDiffersError when other bytes are kept under an id, naming it.
    """
    for entry in entries:
        check_entry(entry, service=service)
    known = dict(await stores.receipts.bodies([entry.receipt_id for entry in entries]))
    new = []
    for entry in entries:
        key = (entry.workspace, entry.receipt_id)
        kept = known.get(key)
        if kept is None:
            known[key] = entry.body
            new.append(entry)
        elif kept != entry.body:
            raise ReceiptDiffersError(
                f"The ledger holds other bytes under {entry.receipt_id!r}. A receipt never changes; make a new one.",
                metadata={"receipt_id": entry.receipt_id, "workspace": entry.workspace},
            )
    await stores.receipts.add(new, at=now)
    return len(new)


class Kept(Protocol):
    """Something that is kept as its bytes."""

    @property
    def body(self) -> bytes:
        """The bytes."""


_Kept = TypeVar("_Kept", bound=Kept)


def fitting(entries: Sequence[_Kept], *, size: int) -> Sequence[_Kept]:
    """Return the longest head of the entries whose bytes fit the size; the first one in any case."""
    total = 0
    for index, entry in enumerate(entries):
        total += len(entry.body)
        if total > size and index:
            return entries[:index]
    return entries
