"""What contracts reads from the environment."""

from __future__ import annotations

from counterfoil_chassis.settings import METRICS_LISTEN, ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class Settings(ServiceSettings):
    """Defaults run on one laptop; production overrides them by environment variable."""

    model_config = SettingsConfigDict(env_prefix="COUNTERFOIL_CONTRACTS_", frozen=True, extra="ignore")

    listen: str = Field(default="127.0.0.1:7102", description="Address the server binds.")
    metrics_listen: str = Field(default="127.0.0.1:9102", description=METRICS_LISTEN)
    governance_target: str = Field(default="127.0.0.1:7105", description="Address of governance.")
