"""What a version changes, whom it breaks, the changelog and consumers, as the protos say them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from counterfoil.contracts.v1 import consumers_pb2
from counterfoil.contracts.v1 import contracts_pb2 as pb
from counterfoil_chassis.clock import to_timestamp

from counterfoil_contracts.consumers import FieldUse
from counterfoil_contracts.contracts import MOST_BROKEN, MOST_FIELDS
from counterfoil_contracts.evolution import (
    BrokenConsumer,
    ChangelogEntry,
    Consumer,
    FieldChange,
    Level,
    VersionComparison,
)
from counterfoil_contracts.servicers.translation import VERDICTS, to_break

_MOST_READERS: Final = 100
_LEVELS: Final = {each: pb.VersionComparison.Level.Value(each.name) for each in Level}


def to_version_comparison(whole: VersionComparison) -> pb.VersionComparison:
    """Return how a version compares with the one in force, and whom it breaks."""
    return pb.VersionComparison(
        in_force_version=whole.in_force_version,
        level=_level(whole.level),
        needed_version=whole.needed_version,
        version_suffices=whole.version_suffices,
        needs_approval=whole.needs_approval,
        consumers=[_broken(each) for each in whole.broken[:MOST_BROKEN]],
        consumer_count=len(whole.broken),
        fields=[_field_change(each) for each in whole.fields[:MOST_FIELDS]],
        field_count=len(whole.fields),
        dropped_datasets=whole.dropped_datasets,
    )


def to_changelog_entry(entry: ChangelogEntry) -> pb.ChangelogEntry:
    """Return one thing that was done to a contract."""
    return pb.ChangelogEntry(
        number=entry.number,
        action=pb.ChangelogEntry.Action.Value(entry.action.name),
        version=entry.version,
        previous_version=entry.previous_version,
        principal=entry.principal,
        reason=entry.reason,
        at=to_timestamp(entry.at),
        change_id=entry.change_id,
        level=_level(entry.level),
        fields=[_field_change(each) for each in entry.fields],
        consumers=entry.consumers,
        sunset_at=None if entry.sunset_at is None else to_timestamp(entry.sunset_at),
    )


def to_consumer(consumer: Consumer, *, undeclared: Sequence[str]) -> consumers_pb2.Consumer:
    """Return a consumer as callers see it."""
    return consumers_pb2.Consumer(
        consumer_id=consumer.consumer_id,
        name=consumer.name,
        dataset=consumer.dataset,
        fields=consumer.fields,
        version_range=consumer.version_range,
        owner=consumer.owner,
        contact=consumer.contact,
        service=consumer.service,
        registered_by=consumer.registered_by,
        created_at=to_timestamp(consumer.created_at),
        updated_at=to_timestamp(consumer.updated_at),
        undeclared_fields=undeclared,
    )


def to_contract_field(use: FieldUse) -> consumers_pb2.ContractField:
    """Return a field and who reads it."""
    return consumers_pb2.ContractField(
        dataset=use.dataset,
        path=use.path,
        consumers=[
            consumers_pb2.ConsumerReference(consumer_id=each.consumer_id, name=each.name, owner=each.owner)
            for each in use.consumers[:_MOST_READERS]
        ],
        consumer_count=len(use.consumers),
    )


def _broken(broken: BrokenConsumer) -> pb.BrokenConsumer:
    consumer = broken.consumer
    return pb.BrokenConsumer(
        consumer_id=consumer.consumer_id,
        name=consumer.name,
        owner=consumer.owner,
        contact=consumer.contact,
        dataset=consumer.dataset,
        verdict=VERDICTS[broken.verdict],
        breaks=[to_break(each) for each in broken.breaks],
    )


def _field_change(change: FieldChange) -> pb.FieldChange:
    return pb.FieldChange(dataset=change.dataset, path=change.path, kind=pb.FieldChange.Kind.Value(change.fate.name))


def _level(level: Level | None) -> pb.VersionComparison.Level.ValueType:
    return pb.VersionComparison.Level.LEVEL_UNSPECIFIED if level is None else _LEVELS[level]
