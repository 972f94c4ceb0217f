"""Who reads which fields: registered by people, or said by the platform's own services."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import orjson
from counterfoil_chassis.clock import Ids
from counterfoil_chassis.jsonpath import json_path

from counterfoil_contracts.compatibility.fields import (
    FieldPath,
    Presence,
    declared_fields,
    presence,
    read_path,
)
from counterfoil_contracts.errors import ConsumerOfServiceError, TooManyConsumersError
from counterfoil_contracts.evolution import Consumer
from counterfoil_contracts.store import Stores
from counterfoil_contracts.versions import read_range

MOST_CONSUMERS: Final = 5_000
"""That are registered in a workspace."""


@dataclass(frozen=True)
class Registration:
    """What somebody says of a consumer; an empty `service` means that it is none of the platform's."""

    workspace: str
    name: str
    dataset: str
    fields: Sequence[str]
    version_range: str = ""
    owner: str = ""
    contact: str = ""
    service: str = ""


async def register(stores: Stores, registration: Registration, *, principal: str, ids: Ids, now: datetime) -> Consumer:
    """Keep a consumer, in place of the one with this name and dataset.

    Raises FieldPathInvalidError, VersionRangeInvalidError, TooManyConsumersError.
    """
    known = await _known(stores, registration)
    consumer = _consumer(registration, known, principal=principal, ids=ids, now=now)
    if known is None and await stores.consumers.count(registration.workspace) >= MOST_CONSUMERS:
        raise TooManyConsumersError(f"A workspace has at most {MOST_CONSUMERS} consumers. Remove some.")
    await stores.consumers.put(consumer)
    await stores.audit.record(
        workspace=consumer.workspace,
        principal=principal,
        action="consumer.register",
        resource=f"consumers/{consumer.consumer_id}",
        details={"dataset": consumer.dataset, "fields": len(consumer.fields), "version_range": consumer.version_range},
    )
    return consumer


async def remove(stores: Stores, workspace: str, consumer_id: str, *, principal: str) -> None:
    """Forget a consumer that somebody registered; raise ConsumerNotFoundError or ConsumerOfServiceError."""
    consumer = await stores.consumers.get(workspace, consumer_id)
    if consumer.service:
        raise ConsumerOfServiceError(
            f"{consumer.name} is what the platform's {consumer.service} reads. Change it there.",
            metadata={"consumer_id": consumer_id, "service": consumer.service},
        )
    await stores.consumers.remove(consumer)
    await stores.audit.record(
        workspace=workspace,
        principal=principal,
        action="consumer.remove",
        resource=f"consumers/{consumer_id}",
        details={"dataset": consumer.dataset},
    )


async def replace_own(
    stores: Stores,
    workspace: str,
    service: str,
    registrations: Sequence[Registration],
    *,
    principal: str,
    ids: Ids,
    now: datetime,
) -> None:
    """Keep all that a service reads, and forget what it does not read any more; what is as before stays untouched."""
    before = {(each.name, each.dataset): each for each in await stores.consumers.of_service(workspace, service)}
    for registration in registrations:
        known = before.pop((registration.name, registration.dataset), None)
        consumer = _consumer(registration, known, principal=principal, ids=ids, now=now)
        if known is None or replace(known, updated_at=now) != consumer:
            await stores.consumers.put(consumer)
    for gone in before.values():
        await stores.consumers.remove(gone)


async def _known(stores: Stores, registration: Registration) -> Consumer | None:
    return await stores.consumers.find(
        registration.workspace,
        service=registration.service,
        name=registration.name,
        dataset=registration.dataset,
    )


def _consumer(
    registration: Registration, known: Consumer | None, *, principal: str, ids: Ids, now: datetime
) -> Consumer:
    if registration.version_range:
        read_range(registration.version_range)
    fields = dict.fromkeys(json_path(read_path(each)) for each in registration.fields)
    return Consumer(
        workspace=registration.workspace,
        consumer_id=ids.new() if known is None else known.consumer_id,
        name=registration.name,
        dataset=registration.dataset,
        fields=() if "$" in fields else tuple(fields),
        version_range=registration.version_range,
        owner=registration.owner,
        contact=registration.contact,
        service=registration.service,
        registered_by=principal,
        created_at=now if known is None else known.created_at,
        updated_at=now,
    )


async def undeclared(stores: Stores, consumer: Consumer) -> list[str]:
    """Return those of a consumer's fields that what governs its dataset does not declare."""
    governed = await stores.governed.find(consumer.workspace, consumer.dataset)
    if governed is None:
        return list(consumer.fields)
    return undeclared_in(orjson.loads(governed.compiled.json_schema), consumer)


def undeclared_in(schema: Any, consumer: Consumer) -> list[str]:
    """Return those of a consumer's fields that a schema does not declare."""
    return [each for each in consumer.fields if presence(schema, read_path(each)) is not Presence.DECLARED]


@dataclass(frozen=True)
class FieldUse:
    """A declared field and who reads it, by name."""

    dataset: str
    path: str
    consumers: tuple[Consumer, ...]


async def fields_of(stores: Stores, workspace: str, contract_id: str) -> list[FieldUse]:
    """Return every field that the version in force declares, by dataset and name, and who reads it.

    Who reads a field reads what lies below it; who reads only below it reads not all of it. Raises
    ContractNotFoundError.
    """
    await stores.contracts.get(workspace, contract_id)
    version = await stores.contracts.version_in_force(workspace, contract_id)
    if version is None:
        return []
    readers = await stores.consumers.readers(workspace, version.datasets)
    found = []
    for compiled in version.compiled:
        of_field: dict[FieldPath, list[Consumer]] = {}
        for each in readers:
            if each.dataset == compiled.dataset:
                for path in [read_path(text) for text in each.fields] or [()]:
                    of_field.setdefault(path, []).append(each)
        for path in declared_fields(orjson.loads(compiled.json_schema)):
            # somebody who reads a field and the one above it is one reader
            reading = {
                each.consumer_id: each for length in range(len(path) + 1) for each in of_field.get(path[:length], ())
            }
            by_name = sorted(reading.values(), key=lambda each: (each.name, each.consumer_id))
            found.append(FieldUse(compiled.dataset, json_path(path), tuple(by_name)))
    return found
