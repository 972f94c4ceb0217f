"""Lifts as messages and back."""

from typing import Any

from counterfoil.models.v1 import lifts_pb2
from counterfoil_chassis.clock import to_timestamp

from counterfoil_models.documents import gap_of
from counterfoil_models.entities import Output
from counterfoil_models.lift_spec import (
    Document,
    LiftAssignment,
    LiftCovariates,
    LiftOutcome,
    LiftSpec,
    parse_day,
)
from counterfoil_models.servicers.messages import completeness_message


def lift_spec_of_message(message: lifts_pb2.LiftSpec) -> LiftSpec:
    """Read a spec as it was sent; raise SpecInvalidError for a day that no calendar has."""
    outcome, assignment, covariates = message.outcome, message.assignment, message.covariates
    return LiftSpec(
        name=message.name,
        outcome=LiftOutcome(
            dataset=outcome.dataset,
            unit_field=outcome.unit_field,
            unit_type=outcome.unit_type,
            time_field=outcome.time_field,
            value_field=outcome.value_field,
            currency=outcome.currency,
            count_field=outcome.count_field,
            cost_fields=tuple(outcome.cost_fields),
        ),
        assignment=LiftAssignment(
            dataset=assignment.dataset,
            unit_field=assignment.unit_field,
            filter_values=tuple(assignment.filter_values),
            filter_field=assignment.filter_field,
            time_field=assignment.time_field,
            lookup_dataset=assignment.lookup_dataset,
            lookup_key=assignment.lookup_key,
            leave_out_assigned_before=assignment.leave_out_assigned_before,
        ),
        first_day=parse_day(message.first_day, "first_day"),
        last_day=parse_day(message.last_day, "last_day"),
        pre_first_day=parse_day(message.pre_first_day, "pre_first_day"),
        pre_last_day=parse_day(message.pre_last_day, "pre_last_day"),
        covariates=LiftCovariates(covariates.dataset, covariates.unit_field, tuple(covariates.fields))
        if message.HasField("covariates")
        else None,
        coverage=message.coverage,
    )


def lift_message(output: Output, *, tables: bool = True) -> lifts_pb2.Lift:
    """Write a kept lift; without its tables for lists."""
    document = output.document
    return lifts_pb2.Lift(
        lift_id=output.output_id,
        receipt_id=output.receipt_id,
        spec=_spec_message(document["spec"]),
        purpose=document["purpose"],
        treated=document["treated"],
        control=document["control"],
        left_out=document["left_out"],
        estimates=[lifts_pb2.LiftEstimate(**one) for one in (document["estimates"] if tables else ())],
        balance=[lifts_pb2.LiftBalance(**one) for one in (document["balance"] if tables else ())],
        cost=_cost_message(document["cost"]),
        completeness=completeness_message(tuple(gap_of(one) for one in document["gaps"])),
        created_at=to_timestamp(output.created_at),
        caveat=document["caveat"],
    )


def _spec_message(document: Document) -> lifts_pb2.LiftSpec:
    parts: dict[str, Any] = {
        "outcome": lifts_pb2.LiftOutcome(**document["outcome"]),
        "assignment": lifts_pb2.LiftAssignment(**document["assignment"]),
        "covariates": None if document["covariates"] is None else lifts_pb2.LiftCovariates(**document["covariates"]),
    }
    return lifts_pb2.LiftSpec(**{**document, **parts})


def _cost_message(document: Document) -> lifts_pb2.LiftCost:
    return lifts_pb2.LiftCost(
        cost_micros=document["cost_micros"],
        currency=document["currency"],
        parts=[lifts_pb2.LiftCostPart(**one) for one in document["parts"]],
        per_incremental=[lifts_pb2.LiftCostPer(**one) for one in document["per_incremental"]],
    )
