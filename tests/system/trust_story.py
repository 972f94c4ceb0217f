"""The second half of the story: who people are, what may be done with that, who agreed, and what proves it."""

from typing import Any

import orjson
from counterfoil.governance.v1 import (
    audit_pb2,
    changes_pb2,
    consents_pb2,
    policies_pb2,
    principals_pb2,
    privacy_requests_pb2,
)
from counterfoil.graph.v1 import graphs_pb2, journeys_pb2, mappings_pb2, nodes_pb2, persons_pb2
from counterfoil.models.v1 import attributions_pb2, lifts_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tests.system.checks_story import CHECKS_STORY
from tests.system.imports_story import IMPORTS_STORY
from tests.system.installation import until
from tests.system.lifecycle_story import LIFECYCLE_STORY
from tests.system.lineage_story import LINEAGE_STORY
from tests.system.monitors_story import MONITORS_STORY
from tests.system.quarantine_story import QUARANTINE_STORY
from tests.system.retention_story import RETENTION_STORY
from tests.system.story import STORY, Step, World
from tests.system.tenant import ok

VISITS = """
apiVersion: v3.1.0
kind: DataContract
id: shop-visits
name: Visits
version: 1.0.0
status: active
schema:
  - name: visits
    logicalType: object
    properties:
      - {name: message_id, logicalType: string, required: true}
      - {name: at, logicalType: timestamp, required: true, logicalTypeOptions: {defaultTimezone: UTC}}
      - {name: customer, logicalType: string}
      - {name: device, logicalType: string}
      - {name: email, logicalType: string, classification: restricted}
      - {name: campaign, logicalType: string}
      - {name: bought, logicalType: number}
      - {name: discount, logicalType: number}
"""

MAPPING = """
mapping: shop-visits
datasets:
  visits:
    time: at
    identifiers:
      - {type: user_id, field: customer}
      - {type: anonymous_id, field: device}
      - {type: email, field: email}
    nodes:
      - {when: {field: campaign, exists: true}, type: campaign, key: campaign}
    edges:
      - {when: {field: campaign, exists: true}, type: met, from: person, to: {type: campaign, key: campaign}}
    touchpoints:
      - {when: {field: campaign, exists: true}, type: visit, channel: {const: web}, campaign: campaign}
    conversions:
      - {when: {field: bought, exists: true}, type: purchase, key: message_id, value: bought, currency: EUR}
"""

PEOPLE = 24


def visits() -> list[dict[str, Any]]:
    """Return what two dozen people did: a baseline in January, a campaign for half of them, purchases in February."""
    made: list[dict[str, Any]] = []
    for number in range(PEOPLE):
        who = {"customer": f"c{number:02}", "device": f"d{number:02}", "email": f"c{number:02}@example.com"}
        treated = number % 2 == 0
        made.append(_visit(number, "before", "2025-01-10T10:00:00Z", who, bought=10.0 + number % 5))
        if treated:
            made.append(_visit(number, "ad", "2025-02-02T10:00:00Z", {"device": who["device"]}, campaign="spring"))
        made.append(
            _visit(number, "after", "2025-02-05T10:00:00Z", who, bought=20.0 + number % 5 + 8 * treated, discount=0.5)
        )
    made.append(_visit(PEOPLE, "loose", "2025-02-06T10:00:00Z", {"device": "d-loose"}, campaign="autumn"))
    return made


def _visit(number: int, what: str, at: str, who: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"message_id": f"{what}-{number}", "at": at, **who, **more}


def _bring_visits(world: World) -> None:
    world.tenant.activate(VISITS)


def _append_visits(world: World) -> None:
    verdicts = world.tenant.append("visits", visits())
    assert {verdict["outcome"] for verdict in verdicts} == {"ACCEPTED"}, verdicts
    last = max(verdict["position"]["offset"] for verdict in verdicts)
    _wait_for_graph(world, offset=last + 1)


def _wait_for_graph(world: World, *, offset: int = 0) -> None:
    def read() -> bool | None:
        answer = world.tenant.http.get("/v1/graph")
        if answer.status_code == 503:
            return None
        found = ok(answer)
        return True if not found["rebuilding"] and found["state"]["next_offset"] >= offset else None

    until(read, seconds=60, what="the graph has not read the records")


def _privacy_request(world: World) -> str:
    return str(world.answers["PrivacyRequestService/CreatePrivacyRequest"]["privacy_request_id"])


