"""What the graph asks of governance: consents, the receipts ledger, and which workspaces there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc
from counterfoil.governance.v1 import (
    consents_pb2,
    consents_pb2_grpc,
    policies_pb2,
    policies_pb2_grpc,
    receipts_pb2,
    receipts_pb2_grpc,
)
from counterfoil_chassis.call import following, outgoing
from counterfoil_chassis.clock import from_micros, from_timestamp, to_micros, to_timestamp
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.watch import Watcher
from google.protobuf import any_pb2

from counterfoil_graph.entities import Name
from counterfoil_graph.store import ConsentAnswer

PEOPLE_AT_ONCE = 5_000
_SUBJECTS = 200
_SECONDS = 30.0


class Governance:
    """Calls in the graph's own name; see `store.Consents`."""

    def __init__(self, channel: grpc.aio.Channel, signer: TokenSigner) -> None:
        self._consents = consents_pb2_grpc.ConsentServiceStub(channel)
        self._receipts = receipts_pb2_grpc.ReceiptServiceStub(channel)
        self._policies = policies_pb2_grpc.PolicyServiceStub(channel)
        self._signer = signer

    async def check(
        self, workspace: str, purpose: str, people: Sequence[Sequence[Name]], *, ledger_revision: int, at_us: int | None
    ) -> ConsentAnswer:
        """Check people, named by their identifiers, against one state of the ledger; 0 and None = as it is now.

        The first answer fixes revision and moment for the rest. With nobody to check, the ledger is not asked.
        """
        verdicts: list[consents_pb2.ConsentVerdict] = []
        moment = None if at_us is None else to_timestamp(from_micros(at_us))
        for start in range(0, len(people), PEOPLE_AT_ONCE):
            request = consents_pb2.CheckConsentsRequest(
                purpose=purpose,
                people=[_person(each) for each in people[start : start + PEOPLE_AT_ONCE]],
                ledger_revision=ledger_revision,
                at=moment,
                workspace=workspace,
            )
            answer = await self._consents.CheckConsents(request, **outgoing(default=_SECONDS, signer=self._signer))
            ledger_revision, moment = answer.ledger_revision, answer.at
            verdicts += answer.verdicts
        allowed = [each for each in verdicts if each.allowed]
        return ConsentAnswer(
            consent_ids=tuple(each.consent_id if each.allowed else None for each in verdicts),
            bases=frozenset(consents_pb2.Consent.Basis.Name(each.basis) for each in allowed),
            ledger_revision=ledger_revision,
            at_us=to_micros(from_timestamp(moment)) if moment is not None else 0,
        )

    async def put_receipts(self, receipts: Sequence[bytes]) -> None:
        """Put receipts into the ledger; the same ones again change nothing there."""
        request = receipts_pb2.PutReceiptsRequest(receipts=receipts)
        await self._receipts.PutReceipts(request, **outgoing(default=_SECONDS, signer=self._signer))

    def workspaces(self, on_workspace: Callable[[str], object]) -> Watcher:
        """Return a watcher that tells of every workspace: each has policies from its first moment."""

        def put(key: str, resource: any_pb2.Any) -> None:
            bundle = policies_pb2.PolicyBundle()
            resource.Unpack(bundle)
            on_workspace(bundle.workspace or key)

        return Watcher(
            lambda after: self._policies.WatchPolicyBundles(
                policies_pb2.WatchPolicyBundlesRequest(after_revision=after), **following(signer=self._signer)
            ),
            put,
            lambda key: None,
        )


def _person(names: Sequence[Name]) -> consents_pb2.ConsentPerson:
    subjects = [consents_pb2.Subject(type=each.type, value=each.value) for each in names[:_SUBJECTS]]
    return consents_pb2.ConsentPerson(subjects=subjects)
