"""The tables of the models database; times are microseconds UTC, documents are JSON text."""

from counterfoil_chassis.stores import Store
from counterfoil_chassis.tables import add_to
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

METADATA = MetaData()
CHASSIS = add_to(METADATA)

MODEL = Table(
    "model",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("impact_tier", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

MODEL_VERSION = Table(
    "model_version",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("inputs", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("trace_id", Text, nullable=False),
    Column("artifact_sha256", Text, nullable=False, server_default=""),
    Column("artifact_bytes", BigInteger, nullable=False, server_default="0"),
    Column("backtests", Text, nullable=False, server_default="[]"),
    Column("skipped", Text, nullable=False, server_default="[]"),
    Column("input_rows", Text, nullable=False, server_default="[]"),
    Column("error_reason", Text, nullable=False, server_default=""),
    Column("error_detail", Text, nullable=False, server_default=""),
    Column("finished_at", BigInteger),
    Column("change_id", Text, nullable=False, server_default=""),
)

MODEL_EVENT = Table(
    "model_event",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

FORECAST = Table(
    "forecast",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("forecast_id", Text, primary_key=True),
    Column("model_id", Text, nullable=False),
    Column("receipt_id", Text, nullable=False),
    Column("question_sha256", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("gaps", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("workspace", "question_sha256"),
)

RECEIPT = Table(
    "receipt",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("receipt_id", Text, primary_key=True),
    Column("forecast_id", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

OUTPUT = Table(
    "output",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("output_id", Text, primary_key=True),
    Column("receipt_id", Text, nullable=False),
    Column("question_sha256", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("meta", Text, nullable=False),
    Column("receipt", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("workspace", "kind", "question_sha256"),
    UniqueConstraint("workspace", "receipt_id"),
)

RECORDS_SEEN = Table(
    "records_seen",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("dataset", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("records", BigInteger, nullable=False),
)

HOLD = Table(
    "hold",
    METADATA,
    Column("workspace", Text, primary_key=True),
    Column("monitor_id", Text, primary_key=True),
    Column("dataset", Text, nullable=False),
    Column("incident_id", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("recovered_at", BigInteger),
    Column("held", Boolean, nullable=False),
    Column("metric", Text, nullable=False, server_default=""),
    Column("days", Text, nullable=False, server_default="[]"),
)

ARTIFACT = Table(
    "artifact",
    METADATA,
    Column("sha256", Text, primary_key=True),
    Column("bytes", LargeBinary, nullable=False),
)

# The folder is that of releases that kept artifacts in files: what lies there is brought into the table.
STORE = Store("models", metadata=METADATA, migrations="counterfoil_models", files=("artifacts",))

# Views over the events: they are made by the migration, so they live in metadata of their own.
VIEWS = MetaData()

VERSION_STATE = Table(
    "model_version_state",
    VIEWS,
    Column("workspace", Text, primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("state", Text, nullable=False),
)

CHAMPION = Table(
    "model_champion",
    VIEWS,
    Column("workspace", Text, primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("version", Integer, nullable=False),
)
