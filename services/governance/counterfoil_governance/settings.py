"""What governance reads from the environment."""

from __future__ import annotations

from counterfoil_chassis.settings import METRICS_LISTEN, ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class Settings(ServiceSettings):
    """Defaults run on one laptop; production overrides them by environment variable."""

    model_config = SettingsConfigDict(env_prefix="COUNTERFOIL_GOVERNANCE_", frozen=True, extra="ignore")

    listen: str = Field(default="127.0.0.1:7105", description="Address the server binds.")
    metrics_listen: str = Field(default="127.0.0.1:9105", description=METRICS_LISTEN)
    bootstrap_key_sha256: str = Field(
        default="",
        pattern=r"^([0-9a-fA-F]{64})?$",
        description="Hex SHA-256 of the key that principal `admin` of workspace `default` signs in with. "
        "An empty installation is created with it; a later change revokes the old bootstrap key for the new one.",
    )
