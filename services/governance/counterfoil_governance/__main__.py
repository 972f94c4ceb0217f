"""Compose governance by hand and serve it."""

from __future__ import annotations

import logging
import secrets
from contextlib import AsyncExitStack
from functools import partial

from counterfoil.governance.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from counterfoil.governance.v1.changes_pb2_grpc import add_ChangeServiceServicer_to_server
from counterfoil.governance.v1.consents_pb2_grpc import add_ConsentServiceServicer_to_server
from counterfoil.governance.v1.credentials_pb2_grpc import add_CredentialServiceServicer_to_server
from counterfoil.governance.v1.incidents_pb2_grpc import add_IncidentServiceServicer_to_server
from counterfoil.governance.v1.keys_pb2_grpc import add_KeyServiceServicer_to_server
from counterfoil.governance.v1.legal_holds_pb2_grpc import add_LegalHoldServiceServicer_to_server
from counterfoil.governance.v1.policies_pb2_grpc import add_PolicyServiceServicer_to_server
from counterfoil.governance.v1.principals_pb2_grpc import add_PrincipalServiceServicer_to_server
from counterfoil.governance.v1.privacy_requests_pb2_grpc import add_PrivacyRequestServiceServicer_to_server
from counterfoil.governance.v1.receipts_pb2_grpc import add_ReceiptServiceServicer_to_server
from counterfoil.governance.v1.retention_policies_pb2_grpc import add_RetentionPolicyServiceServicer_to_server
from counterfoil.governance.v1.workspaces_pb2_grpc import add_WorkspaceServiceServicer_to_server
from counterfoil_chassis.database import Database
from counterfoil_chassis.idempotency import Idempotency
from counterfoil_chassis.paging import Pager
from counterfoil_chassis.serve import Host, Service, run
from counterfoil_chassis.watch import Feed

from counterfoil_governance import legal_holds, privacy
from counterfoil_governance.audit_checkpoints import CheckpointSigner, keep_signed
from counterfoil_governance.bootstrap import DEFAULT_WORKSPACE, BootstrapOutcome, bootstrap
from counterfoil_governance.changes import Seal
from counterfoil_governance.consents import Pseudonyms
from counterfoil_governance.policy_shipping import keep_in_step
from counterfoil_governance.recording import ITSELF, Recorder
from counterfoil_governance.servicers.audit import AuditServicer
from counterfoil_governance.servicers.changes import ChangeServicer
from counterfoil_governance.servicers.consents import ConsentServicer
from counterfoil_governance.servicers.credentials import CredentialServicer
from counterfoil_governance.servicers.incidents import IncidentServicer
from counterfoil_governance.servicers.keys import KeyServicer
from counterfoil_governance.servicers.legal_holds import LegalHoldServicer
from counterfoil_governance.servicers.policies import PolicyServicer
from counterfoil_governance.servicers.principals import PrincipalServicer
from counterfoil_governance.servicers.privacy_requests import PrivacyRequestServicer
from counterfoil_governance.servicers.receipts import ReceiptServicer
from counterfoil_governance.servicers.retention_policies import RetentionPolicyServicer
from counterfoil_governance.servicers.workspaces import WorkspaceServicer
from counterfoil_governance.settings import Settings
from counterfoil_governance.sql.changes import TOPIC as CHANGES
from counterfoil_governance.sql.credentials import TOPIC as CREDENTIALS
from counterfoil_governance.sql.credentials import to_credential
from counterfoil_governance.sql.incidents import TOPIC as INCIDENTS
from counterfoil_governance.sql.legal_holds import TOPIC as LEGAL_HOLDS
from counterfoil_governance.sql.policy_bundles import TOPIC as POLICY_BUNDLES
from counterfoil_governance.sql.privacy_requests import TOPIC as ERASURES
from counterfoil_governance.sql.retention_policies import TOPIC as RETENTION_POLICIES
from counterfoil_governance.sql.transactions import Feeds, SqlTransactions
from counterfoil_governance.sql.workspaces import TOPIC as WORKSPACES
from counterfoil_governance.sql.workspaces import workspace_message
from counterfoil_governance.store import Transactions

_log = logging.getLogger("counterfoil_governance")  # __name__ is __main__ here


