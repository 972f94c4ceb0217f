"""Everything the models service reads from the environment."""

from typing import Literal

from counterfoil_chassis.settings import METRICS_LISTEN, ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class Settings(ServiceSettings):
    """Defaults run on one laptop; production overrides them by environment variable."""

    model_config = SettingsConfigDict(
        env_prefix="COUNTERFOIL_MODELS_", frozen=True, extra="ignore", populate_by_name=True
    )

    listen: str = Field(default="127.0.0.1:7104", description="Address the server binds; port 0 picks a free one.")
    metrics_listen: str = Field(default="127.0.0.1:9104", description=METRICS_LISTEN)
    role: Literal["all", "serving"] = Field(
        default="all",
        description="What the process does: `all`, or `serving`, which makes and replays outputs beside the one that "
        "does all, in as many processes as you like; on PostgreSQL alone.",
    )
    ingest_target: str = Field(default="127.0.0.1:7101", description="Address of ingest.")
    graph_target: str = Field(default="127.0.0.1:7103", description="Address of graph.")
    contracts_target: str = Field(default="127.0.0.1:7102", description="Address of the contracts service.")
    governance_target: str = Field(default="127.0.0.1:7105", description="Address of governance.")
    image_digest: str = Field(
        default="", description="Digest of the container image that runs, for receipts; empty = none runs."
    )

    @property
    def shares_database(self) -> bool:
        """Say whether the process writes beside the one that holds the lease."""
        return self.role == "serving"
