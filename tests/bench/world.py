"""The platform as it is measured: a whole installation, one workspace of it, and what the raw loop needs."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import psutil
from counterfoil_cli.env import environment
from counterfoil_cli.launcher import SERVICES

from tests.bench.bodies import stored_bodies
from tests.bench.variants import free_port
from tests.system.installation import Installation
from tests.system.tenant import Tenant, ok

UNLIMITED = {"COUNTERFOIL_GATEWAY_REQUESTS_PER_SECOND": "1000000", "COUNTERFOIL_GATEWAY_REQUESTS_BURST": "1000000"}
"""The limit of requests counts, and refuses nobody."""
RAW_EVENTS = 50_000


@dataclass
class Platform:
    """One installation under load, and a workspace in it."""

    installation: Installation
    tenant: Tenant
    traces: bool

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, *, traces: bool = True) -> Iterator["Platform"]:
        """Start one in a new folder; stop it at the end."""
        settings = UNLIMITED | ({} if traces else {"COUNTERFOIL_TRACE_RATIO": "0"})
        arguments = () if traces else ("--no-traces",)
        installation = Installation.start(folder, arguments=arguments, settings=settings)
        try:
            with installation.http(installation.admin_key) as admin:
                yield cls(installation, Tenant.create(installation, admin, workspace="bench"), traces)
        finally:
            installation.stop()

    def processes(self) -> list[psutil.Process]:
        """Return everything that serves or follows."""
        names = (*SERVICES, "traces") if self.traces else SERVICES
        return [self.installation.child(name) for name in names]

    def beside(self) -> tuple[int, dict[str, str]]:
        """Return a port, and the environment for one more gateway of this installation that listens there."""
        port = free_port()
        data, offset = self.installation.data, self.installation.offset
        made = environment({}, data=data, port_offset=offset, traces=True, admin_key_sha256="")
        doors = {
            "COUNTERFOIL_GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "COUNTERFOIL_GATEWAY_GRPC_LISTEN": "127.0.0.1:0",
            "COUNTERFOIL_GATEWAY_METRICS_LISTEN": "",
            "COUNTERFOIL_LOG_LEVEL": "WARNING",
        }
        return port, made | UNLIMITED | doors

    def schema_of(self, dataset: str) -> dict[str, Any]:
        """Return the schema that the contract in force for a dataset compiles to."""
        http = self.tenant.http
        contract = next(c for c in ok(http.get("/v1/contracts"))["contracts"] if dataset in c["datasets"])
        version = ok(http.get(f"/v1/contracts/{contract['contract_id']}/versions/{contract['active_version']}"))
        schema: dict[str, Any] = next(c["json_schema"] for c in version["compiled"] if c["dataset"] == dataset)
        return schema


class RawLoop:
    """The unit: parse with orjson, validate every record with jsonschema-rs, and nothing else."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._is_valid = jsonschema_rs.validator_for(schema, validate_formats=True).is_valid

    def events(self, batch: int) -> float:
        """Return microseconds of processor time per event, for events in batches."""
        return self.time(stored_bodies(RAW_EVENTS // batch, events=batch), RAW_EVENTS // batch * batch)

    def time(self, bodies: list[bytes], records: int, *, clock: Callable[[], float] = time.process_time) -> float:
        """Return microseconds, of processor time by default, per record of bodies that hold one or a list."""
        is_valid = self._is_valid
        gc.collect()
        gc.disable()  # else it looks again and again at all that this process holds, and the unit costs twice as much
        try:
            began = clock()
            for body in bodies:
                found = orjson.loads(body)
                for record in found if isinstance(found, list) else (found,):
                    if not is_valid(record):
                        raise SystemExit(f"the raw loop's records break the contract: {record}")
            return (clock() - began) / records * 1e6
        finally:
            gc.enable()
