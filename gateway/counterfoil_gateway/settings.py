"""What the gateway reads from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from counterfoil_chassis.settings import METRICS_LISTEN, ServiceSettings
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from counterfoil_gateway.serving import SERVING


class Settings(ServiceSettings):
    """Defaults run on one laptop."""

    model_config = SettingsConfigDict(
        env_prefix="COUNTERFOIL_GATEWAY_", frozen=True, extra="ignore", populate_by_name=True
    )

    listen: str = Field(default="127.0.0.1:8080", description="Address of the REST door.")
    grpc_listen: str = Field(default="127.0.0.1:8081", description="Address of the gRPC door.")
    metrics_listen: str = Field(default="127.0.0.1:9100", description=METRICS_LISTEN)
    public_url: str = Field(
        default="",
        pattern="^(https?://[^/]+)?$",
        description="Scheme and host that people reach the REST door by, for sign-in links and sessions; "
        "needed where a proxy ends TLS. Empty = as each request says.",
    )
    door_cert_file: Path | None = Field(
        default=None,
        validation_alias="COUNTERFOIL_GATEWAY_TLS_CERT_FILE",
        description="Certificate, with its chain, of both public doors: PEM. None = no TLS there.",
    )
    door_key_file: Path | None = Field(
        default=None,
        validation_alias="COUNTERFOIL_GATEWAY_TLS_KEY_FILE",
        description="Its private key.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses and networks, by commas, whose `X-Forwarded-Proto` and `X-Forwarded-For` are believed: "
        "those of proxies that end TLS before the REST door. Empty = nobody's.",
    )
    reflection: Literal["signed_in", "everybody", "off"] = Field(
        default="signed_in",
        description="Who may ask the gRPC door for its services by reflection: `signed_in`, `everybody`, or `off`.",
    )
    requests_per_second: float = Field(
        default=500,
        ge=0,
        description="Requests that one API key and its sessions may make on average, at each gateway; 0 = no limit.",
    )
    requests_burst: int = Field(default=2000, ge=1, description="Requests that one API key may make at once.")
    event_requests_per_second: float = Field(
        default=0, ge=0, description="The same for one write key on the event routes; 0 = no limit."
    )
    event_requests_burst: int = Field(
        default=10_000, ge=1, description="Event requests that one write key may make at once."
    )
    failed_sign_ins_per_second: float = Field(
        default=100,
        ge=0,
        description="Keys that are none which one address may present on average before it has to wait; 0 = no limit. "
        "Behind a proxy all callers have its address.",
    )
    failed_sign_ins_burst: int = Field(default=1000, ge=1, description="The same at once.")
    max_running: int = Field(
        default=1024,
        ge=1,
        description="Requests that both doors work on at once; more are refused with OVERLOADED.",
    )
    max_body_bytes: int = Field(
        default=64 << 20,
        ge=4 << 20,
        description="Bytes of request bodies held in memory at once; more are refused with OVERLOADED.",
    )
    max_streams: int = Field(
        default=128,
        ge=1,
        description="Uploads, exports and followed streams that go on at once; more are refused with OVERLOADED.",
    )
    ingest_target: str = Field(default="127.0.0.1:7101", description="Address of ingest.")
    contracts_target: str = Field(default="127.0.0.1:7102", description="Address of contracts.")
    graph_target: str = Field(default="127.0.0.1:7103", description="Address of graph.")
    models_target: str = Field(default="127.0.0.1:7104", description="Address of models.")
    model_serving_target: str = Field(
        default="",
        description="Address of the processes that make and replay outputs beside models (`COUNTERFOIL_MODELS_ROLE` "
        "is `serving`); a name with several addresses has its calls spread over them. Empty = models does that, too.",
    )
    governance_target: str = Field(default="127.0.0.1:7105", description="Address of governance.")

    @model_validator(mode="after")
    def _check_door(self) -> Self:
        if (self.door_cert_file is None) != (self.door_key_file is None):
            raise ValueError("COUNTERFOIL_GATEWAY_TLS_CERT_FILE and _KEY_FILE are set together or not at all")
        return self

    def targets(self) -> dict[str, str]:
        """Return the address of each service by its name, and of the processes that serve models if there are any."""
        targets = {
            "ingest": self.ingest_target,
            "contracts": self.contracts_target,
            "graph": self.graph_target,
            "models": self.models_target,
            "governance": self.governance_target,
        }
        return targets | ({SERVING: self.model_serving_target} if self.model_serving_target else {})
