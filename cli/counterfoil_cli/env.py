"""The environment of the children, made in one place from a folder, a port offset and what the user has set."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

# From left to right: a service connects only to services on its right.
CALL_ORDER = ("gateway", "models", "graph", "ingest", "contracts", "governance")
OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
DOOR_CERTIFICATE = "COUNTERFOIL_GATEWAY_TLS_CERT_FILE"
BOOTSTRAP_KEY = "COUNTERFOIL_GOVERNANCE_BOOTSTRAP_KEY_SHA256"


@dataclass(frozen=True)
class Door:
    """One address that a process binds."""

    variable: str
    port: int
    what: str
    optional: bool = False  # an empty address opens no door


DOORS = (
    Door("COUNTERFOIL_GATEWAY_LISTEN", 8080, "the gateway's REST API"),
    Door("COUNTERFOIL_GATEWAY_GRPC_LISTEN", 8081, "the gateway's gRPC API"),
    Door("COUNTERFOIL_INGEST_LISTEN", 7101, "ingest"),
    Door("COUNTERFOIL_CONTRACTS_LISTEN", 7102, "contracts"),
    Door("COUNTERFOIL_GRAPH_LISTEN", 7103, "graph"),
    Door("COUNTERFOIL_MODELS_LISTEN", 7104, "models"),
    Door("COUNTERFOIL_GOVERNANCE_LISTEN", 7105, "governance"),
    Door("COUNTERFOIL_GATEWAY_METRICS_LISTEN", 9100, "the gateway's metrics", optional=True),
    Door("COUNTERFOIL_INGEST_METRICS_LISTEN", 9101, "ingest's metrics", optional=True),
    Door("COUNTERFOIL_CONTRACTS_METRICS_LISTEN", 9102, "contracts' metrics", optional=True),
    Door("COUNTERFOIL_GRAPH_METRICS_LISTEN", 9103, "graph's metrics", optional=True),
    Door("COUNTERFOIL_MODELS_METRICS_LISTEN", 9104, "models' metrics", optional=True),
    Door("COUNTERFOIL_GOVERNANCE_METRICS_LISTEN", 9105, "governance's metrics", optional=True),
)
TRACE_DOORS = (
    Door("COUNTERFOIL_TRACES_LISTEN", 16686, "the trace sink's pages"),
    Door("COUNTERFOIL_TRACES_GRPC_LISTEN", 4317, "the trace sink's OTLP over gRPC"),
    Door("COUNTERFOIL_TRACES_HTTP_LISTEN", 4318, "the trace sink's OTLP over HTTP"),
)


def environment(
    user: Mapping[str, str], *, data: Path, port_offset: int, traces: bool, admin_key_sha256: str
) -> dict[str, str]:
    """Return every variable the children read; one that the user has set keeps its value.

    With `traces` the services export to the embedded sink; else to nothing, unless the user names an endpoint.
    """
    made = {
        "COUNTERFOIL_DATA_DIR": str(data),
        "COUNTERFOIL_TRUSTED_KEYS_DIR": str(data / "keys" / "trusted"),
        BOOTSTRAP_KEY: admin_key_sha256,
    }
    for door in DOORS + (TRACE_DOORS if traces else ()):
        made[door.variable] = f"127.0.0.1:{door.port + port_offset}"
    made.update({name: user[name] for name in made if name in user})
    for caller, callee in combinations(CALL_ORDER, 2):
        target = reachable(made[f"COUNTERFOIL_{callee.upper()}_LISTEN"])
        made[f"COUNTERFOIL_{caller.upper()}_{callee.upper()}_TARGET"] = target
    made[OTLP_ENDPOINT] = f"http://{reachable(made['COUNTERFOIL_TRACES_GRPC_LISTEN'])}" if traces else ""
    return made | {name: user[name] for name in made if name in user}


def reachable(listen: str) -> str:
    """Return the address at which a caller on this machine finds what binds `listen`."""
    host, colon, port = listen.rpartition(":")
    if host in ("", "0.0.0.0", "*"):  # noqa: S104 - read, not bound
        return f"127.0.0.1{colon}{port}"
    return f"[::1]:{port}" if host == "[::]" else listen
