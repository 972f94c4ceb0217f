"""What the trace sink reads from the environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class TracesSettings(BaseSettings):
    """Settings of the trace sink; the defaults are the ports that OTLP exporters and Jaeger's users expect."""

    model_config = SettingsConfigDict(
        env_prefix="COUNTERFOIL_TRACES_", frozen=True, extra="ignore", populate_by_name=True
    )

    listen: str = Field(default="127.0.0.1:16686", description="Address of the pages and of Jaeger's query API.")
    grpc_listen: str = Field(default="127.0.0.1:4317", description="Address of OTLP over gRPC.")
    http_listen: str = Field(default="127.0.0.1:4318", description="Address of OTLP over HTTP.")
    data_dir: Path = Field(
        default=Path(".counterfoil"),
        validation_alias="COUNTERFOIL_DATA_DIR",
        description="Folder of everything stored locally.",
    )
    max_spans: int = Field(default=1_000_000, ge=1, description="Spans that are kept; older ones are deleted.")
    max_days: float = Field(default=7.0, gt=0, description="Days that a span is kept.")