def _wait_for_erasure(world: World) -> None:
    def completed() -> bool | None:
        found = ok(world.tenant.http.get(f"/v1/privacy-requests/{_privacy_request(world)}"))
        return True if found["state"] == "COMPLETED" else None

    until(completed, seconds=60, what="nobody was looked for")


def _person(world: World, value: str, kind: str = "user_id") -> str:
    return ok(world.tenant.http.post("/v1/persons:lookup", json={"type": kind, "value": value}))["person_id"]


def _add_second_person(world: World) -> None:
    ok(
        world.tenant.http.post(
            "/v1/principals", json={"principal_id": "second", "kind": "HUMAN", "roles": ["reviewer"]}
        )
    )
    world.keys["second"] = ok(world.tenant.http.post("/v1/keys", json={"principal_id": "second", "scopes": []}))[
        "api_key"
    ]


def policies(world: World, *, extra: str = "") -> str:
    """Return the text of the policies in force, with one more."""
    bundle = ok(world.tenant.http.get("/v1/policy-bundles/0"))
    return bundle["policies"] + extra


NO_ROLLBACKS = """
@id("contractors-call-nothing")
@owner("governance")
@description("Whoever is a contractor calls nothing.")
forbid(principal in Counterfoil::Role::"contractor", action == Counterfoil::Action::"call", resource);
"""


def _submit_another(world: World) -> None:
    text = policies(world, extra=NO_ROLLBACKS.replace("contractors-call-nothing", "contractors-still-call-nothing"))
    found = ok(world.tenant.http.post("/v1/policy-bundles", json={"policies": text, "reason": "a second thought"}))
    world.answers["another bundle"] = found


def _change(world: World) -> str:
    return str(world.answers["PolicyService/CreatePolicyBundle"]["change_id"])


def _payload(world: World) -> str:
    return str(world.answers["ChangeService/GetChange"]["payload_sha256"])


def _consents(world: World) -> Message:
    """Everybody consents to measurement, the first four to advertising, too."""
    request = consents_pb2.RecordConsentsRequest(request_id="consents")
    for number in range(PEOPLE):
        for purpose in ("measurement", *(("advertising",) if number < 4 else ())):
            request.consents.append(
                consents_pb2.NewConsent(
                    subject=consents_pb2.Subject(type="user_id", value=f"c{number:02}"),
                    purpose=purpose,
                    state=consents_pb2.Consent.GRANTED,
                    basis=consents_pb2.Consent.CONSENT,
                    happened_at=_at("2025-01-01T00:00:00Z"),
                    evidence="the form at the counter",
                )
            )
    return request


def _at(text: str) -> Timestamp:
    found = Timestamp()
    found.FromJsonString(text)
    return found


def _approve_export(world: World) -> None:
    """Ask for an export of two, and have the second person approve it."""
    body = {**_export(world), "request_approval": True, "reason": "the spring mailing"}
    asked = ok(world.tenant.http.post("/v1/persons:export", json=body))
    change = ok(world.tenant.http.get(f"/v1/changes/{asked['change_id']}"))
    with world.tenant.installation.http(world.keys["second"]) as second:
        approval = {"payload_sha256": change["payload_sha256"], "reason": "seen"}
        ok(second.post(f"/v1/changes/{asked['change_id']}:approve", json=approval))
    world.answers["export"] = {"change_id": asked["change_id"]}


def _export(world: World) -> dict[str, Any]:
    return {
        "purpose": "advertising",
        "destination": "a mailing house",
        "person_ids": [_person(world, "c01"), _person(world, "c03")],
        "identifier_types": ["email"],
    }


def _export_persons(world: World) -> Message:
    return persons_pb2.ExportPersonsRequest(
        **_export(world), change_id=world.answers["export"]["change_id"], request_id="export"
    )


def _lift_spec() -> Message:
    return lifts_pb2.LiftSpec(
        name="Spring",
        outcome=lifts_pb2.LiftOutcome(
            dataset="visits",
            unit_field="device",
            time_field="at",
            value_field="bought",
            currency="EUR",
            count_field="message_id",
            cost_fields=["discount"],
        ),
        assignment=lifts_pb2.LiftAssignment(
            dataset="visits", unit_field="device", filter_field="campaign", filter_values=["spring"]
        ),
        first_day="2025-02-01",
        last_day="2025-02-28",
        pre_first_day="2025-01-01",
        pre_last_day="2025-01-31",
    )


