"""Measure policy checks as ratios within one run: what a service pays for one, in bare calls of cedarpy.

The bare call is `cedarpy.is_authorized` with everything parsed before: policies, schema and the entities of this very
question. A check that is answered from the kept answers is what a hot path pays; one that is not builds the question's
entities first. The policies are the shipped ones and as many more as make a bundle of 50.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace

import cedarpy
from counterfoil.governance.v1 import policies_pb2 as pb
from counterfoil_chassis.call import connect
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.identity import Caller, TokenSigner
from counterfoil_chassis.policy import PolicyChecker, Question, bundle_sha256
from counterfoil_governance.policy_text import shipped_policies, shipped_schema
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import any_pb2

from tests.bench.measuring import Options, Report, Row, Target

POLICIES = 50
CHECKS = 2_000
CALLER = Caller(
    "acme",
    "ada",
    frozenset({"governance.read", "contracts.read", "ingest.read", "graph.read", "models.read", "models.write"}),
    "",
    frozenset({"analyst"}),
)
QUESTION = Question(
    "use",
    "Dataset",
    "transactions",
    context={"scope": "models.write", "purpose": "measurement", "personal": True, "people": 801, "without_consent": 0},
)


@dataclass(frozen=True)
class Round:
    """One round: microseconds per check."""

    bare: float
    kept: float
    asked: float


def policies() -> str:
    """Return a bundle of 50 policies: the shipped ones, and forbids by purpose and role."""
    text = shipped_policies()
    more = POLICIES - text.count("@id(")
    return text + "".join(
        f'@id("no-purpose-{number}") @owner("bench")\n'
        f'forbid (principal in Counterfoil::Role::"role-{number}", action == Counterfoil::Action::"use", resource)\n'
        f'when {{ context.purpose == "purpose-{number}" && context.people > {number} }};\n'
        for number in range(more)
    )


class Bench:
    """A bare engine and a policy checker over the same bundle."""

    def __init__(self) -> None:
        text, schema = policies(), shipped_schema()
        self._schema = cedarpy.Schema.from_str(schema)
        self._policies = cedarpy.PolicySet.from_str(text)
        principal = {"type": "Counterfoil::Principal", "id": CALLER.principal}
        resource = {"type": "Counterfoil::Dataset", "id": QUESTION.resource_id}
        entities = [
            {
                "uid": principal,
                "attrs": {"workspace": CALLER.workspace, "scopes": sorted(CALLER.scopes)},
                "parents": [{"type": "Counterfoil::Role", "id": role} for role in CALLER.roles],
            },
            {"uid": resource, "attrs": {}, "parents": []},
        ]
        self._entities = cedarpy.Entities.from_json_str(json.dumps(entities), self._schema)
        self._request = {
            "principal": principal,
            "action": {"type": "Counterfoil::Action", "id": QUESTION.action},
            "resource": resource,
            "context": json.dumps(dict(QUESTION.context)),
        }
        clock = SystemClock()
        signer = TokenSigner("models", Ed25519PrivateKey.generate(), clock)
        self._channel = connect("127.0.0.1:9")  # nobody is called: the bundle below is what the watch would bring
        self.checker = PolicyChecker(self._channel, signer, clock)
        packed = any_pb2.Any()
        packed.Pack(pb.PolicyBundle(version=1, policies=text, schema=schema, sha256=bundle_sha256(text, schema)))
        self.checker._put(CALLER.workspace, packed)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    def bare(self) -> float:
        """Time bare calls."""
        began = time.process_time()
        for _ in range(CHECKS):
            result = cedarpy.is_authorized(self._request, self._policies, self._entities, self._schema)
        assert result.allowed
        return (time.process_time() - began) / CHECKS * 1e6

    async def kept(self) -> float:
        """Time checks that are answered from the kept answers."""
        await self.checker.require(CALLER, QUESTION)
        began = time.process_time()
        for _ in range(CHECKS):
            await self.checker.require(CALLER, QUESTION)
        return (time.process_time() - began) / CHECKS * 1e6

    async def asked(self, number: int) -> float:
        """Time checks of questions that were never asked before."""
        questions = [replace(QUESTION, resource_id=f"d{number}-{each}") for each in range(CHECKS)]
        began = time.process_time()
        for question in questions:
            await self.checker.require(CALLER, question)
        return (time.process_time() - began) / CHECKS * 1e6


def measure(options: Options) -> Report:
    """Run the rounds."""
    rounds = asyncio.run(_rounds(options.rounds))
    how = f"{len(rounds)} rounds of {CHECKS:,} checks under {POLICIES} policies."
    kept, asked = [one.kept / one.bare for one in rounds], [one.asked / one.bare for one in rounds]
    rows = [
        Row("answer kept, in bare calls of cedarpy", kept, "x", Target("policy check", 2.0)),
        Row("policy check, never asked before, in bare calls of cedarpy", asked, "x"),
        Row("a bare call, CPU", [one.bare for one in rounds], " us"),
        Row("kept, CPU", [one.kept for one in rounds], " us"),
    ]
    return Report("Policies", how, rows)


async def _rounds(count: int) -> list[Round]:
    bench = Bench()
    try:
        return [Round(bench.bare(), await bench.kept(), await bench.asked(number)) for number in range(count)]
    finally:
        await bench.close()
