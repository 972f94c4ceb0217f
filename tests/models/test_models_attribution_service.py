"""AttributionService over gRPC, with its receipts replayed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import date

import pyarrow as pa
import pytest
from counterfoil.common.v1 import receipts_pb2
from counterfoil.models.v1 import attributions_pb2
from counterfoil_chassis.canonical import output_sha256

from tests.models.journey_rows import Event
from tests.models.shop import World, demand

R = receipts_pb2.ReplayResult
S = attributions_pb2.AttributionSpec
FORBIDS = """
@id("no-measuring") @owner("test") @description("Nothing is used.")
forbid (principal, action == Counterfoil::Action::"use", resource);
"""


@pytest.fixture
def market(world: World) -> World:
    """Three persons with consent and one without, two channels, one of which has its cost recorded."""
    world.office.timezone = "UTC"
    world.journeys.consent("pqr")
    world.journeys.put(
        [
            Event("p", 1, "email"),
            Event("p", 2, "social"),
            Event("p", 3, value=30),
            Event("p", 4, value=10),
            Event("q", 1, "email"),
            Event("r", 2, "social"),
            Event("r", 5, value=2, type="signup"),
            Event("x", 1, "email"),
            Event("x", 2, value=99),
            Event("p", 40, "email"),
        ]
    )
    spent = pa.table({"day": pa.array([date(2025, 1, 1), date(2025, 1, 2)]), "spend": [1.5, 2.5]})
    world.ingest.put("acme", "mail_costs", spent)
    return world


def asked(*, purpose: str = "", **changes) -> attributions_pb2.CreateAttributionRequest:
    cost = attributions_pb2.CostSource(
        dataset="mail_costs", time_field="day", amount_field="spend", currency="USD", channel="email"
    )
    fields = {"conversion_type": "order", "first_day": "2025-01-01", "last_day": "2025-01-31", "costs": [cost]}
    return attributions_pb2.CreateAttributionRequest(
        spec=S(**{**fields, "lookback_days": 7, **changes}), purpose=purpose
    )


async def create(client, **request) -> attributions_pb2.Attribution:
    return await client(client.attributions.CreateAttribution, asked(**request))


async def replay(client, made) -> receipts_pb2.ReplayResult:
    return await client(client.receipts.Replay, receipts_pb2.ReplayRequest(receipt_id=made.receipt_id))


async def receipt_of(client, made) -> receipts_pb2.Receipt:
    return await client(client.receipts.GetReceipt, receipts_pb2.GetReceiptRequest(receipt_id=made.receipt_id))


def document(made: attributions_pb2.Attribution) -> dict:
    """Write an attribution as its receipt hashes it, from the message alone."""

    def known(message, name):
        return str(getattr(message, name)) if message.HasField(name) else None

    return {
        "conversions": made.conversions,
        "value_micros": str(made.value_micros),
        "currency": made.currency,
        "attributed_conversions": made.attributed_conversions,
        "attributed_value_micros": str(made.attributed_value_micros),
        "null_paths": made.null_paths,
        "open_paths": made.open_paths,
        "rows": [
            {
                "subject": row.subject,
                "touchpoints": row.touchpoints,
                "credits": [
                    {
                        "model": one.model,
                        "conversions": one.conversions,
                        "value_micros": str(one.value_micros),
                        "cost_per_conversion_micros": known(one, "cost_per_conversion_micros"),
                    }
                    for one in row.credits
                ],
                "cost_micros": known(row, "cost_micros"),
                "cost_currency": row.cost_currency,
            }
            for row in made.rows
        ],
    }


async def test_an_attribution_shows_the_models_side_by_side_with_cost_and_receipt(market, client):
    made = await create(client)
    assert (made.conversions, made.value_micros, made.currency) == (2, 40_000_000, "USD")
    assert (made.attributed_conversions, made.null_paths, made.open_paths) == (2, 2, 0)
    assert [(row.subject, row.name, row.touchpoints) for row in made.rows] == [
        ("email", "email", 2),
        ("social", "social", 2),
    ]
    email, social = made.rows
    assert [one.model for one in email.credits] == ["first", "last", "linear", "time_decay", "position", "markov"]
    assert [round(one.conversions, 3) for one in email.credits] == [2, 0, 1, 0.951, 1, 0.8]
    assert (email.cost_micros, email.cost_currency) == (4_000_000, "USD")
    assert email.credits[2].cost_per_conversion_micros == 4_000_000
    assert not email.credits[1].HasField("cost_per_conversion_micros")
    assert not social.HasField("cost_micros")
    reasons = {note.reason: note.records for note in made.completeness.notes}
    assert reasons == {"NO_CONSENT": 1, "COST_UNKNOWN": 2}
    assert (made.spec.subject, made.spec.window, made.spec.half_life_days) == (S.CHANNEL, S.LOOKBACK, 7)
    assert made.purpose == "measurement"
    assert "lift" in made.caveat

    receipt = await receipt_of(client, made)
    assert (receipt.producer, receipt.purpose, receipt.principal) == ("models", "measurement", "ada")
    assert receipt.output == f"attribution/{made.attribution_id}"
    assert receipt.output_sha256 == output_sha256(document(made))
    assert [(one.role, one.rows, one.snapshot.dataset) for one in receipt.inputs] == [("cost", 2, "mail_costs")]
    assert [one.dataset for one in receipt.contracts] == ["mail_costs"]
    parameters = json.loads(receipt.parameters)
    state = {"log_epoch": "epoch-1", "next_offset": 10, "mappings_sha256": "a" * 64, "erasures": 0}
    assert parameters["graph"] == state
    assert parameters["timezone"] == "UTC"
    assert receipt.HasField("graph_as_of")
    assert (receipt.consent.purpose, receipt.consent.basis, receipt.consent.ledger_revision) == (
        "measurement",
        "consent",
        1,
    )
    assert [(one.action, one.resource, one.allowed) for one in receipt.policy_checks] == [
        ("use", "dataset:events", True),
        ("use", "dataset:mail_costs", True),
    ]
    assert receipt.policy_bundle.version == 1
    assert receipt.completeness == made.completeness
    assert len(receipt.trace_id) == 32
    async with asyncio.timeout(60):
        assert receipts_pb2.Receipt.FromString(await market.office.receipts.get()) == receipt


async def test_the_journeys_of_the_lookback_before_the_period_are_read_once_graph_has_the_costs(market, client):
    await create(client)
    (request,) = market.journeys.requests
    assert request.since.ToJsonString() == "2024-12-25T00:00:00Z"
    assert request.until.ToJsonString() == "2025-02-01T00:00:00Z"
    assert request.wait_for_offset == 2
    assert (request.log_epoch, request.ledger_revision) == ("", 0)
    await create(client, window=S.FLIGHT)
    assert market.journeys.requests[-1].since.ToJsonString() == "1970-01-01T00:00:00Z"


async def test_the_same_question_returns_the_same_receipt_until_graph_consents_or_costs_change(market, client):
    one = await create(client)
    market.journeys.gate.clear()  # the second time no row is read
    assert await create(client, half_life_days=7, purpose="measurement") == one
    market.journeys.gate.set()
    market.journeys.consent("pqrx")
    two = await create(client)
    assert (two.receipt_id != one.receipt_id, two.conversions) == (True, 3)
    market.journeys.put([Event("q", 2, value=5)])
    three = await create(client)
    assert (three.receipt_id != two.receipt_id, three.conversions) == (True, 4)
    market.ingest.put("acme", "mail_costs", pa.table({"day": pa.array([date(2025, 1, 1)] * 3), "spend": [1.0] * 3}))
    four = await create(client)
    assert (four.receipt_id != three.receipt_id, four.rows[0].cost_micros) == (True, 3_000_000)
    market.office.timezone = "Asia/Tokyo"
    assert (await create(client)).receipt_id != four.receipt_id


async def test_questions_asked_at_once_share_one_receipt(market, client):
    made = await asyncio.gather(*(create(client) for _ in range(4)))
    assert len({one.receipt_id for one in made}) == 1


async def test_attributions_are_read_back_and_listed_newest_first_without_credits(market, client):
    made = [await create(client, lookback_days=days) for days in (1, 2, 3)]
    request = attributions_pb2.ListAttributionsRequest(page_size=2)
    page = await client(client.attributions.ListAttributions, request)
    assert [one.attribution_id for one in page.attributions] == [made[2].attribution_id, made[1].attribution_id]
    assert [len(row.credits) for row in page.attributions[0].rows] == [0, 0]
    request.page_token = page.next_page_token
    assert len((await client(client.attributions.ListAttributions, request)).attributions) == 1
    get = attributions_pb2.GetAttributionRequest(attribution_id=made[0].attribution_id)
    assert await client(client.attributions.GetAttribution, get) == made[0]


async def test_attributions_of_other_workspaces_are_not_found(market):
    async with (
        market.serving() as running,
        market.client(running) as client,
        market.client(running, workspace="rival") as rival,
    ):
        made = await create(client)
        get = attributions_pb2.GetAttributionRequest(attribution_id=made.attribution_id)
        refused = await rival.refused(rival.attributions.GetAttribution, get)
        assert (refused.code.name, refused.reason) == ("NOT_FOUND", "ATTRIBUTION_NOT_FOUND")
        listed = await rival(rival.attributions.ListAttributions, attributions_pb2.ListAttributionsRequest())
        assert not listed.attributions
        replayed = receipts_pb2.ReplayRequest(receipt_id=made.receipt_id)
        assert (await rival.refused(rival.receipts.Replay, replayed)).reason == "RECEIPT_NOT_FOUND"


async def test_use_without_anybodys_consent_is_refused_by_its_policy(market, client):
    market.journeys.consent("")
    market.journeys.gate.clear()
    refused = await client.refused(client.attributions.CreateAttribution, asked())
    assert (refused.code.name, refused.reason) == ("PERMISSION_DENIED", "POLICY_DENIED")
    assert refused.metadata["policy_id"] == "use-needs-consent"


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"last_day": "2024-12-31"}, "BAD_FIELD", "spec.last_day"),
        ({"first_day": "2025-02-30"}, "BAD_FIELD", "spec.first_day"),
        ({"subject": S.CAMPAIGN}, "BAD_FIELD", "spec.costs[0].campaign_field"),
        ({"purpose": "Anything"}, "BAD_FIELD", "purpose"),
        ({"conversion_type": ""}, "BAD_FIELD", "spec.conversion_type"),
    ],
)
async def test_a_bad_question_is_refused_with_its_field(market, client, changes, reason, field):
    refused = await client.refused(client.attributions.CreateAttribution, asked(**changes))
    assert (refused.code.name, refused.reason) == ("INVALID_ARGUMENT", reason)
    assert [one.field for one in refused.violations] == [field]


async def test_a_graph_that_has_read_nothing_is_told(world, client):
    refused = await client.refused(client.attributions.CreateAttribution, asked(costs=[]))
    assert (refused.code.name, refused.reason) == ("FAILED_PRECONDITION", "GRAPH_EMPTY")


async def test_a_replay_matches_after_new_data_a_retrain_a_policy_change_and_a_restart(market, shop):
    async with market.serving() as running, market.client(running) as client:
        made = await create(client)
        assert (await replay(client, made)).outcome == R.MATCH
        await client(client.models.CreateModel, demand())
        await client.trained("demand")
    market.journeys.put([Event("p", 2.5, "fair"), Event("q", 2, value=50)])
    market.journeys.consent("px")
    more = pa.table({"day": pa.array([date(2025, 1, 1)] * 3), "spend": [1.5, 2.5, 99.0]})
    first = market.ingest.datasets["acme", "mail_costs"].slice(0, 2).select(["day", "spend"])
    market.ingest.put("acme", "mail_costs", pa.concat_tables([first, more.slice(2)]))
    market.office.timezone = "Asia/Tokyo"
    market.office.policies.put_in_force("acme", version=2, more=FORBIDS)
    async with market.serving() as running, market.client(running) as client:
        result = await replay(client, made)
        assert (result.outcome, result.field) == (R.MATCH, "")
        assert result.expected_sha256 == result.actual_sha256 == output_sha256(document(made))
        assert "2 records of 1 cited snapshots and the cited state of the graph" in result.detail
        request = market.journeys.requests[-1]
        assert (request.next_offset, request.ledger_revision) == (10, 1)
        assert request.HasField("consent_at")
        refused = await client.refused(client.attributions.CreateAttribution, asked())
        assert refused.metadata["policy_id"] == "no-measuring"


async def test_events_altered_under_a_cited_state_are_named_by_the_first_number_that_differs(market, client):
    made = await create(client)
    market.journeys.events[0] = Event("p", 1, "fair")
    result = await replay(client, made)
    assert (result.outcome, result.field) == (R.MISMATCH, "rows[email].touchpoints")


async def test_a_stored_attribution_that_was_altered_is_found(market, client):
    made = await create(client)
    with closing(sqlite3.connect(market.data_dir / "models.db")) as database, database:
        (output,) = database.execute("SELECT output FROM output").fetchone()
        altered = json.loads(output)
        altered["rows"][0]["touchpoints"] += 1
        database.execute("UPDATE output SET output = ?", (json.dumps(altered),))
    result = await replay(client, made)
    assert (result.outcome, result.field) == (R.MISMATCH, "output")


@pytest.mark.parametrize(
    ("room", "change", "outcome"),
    [
        ("journeys", {"log_epoch": "epoch-2"}, R.EXPIRED),
        ("journeys", {"mappings_sha256": "b" * 64}, R.EXPIRED),
        ("ingest", {"erasure_revision": 1}, R.INPUT_ERASED),
        ("ingest", {"log_epoch": "epoch-2"}, R.EXPIRED),
    ],
)
async def test_inputs_that_are_gone_are_told(market, client, room, change, outcome):
    made = await create(client)
    vars(getattr(market, room)).update(change)
    result = await replay(client, made)
    assert result.outcome == outcome
    assert result.detail