async def build(settings: Settings, host: Host, stack: AsyncExitStack) -> Service:
    """Open the database, bootstrap an empty installation, and return what is served."""
    database = Database(settings.database_url, lease=host.lease)
    stack.push_async_callback(database.close)
    feeds = Feeds(
        credentials=Feed(database, CREDENTIALS),
        policy_bundles=Feed(database, POLICY_BUNDLES),
        changes=Feed(database, CHANGES),
        erasures=Feed(database, ERASURES),
        legal_holds=Feed(database, LEGAL_HOLDS),
        retention_policies=Feed(database, RETENTION_POLICIES),
        workspaces=Feed(database, WORKSPACES),
        incidents=Feed(database, INCIDENTS),
    )
    transactions = SqlTransactions(database, feeds)
    await _bootstrap(settings, host, transactions)
    clock, pager, idempotency = host.clock, Pager(host.secret), Idempotency(host.secret, host.clock)
    workspaces = WorkspaceServicer(
        transactions,
        feed=feeds.workspaces,
        to_message=workspace_message,
        idempotency=idempotency,
        pager=pager,
        clock=clock,
        ids=host.ids,
        random_bytes=secrets.token_bytes,
    )
    keys = KeyServicer(
        transactions,
        idempotency=idempotency,
        pager=pager,
        clock=clock,
        ids=host.ids,
        random_bytes=secrets.token_bytes,
    )
    principals = PrincipalServicer(transactions, idempotency=idempotency, pager=pager, clock=clock, ids=host.ids)
    credentials = CredentialServicer(transactions, feed=feeds.credentials, clock=clock, to_credential=to_credential)
    receipts = ReceiptServicer(transactions, pager=pager, clock=clock)
    signer = CheckpointSigner(host.secret)
    audit = AuditServicer(transactions, signer=signer, pager=pager, clock=clock)
    seal = Seal(host.secret)
    policies = PolicyServicer(
        transactions,
        feed=feeds.policy_bundles,
        seal=seal,
        idempotency=idempotency,
        pager=pager,
        clock=clock,
        ids=host.ids,
    )
    changes = ChangeServicer(transactions, feed=feeds.changes, seal=seal, pager=pager, clock=clock, ids=host.ids)
    consents = ConsentServicer(
        transactions,
        pseudonyms=Pseudonyms(host.secret),
        idempotency=idempotency,
        pager=pager,
        clock=clock,
        ids=host.ids,
    )
    erasure_pseudonyms = Pseudonyms(host.secret, "erasure subjects")
    privacy_requests = PrivacyRequestServicer(
        transactions,
        feed=feeds.erasures,
        pseudonyms=erasure_pseudonyms,
        consent_pseudonyms=Pseudonyms(host.secret),
        idempotency=idempotency,
        pager=pager,
        clock=clock,
        ids=host.ids,
    )
    holds = LegalHoldServicer(
        transactions,
        feed=feeds.legal_holds,
        pseudonyms=erasure_pseudonyms,
        idempotency=idempotency,
        pager=pager,
        clock=clock,
        ids=host.ids,
    )
    retention_policies = RetentionPolicyServicer(
        transactions, feed=feeds.retention_policies, idempotency=idempotency, pager=pager, clock=clock, ids=host.ids
    )
    incidents = IncidentServicer(transactions, feed=feeds.incidents, pager=pager, clock=clock, ids=host.ids)
    return Service(
        servicers=[
            (add_WorkspaceServiceServicer_to_server, workspaces),
            (add_PrincipalServiceServicer_to_server, principals),
            (add_KeyServiceServicer_to_server, keys),
            (add_CredentialServiceServicer_to_server, credentials),
            (add_ReceiptServiceServicer_to_server, receipts),
            (add_AuditServiceServicer_to_server, audit),
            (add_PolicyServiceServicer_to_server, policies),
            (add_ChangeServiceServicer_to_server, changes),
            (add_ConsentServiceServicer_to_server, consents),
            (add_PrivacyRequestServiceServicer_to_server, privacy_requests),
            (add_LegalHoldServiceServicer_to_server, holds),
            (add_RetentionPolicyServiceServicer_to_server, retention_policies),
            (add_IncidentServiceServicer_to_server, incidents),
        ],
        unchanging=["/counterfoil.governance.v1.ReceiptService/GetReceipt"],
        background=[partial(keep_signed, transactions, transactions.checkpoint_due, signer=signer, clock=clock)],
    )


async def _bootstrap(settings: Settings, host: Host, transactions: Transactions) -> None:
    configured = settings.bootstrap_key_sha256
    recorder = Recorder(DEFAULT_WORKSPACE, ITSELF, host.ids, host.clock)
    async with transactions.begin() as stores:
        left = await keep_in_step(stores, recorder=recorder)
        restored = await privacy.keep_in_step(stores)
        held = await legal_holds.keep_in_step(stores)
        outcome = await bootstrap(
            stores,
            secret_sha256=bytes.fromhex(configured) if configured else None,
            recorder=recorder,
        )
    level = logging.WARNING if outcome is BootstrapOutcome.NO_KEY else logging.INFO
    _log.log(level, "bootstrap: %s", outcome.value)
    if restored:
        _log.warning("erasures were restored and are carried out again", extra={"erasures": restored})
    if held:
        _log.warning("legal holds were restored and keep what they name", extra={"legal_holds": held})
    for bundle in left:
        fields = {"workspace": bundle.workspace, "bundle_version": bundle.version}
        _log.warning("a policy bundle does not fit this release's schema and stays with its own", extra=fields)


def main() -> None:
    """Serve governance, or run `migrate`."""
    run("governance", Settings, build, migrations="counterfoil_governance")


if __name__ == "__main__":
    main()