def _attribution_spec() -> Message:
    return attributions_pb2.AttributionSpec(
        conversion_type="purchase",
        first_day="2025-02-01",
        last_day="2025-02-28",
        subject=attributions_pb2.AttributionSpec.CAMPAIGN,
        window=attributions_pb2.AttributionSpec.LOOKBACK,
        lookback_days=7,
        costs=[
            attributions_pb2.CostSource(
                dataset="visits",
                time_field="at",
                amount_field="discount",
                currency="EUR",
                campaign_field="campaign",
            )
        ],
    )


TRUST_STORY: dict[str, Step] = {
    "PrincipalService/ListRoles": Step(lambda w: principals_pb2.ListRolesRequest()),
    "PrincipalService/SetPrincipalRoles": Step(
        lambda w: principals_pb2.SetPrincipalRolesRequest(principal_id="robot", roles=["viewer"])
    ),
    "PolicyService/ListPolicies": Step(lambda w: policies_pb2.ListPoliciesRequest()),
    "PolicyService/CheckPolicy": Step(
        lambda w: policies_pb2.CheckPolicyRequest(
            action="promote",
            resource_type="Model",
            resource_id="churn",
            attributes=orjson.dumps(
                {"kind": "forecast", "impact_tier": 3, "purpose": "planning", "created_by": "admin"}
            ),
            context=orjson.dumps({"scope": "models.write", "approved": False}),
        )
    ),
    "PolicyService/CreatePolicyBundle": Step(
        lambda w: policies_pb2.CreatePolicyBundleRequest(
            policies=policies(w, extra=NO_ROLLBACKS), reason="contractors are coming", request_id="bundle"
        ),
        before=_add_second_person,
    ),
    "PolicyService/GetPolicyBundle": Step(lambda w: policies_pb2.GetPolicyBundleRequest(version=2)),
    "PolicyService/DiffPolicyBundles": Step(lambda w: policies_pb2.DiffPolicyBundlesRequest(version=2, base_version=1)),
    "ChangeService/GetChange": Step(lambda w: changes_pb2.GetChangeRequest(change_id=_change(w))),
    "ChangeService/ApproveChange": Step(
        lambda w: changes_pb2.ApproveChangeRequest(change_id=_change(w), payload_sha256=_payload(w), reason="agreed"),
        principal="second",
    ),
    "PolicyService/ListPolicyBundles": Step(lambda w: policies_pb2.ListPolicyBundlesRequest()),
    "ChangeService/RejectChange": Step(
        lambda w: changes_pb2.RejectChangeRequest(
            change_id=w.answers["another bundle"]["change_id"], reason="once is enough"
        ),
        before=_submit_another,
        principal="second",
    ),
    "ChangeService/ListChanges": Step(lambda w: changes_pb2.ListChangesRequest()),
    "MappingService/CheckMapping": Step(
        lambda w: mappings_pb2.CheckMappingRequest(document=MAPPING), before=_bring_visits
    ),
    "MappingService/CreateMapping": Step(
        lambda w: mappings_pb2.CreateMappingRequest(document=MAPPING, request_id="mapping")
    ),
    "MappingService/GetMapping": Step(lambda w: mappings_pb2.GetMappingRequest(mapping_id="shop-visits")),
    "MappingService/ListMappings": Step(lambda w: mappings_pb2.ListMappingsRequest()),
    "ConsentService/RecordConsents": Step(_consents),
    "ConsentService/ListConsents": Step(
        lambda w: consents_pb2.ListConsentsRequest(subject_type="user_id", subject_value="c01")
    ),
    "ConsentService/CheckConsents": Step(
        lambda w: consents_pb2.CheckConsentsRequest(
            purpose="advertising",
            people=[
                consents_pb2.ConsentPerson(subjects=[consents_pb2.Subject(type="user_id", value=value)])
                for value in ("c01", "c09")
            ],
        )
    ),
    "PersonService/LookupPerson": Step(
        lambda w: persons_pb2.LookupPersonRequest(type="email", value=" C01@Example.com"), before=_append_visits
    ),
    "PersonService/GetPerson": Step(lambda w: persons_pb2.GetPersonRequest(person_id=_person(w, "c01"))),
    "PersonService/ListPersons": Step(lambda w: persons_pb2.ListPersonsRequest(page_size=5)),
    "PersonService/MergePersons": Step(
        lambda w: persons_pb2.MergePersonsRequest(
            person_ids=[_person(w, "c02"), _person(w, "d-loose", "anonymous_id")],
            reason="she said so",
            request_id="merge",
        )
    ),
    "PersonService/ExplainPerson": Step(lambda w: persons_pb2.ExplainPersonRequest(person_id=_person(w, "c02"))),
    "PersonService/SplitPerson": Step(
        lambda w: persons_pb2.SplitPersonRequest(
            person_id=_person(w, "c02"),
            decision_id=w.answers["PersonService/MergePersons"]["decision_id"],
            reason="it was her sister",
            request_id="split",
        )
    ),
    "PersonService/ExportPersons": Step(_export_persons, before=_approve_export),
    "NodeService/GetNode": Step(lambda w: nodes_pb2.GetNodeRequest(node_id="campaign.spring")),
    "NodeService/ListNodes": Step(lambda w: nodes_pb2.ListNodesRequest(type="campaign")),
    "NodeService/ListNeighbors": Step(
        lambda w: nodes_pb2.ListNeighborsRequest(node_id="campaign.spring", edge_type="met", page_size=5)
    ),
    "JourneyService/ListJourneyEvents": Step(
        lambda w: journeys_pb2.ListJourneyEventsRequest(person_id=_person(w, "c02"))
    ),
    "AttributionService/CreateAttribution": Step(
        lambda w: attributions_pb2.CreateAttributionRequest(spec=_attribution_spec())
    ),
    "AttributionService/GetAttribution": Step(
        lambda w: attributions_pb2.GetAttributionRequest(
            attribution_id=w.answers["AttributionService/CreateAttribution"]["attribution_id"]
        )
    ),
    "AttributionService/ListAttributions": Step(lambda w: attributions_pb2.ListAttributionsRequest()),
    "LiftService/CreateLift": Step(lambda w: lifts_pb2.CreateLiftRequest(spec=_lift_spec())),
    "LiftService/GetLift": Step(
        lambda w: lifts_pb2.GetLiftRequest(lift_id=w.answers["LiftService/CreateLift"]["lift_id"])
    ),
    "LiftService/ListLifts": Step(lambda w: lifts_pb2.ListLiftsRequest()),
    "GraphService/RebuildGraph": Step(lambda w: graphs_pb2.RebuildGraphRequest(reason="to see the same again")),
    "GraphService/GetGraph": Step(lambda w: graphs_pb2.GetGraphRequest(), before=_wait_for_graph),
    "AuditService/ListAuditEntries": Step(
        lambda w: audit_pb2.ListAuditEntriesRequest(resource="principals/robot", page_size=10)
    ),
    "AuditService/GetCheckpoint": Step(lambda w: audit_pb2.GetCheckpointRequest()),
    "AuditService/GetInclusionProof": Step(lambda w: audit_pb2.GetInclusionProofRequest(index=0, tree_size=3)),
    "AuditService/GetConsistencyProof": Step(lambda w: audit_pb2.GetConsistencyProofRequest(from_size=1, to_size=3)),
    "AuditService/VerifyAudit": Step(lambda w: audit_pb2.VerifyAuditRequest()),
    "PrivacyRequestService/CreatePrivacyRequest": Step(
        lambda w: privacy_requests_pb2.CreatePrivacyRequestRequest(
            kind=privacy_requests_pb2.PrivacyRequest.ERASURE,
            identifiers=[consents_pb2.Subject(type="email", value="nobody@example.com")],
            reference="T-1",
            request_id="erasure",
        )
    ),
    "PrivacyRequestService/GetPrivacyRequest": Step(
        lambda w: privacy_requests_pb2.GetPrivacyRequestRequest(privacy_request_id=_privacy_request(w)),
        before=_wait_for_erasure,
    ),
    "PrivacyRequestService/ListPrivacyRequests": Step(lambda w: privacy_requests_pb2.ListPrivacyRequestsRequest()),
}


WHOLE_STORY: dict[str, Step] = {
    **STORY,
    **TRUST_STORY,
    **CHECKS_STORY,
    **LIFECYCLE_STORY,
    **MONITORS_STORY,
    **LINEAGE_STORY,
    **IMPORTS_STORY,
    **RETENTION_STORY,
    **QUARANTINE_STORY,
}
"""`Service/Method` to its question, in order."""
