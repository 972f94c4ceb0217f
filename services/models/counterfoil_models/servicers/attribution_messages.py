"""Attributions as messages and back."""

from __future__ import annotations

from counterfoil.models.v1 import attributions_pb2 as pb
from counterfoil_chassis.clock import to_timestamp

from counterfoil_models.attribution import CAVEAT
from counterfoil_models.attribution_spec import AttributionSpec, CostSource, Subject, Window, day_of, spec_of
from counterfoil_models.documents import Document, gap_of
from counterfoil_models.entities import Output
from counterfoil_models.servicers.messages import completeness_message

_COST_FIELDS = ("dataset", "time_field", "amount_field", "micros", "currency", "channel", "campaign_field")


def spec_of_message(message: pb.AttributionSpec) -> AttributionSpec:
    """Read a spec as it was sent; raise SpecInvalidError for days that are not in the calendar."""
    by_campaign = message.subject == pb.AttributionSpec.CAMPAIGN
    in_flight = message.window == pb.AttributionSpec.FLIGHT
    return AttributionSpec(
        conversion_type=message.conversion_type,
        first_day=day_of(message.first_day, field="spec.first_day"),
        last_day=day_of(message.last_day, field="spec.last_day"),
        subject=Subject.CAMPAIGN if by_campaign else Subject.CHANNEL,
        window=Window.FLIGHT if in_flight else Window.LOOKBACK,
        lookback_days=message.lookback_days,
        half_life_days=message.half_life_days,
        costs=tuple(CostSource(**{name: getattr(one, name) for name in _COST_FIELDS}) for one in message.costs),
    )


def attribution_message(output: Output, *, credits_shown: bool = True) -> pb.Attribution:
    """Write an attribution, for lists without its rows' credits."""
    document = output.document
    return pb.Attribution(
        attribution_id=output.output_id,
        receipt_id=output.receipt_id,
        spec=_spec_message(spec_of(output.meta["spec"])),
        purpose=output.meta["purpose"],
        conversions=document["conversions"],
        value_micros=int(document["value_micros"]),
        currency=document["currency"],
        attributed_conversions=document["attributed_conversions"],
        attributed_value_micros=int(document["attributed_value_micros"]),
        null_paths=document["null_paths"],
        open_paths=document["open_paths"],
        rows=[_row_message(row, credits_shown=credits_shown) for row in document["rows"]],
        completeness=completeness_message(tuple(gap_of(one) for one in output.meta["gaps"])),
        created_at=to_timestamp(output.created_at),
        caveat=CAVEAT,
    )


def _spec_message(spec: AttributionSpec) -> pb.AttributionSpec:
    return pb.AttributionSpec(
        conversion_type=spec.conversion_type,
        first_day=spec.first_day.isoformat(),
        last_day=spec.last_day.isoformat(),
        subject=pb.AttributionSpec.Subject.Value(spec.subject.name),
        window=pb.AttributionSpec.Window.Value(spec.window.name),
        lookback_days=spec.lookback_days,
        half_life_days=spec.half_life_days,
        costs=[pb.CostSource(**vars(one)) for one in spec.costs],
    )


def _row_message(row: Document, *, credits_shown: bool) -> pb.AttributionRow:
    return pb.AttributionRow(
        subject=row["subject"],
        name=row["subject"],
        touchpoints=row["touchpoints"],
        credits=[_credit_message(one) for one in (row["credits"] if credits_shown else ())],
        cost_micros=_known(row["cost_micros"]),
        cost_currency=row["cost_currency"],
    )


def _credit_message(credit: Document) -> pb.AttributionCredit:
    return pb.AttributionCredit(
        model=credit["model"],
        conversions=credit["conversions"],
        value_micros=int(credit["value_micros"]),
        cost_per_conversion_micros=_known(credit["cost_per_conversion_micros"]),
    )


def _known(micros: str | None) -> int | None:
    return None if micros is None else int(micros)
