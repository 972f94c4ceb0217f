"""Models, versions, append-only events with their views, forecasts, receipts."""

from alembic import op
from counterfoil_chassis.tables import create_v1
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text, UniqueConstraint

revision = "0001"
down_revision = None


def _text(name: str, server_default: str | None = None) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=server_default)


def upgrade() -> None:
    create_v1(op)
    op.create_table(
        "model",
        Column("workspace", Text, primary_key=True),
        Column("model_id", Text, primary_key=True),
        _text("display_name"),
        _text("purpose"),
        _text("impact_tier"),
        _text("spec"),
        _text("created_by"),
        Column("created_at", BigInteger, nullable=False),
    )
    op.create_table(
        "model_version",
        Column("workspace", Text, primary_key=True),
        Column("model_id", Text, primary_key=True),
        Column("version", Integer, primary_key=True),
        _text("inputs"),
        _text("created_by"),
        Column("created_at", BigInteger, nullable=False),
        _text("trace_id"),
        _text("artifact_sha256", server_default=""),
        Column("artifact_bytes", BigInteger, nullable=False, server_default="0"),
        _text("backtests", server_default="[]"),
        _text("skipped", server_default="[]"),
        _text("error_reason", server_default=""),
        _text("error_detail", server_default=""),
        Column("finished_at", BigInteger),
    )
    op.create_table(
        "model_event",
        Column("workspace", Text, primary_key=True),
        Column("model_id", Text, primary_key=True),
        Column("sequence", BigInteger, primary_key=True),
        Column("version", Integer, nullable=False),
        Column("from_state", Text),
        _text("to_state"),
        _text("actor"),
        _text("reason"),
        Column("created_at", BigInteger, nullable=False),
    )
    op.create_table(
        "forecast",
        Column("workspace", Text, primary_key=True),
        Column("forecast_id", Text, primary_key=True),
        _text("model_id"),
        _text("receipt_id"),
        _text("question_sha256"),
        _text("output"),
        _text("inputs"),
        _text("gaps"),
        Column("created_at", BigInteger, nullable=False),
        UniqueConstraint("workspace", "question_sha256"),
    )
    op.create_table(
        "receipt",
        Column("workspace", Text, primary_key=True),
        Column("receipt_id", Text, primary_key=True),
        _text("forecast_id"),
        Column("payload", LargeBinary, nullable=False),
    )
    _create_views()
    _forbid_changes_of_events()


def _create_views() -> None:
    op.execute("""
        CREATE VIEW model_version_state AS
        SELECT e.workspace, e.model_id, e.version, e.to_state AS state
        FROM model_event e
        JOIN (
            SELECT workspace, model_id, version, max(sequence) AS sequence
            FROM model_event GROUP BY workspace, model_id, version
        ) newest USING (workspace, model_id, version, sequence)
    """)
    op.execute("""
        CREATE VIEW model_champion AS
        SELECT workspace, model_id, version FROM model_version_state WHERE state = 'champion'
    """)


def _forbid_changes_of_events() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(f"""
                CREATE TRIGGER model_event_no_{verb.lower()} BEFORE {verb} ON model_event
                BEGIN SELECT RAISE(ABORT, 'model_event is append-only'); END
            """)
        return
    op.execute("""
        CREATE FUNCTION model_event_refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'model_event is append-only'; END $$
    """)
    op.execute("""
        CREATE TRIGGER model_event_append_only BEFORE UPDATE OR DELETE ON model_event
        FOR EACH ROW EXECUTE FUNCTION model_event_refuse()
    """)
