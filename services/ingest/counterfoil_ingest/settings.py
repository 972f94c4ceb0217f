"""What ingest reads from the environment."""

from __future__ import annotations

from pathlib import Path

from counterfoil_chassis.settings import METRICS_LISTEN, ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class Settings(ServiceSettings):
    """Defaults run on one laptop; production overrides them by environment variable."""

    model_config = SettingsConfigDict(env_prefix="COUNTERFOIL_INGEST_", frozen=True, extra="ignore")

    listen: str = Field(default="127.0.0.1:7101", description="Address the server binds.")
    metrics_listen: str = Field(default="127.0.0.1:9101", description=METRICS_LISTEN)
    contracts_target: str = Field(default="127.0.0.1:7102", description="Address of the contracts service.")
    governance_target: str = Field(default="127.0.0.1:7105", description="Address of governance.")
    max_import_bytes: int = Field(
        default=10 << 30, gt=0, description="The largest file that can be imported, in bytes."
    )
    import_mappings: Path | None = Field(
        default=None, description="A folder with mappings of files (YAML) beside those that are shipped."
    )
    lake_commit_seconds: float = Field(default=5.0, gt=0, description="How far the lake may stay behind, in seconds.")
    lake_url: str = Field(
        default="",
        pattern="^(s3://[^/]+(/.*)?)?$",
        description="Where the lake lies in S3-compatible storage, e.g. `s3://bucket/lake`; empty: in the data folder.",
    )
    lake_options_file: Path | None = Field(
        default=None,
        description="A secret JSON file with what opens that storage: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, "
        "`AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, each as needed.",
    )
    dedup_days: int = Field(
        default=90,
        ge=30,
        description="How many days an id is known at least: a record that comes again within them adds nothing.",
    )
    query_memory: str = Field(
        default="512MB", pattern=r"^[1-9][0-9]*(MB|GB)$", description="The memory of one SQL query, e.g. `512MB`."
    )
    monitor_seconds: float = Field(
        default=60.0, gt=0, description="How often a monitor is evaluated whose contract says no schedule, in seconds."
    )
    retention_seconds: float = Field(
        default=3600.0, gt=0, description="How often it is looked whether records have expired, in seconds."
    )
    queries_at_once: int = Field(default=2, gt=0, description="How many SQL queries run at once; others wait.")
    queries_per_workspace: int = Field(
        default=2, gt=0, description="How many SQL queries of one workspace run at once; others of it wait."
    )
    image_digest: str = Field(
        default="", description="Digest of the container image this runs in; receipts name it. Empty from a checkout."
    )
