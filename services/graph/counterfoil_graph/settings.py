"""What the graph reads from the environment."""

from __future__ import annotations

from counterfoil_chassis.settings import METRICS_LISTEN, ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class Settings(ServiceSettings):
    """Defaults run on one laptop; production overrides them by environment variable."""

    model_config = SettingsConfigDict(
        env_prefix="COUNTERFOIL_GRAPH_", frozen=True, extra="ignore", populate_by_name=True
    )

    listen: str = Field(default="127.0.0.1:7103", description="Address the server binds.")
    metrics_listen: str = Field(default="127.0.0.1:9103", description=METRICS_LISTEN)
    ingest_target: str = Field(default="127.0.0.1:7101", description="Address of ingest.")
    contracts_target: str = Field(default="127.0.0.1:7102", description="Address of the contracts service.")
    governance_target: str = Field(default="127.0.0.1:7105", description="Address of governance.")
    image_digest: str = Field(
        default="", description="Digest of the container image that runs, for receipts; empty = none runs."
    )
