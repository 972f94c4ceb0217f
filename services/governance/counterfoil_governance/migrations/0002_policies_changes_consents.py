"""Roles, policy bundles, changes with their votes, and the consent ledger; keys that could do everything still can."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from counterfoil.common.v1.credentials_pb2 import Credential

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# What release 0.1 knew. A key that holds all of it was made to do whatever the workspace offers, and whoever holds it
# would otherwise be locked out of what this release adds: only such a key could give the new scopes to others.
OLD_SCOPES = frozenset(
    {
        "governance.read",
        "governance.write",
        "contracts.read",
        "contracts.write",
        "ingest.read",
        "ingest.write",
        "ingest.admin",
        "ingest.append",
        "models.read",
        "models.write",
    }
)
NEW_SCOPES = frozenset({"graph.read", "graph.write", "graph.export", "governance.approve", "governance.consent"})


def upgrade() -> None:
    op.add_column("principals", sa.Column("roles", sa.Text, nullable=False, server_default=""))
    _create_policy_bundles()
    _create_changes()
    _create_votes()
    _create_consents()
    _refuse_changes()
    _widen_keys()


def _create_policy_bundles() -> None:
    op.create_table(
        "policy_bundles",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("policies", sa.Text, nullable=False),
        sa.Column("schema", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("change_id", sa.Text, nullable=False),
        sa.Column("activated_at", sa.BigInteger),
    )
    op.create_index(
        "policy_bundles_in_force",
        "policy_bundles",
        ["workspace"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )


def _create_changes() -> None:
    op.create_table(
        "changes",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("change_id", sa.Text, primary_key=True),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("requester", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("policy_id", sa.Text, nullable=False),
        sa.Column("quorum", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("pending_until", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("settled_at", sa.BigInteger),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("watched_until", sa.BigInteger),
        sa.UniqueConstraint("workspace", "service", "request_id"),
        # The votes' foreign key: a vote cannot name another requester than its change.
        sa.UniqueConstraint("workspace", "change_id", "requester"),
        sa.CheckConstraint("quorum >= 1"),
    )
    op.create_index("changes_watched", "changes", ["watched_until"])


def _create_votes() -> None:
    op.create_table(
        "votes",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("change_id", sa.Text, primary_key=True),
        sa.Column("voter", sa.Text, primary_key=True),
        sa.Column("requester", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("payload_sha256", sa.Text, nullable=False),
        sa.Column("voted_at", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace", "change_id", "requester"], ["changes.workspace", "changes.change_id", "changes.requester"]
        ),
        sa.CheckConstraint("voter <> requester", name="votes_second_person"),
    )


def _create_consents() -> None:
    op.create_table(
        "consent_ledgers",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "consents",
        sa.Column("workspace", sa.Text, primary_key=True),
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("consent_id", sa.Text, nullable=False),
        sa.Column("subject", sa.LargeBinary, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("basis", sa.Text, nullable=False),
        sa.Column("happened_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("recorded_by", sa.Text, nullable=False),
        sa.UniqueConstraint("workspace", "content"),
    )
    op.create_index("consents_by_subject", "consents", ["workspace", "subject", "purpose", "revision"])


def _refuse_changes() -> None:
    asked = "workspace, change_id, service, request_id, kind, resource, payload"
    frozen = f"{asked}, requester, quorum, created_at, pending_until"
    if op.get_bind().dialect.name == "postgresql":
        _refuse_changes_on_postgresql(frozen)
    else:
        _refuse_changes_on_sqlite(frozen)


def _refuse_changes_on_sqlite(frozen: str) -> None:
    for table, same in (
        ("votes", "change_id = NEW.change_id AND voter = NEW.voter"),
        ("consents", "revision = NEW.revision"),
        ("changes", "change_id = NEW.change_id"),
    ):
        of = f" OF {frozen}" if table == "changes" else ""
        for event in (f"UPDATE{of}", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_refuse_{event.split()[0].lower()} BEFORE {event} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
            )
        # INSERT OR REPLACE deletes without firing the trigger above, so a known row is refused before that.
        op.execute(
            f"CREATE TRIGGER {table}_refuse_replace BEFORE INSERT ON {table} "  # noqa: S608 - constants
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE workspace = NEW.workspace AND {same}) "
            f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
        )


def _refuse_changes_on_postgresql(frozen: str) -> None:
    op.execute(
        "CREATE FUNCTION refuse_change_of_the_record() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% are append-only', TG_TABLE_NAME; END $$"
    )
    for table in ("votes", "consents"):
        op.execute(
            f"CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_the_record()"
        )
    op.execute(
        f"CREATE TRIGGER changes_refuse_change BEFORE UPDATE OF {frozen} OR DELETE OR TRUNCATE ON changes "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_the_record()"
    )


def _widen_keys() -> None:
    """Give the new scopes to keys that hold every old one, and tell the gateways that watch."""
    bind = op.get_bind()
    keys = sa.table("keys", *map(sa.column, ("workspace", "key_id", "scopes", "secret_sha256", "revoked_at")))
    for row in bind.execute(sa.select(keys).where(keys.c.revoked_at.is_(None))).all():
        held = frozenset(row.scopes.split())
        if not held >= OLD_SCOPES:
            continue
        scopes = sorted(held | NEW_SCOPES)
        place = sa.and_(keys.c.workspace == row.workspace, keys.c.key_id == row.key_id)
        bind.execute(sa.update(keys).where(place).values(scopes=" ".join(scopes)))
        _tell(bind, row.secret_sha256.hex(), scopes)


def _tell(bind: Any, key: str, scopes: list[str]) -> None:
    change = sa.table("change", *map(sa.column, ("topic", "key", "revision", "deleted", "resource")))
    head = sa.table("revision", *map(sa.column, ("topic", "head")))
    place = sa.and_(change.c.topic == "credentials", change.c.key == key, change.c.deleted.is_(False))
    body = bind.execute(sa.select(change.c.resource).where(place)).scalar()
    if body is None:
        return
    credential = Credential.FromString(body)
    credential.scopes[:] = scopes
    topic = head.c.topic == "credentials"
    bind.execute(sa.update(head).where(topic).values(head=head.c.head + 1))
    revision = bind.execute(sa.select(head.c.head).where(topic)).scalar()
    bind.execute(sa.update(change).where(place).values(revision=revision, resource=credential.SerializeToString()))
