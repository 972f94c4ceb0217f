"""Brings contracts, mappings, files, events and consents in, and waits until the graph has read them."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from counterfoil_cli.client import ApiProblem, Client
from rich.progress import Progress, TaskID

from walkthrough.errors import DemoError

CONSENTS_PER_CALL = 5000

_POLL_SECONDS = 0.25
_PATIENCE_SECONDS = 300.0
_REBUILDING = "GRAPH_REBUILDING"

Json = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """One figure, as the source files have it and as Counterfoil answers it."""

    what: str
    expected: int | Decimal
    found: int | Decimal

    @property
    def exact(self) -> bool:
        """Whether the two are the same to the record and the cent."""
        return self.expected == self.found


@dataclass(frozen=True)
class Recorded:
    """What became of consents that were sent."""

    sent: int
    recorded: int
    superseded: int


def activate_contracts(api: Client, folder: Path) -> list[str]:
    """Submit every contract of a folder and put it in force; return them as `id version`."""
    names = []
    for file in sorted(folder.glob("*.odcs.yaml")):
        version = api.submit_contract(file.read_bytes())
        if version["state"] != "ACTIVE":
            raise DemoError(f"The contract in {file.name} was kept as {version['state']}, not activated.")
        names.append(f"{version['contract_id']} {version['version']}")
    return names


def put_mapping(api: Client, file: Path) -> Json:
    """Put a mapping in force, unless it is already; return it."""
    document = file.read_bytes()
    mapping_id = yaml.safe_load(document)["mapping"]
    try:
        found = api.get(f"/v1/graph/mappings/{mapping_id}")
    except ApiProblem as problem:
        if problem.status != HTTPStatus.NOT_FOUND:
            raise
    else:
        if found["sha256"] == hashlib.sha256(document).hexdigest():
            return found
    return api.request(
        "POST", "/v1/graph/mappings", content=document, headers={"content-type": "application/yaml"}, timeout=60
    )


def import_file(api: Client, file: Path, *, dataset: str, progress: Progress, task: TaskID) -> Json:
    """Upload a file and follow its import to the end; every row must be accepted or known already."""
    progress.update(task, total=file.stat().st_size, completed=0, unit="bytes")
    started = api.upload_import(
        file,
        asked={"dataset": dataset, "format": file.suffix[1:]},
        on_bytes=lambda count: progress.advance(task, count),
    )
    found = started
    for found in api.follow_import(started["import_id"]):
        progress.update(task, total=found["rows_total"] or None, completed=found["rows_read"], unit="rows")
    if found["state"] == "FAILED":
        raise DemoError(f"The import of {file.name} failed: {found['error']['detail']} ({found['error']['reason']})")
    if found["rows_quarantined"]:
        raise DemoError(f"{found['rows_quarantined']} rows of {file.name} broke their contract; see /v1/quarantine.")
    return found


def write_key(api: Client, display_name: str, *, mappings: Sequence[Mapping[str, str]] = ()) -> str:
    """Return a new write key of a source, made when it does not exist yet.

    A key is shown once, so a second run gives the same source a new key: its events are then known by their ids.
    """
    for source in api.pages("/v1/sources", "sources"):
        if source["display_name"] == display_name:
            rotated = api.post(f"/v1/sources/{source['source_id']}:rotate_key", {"keep_previous_for": "0s"})
            return str(rotated["write_key"])
    return str(api.post("/v1/sources", {"display_name": display_name, "mappings": list(mappings)})["write_key"])


def record_consents(api: Client, consents: Sequence[Json], *, progress: Progress, task: TaskID) -> Recorded:
    """Record consents in as many calls as it takes; the same ones again add nothing."""
    progress.update(task, total=len(consents), completed=0, unit="consents")
    recorded = superseded = 0
    for begin in range(0, len(consents), CONSENTS_PER_CALL):
        some = consents[begin : begin + CONSENTS_PER_CALL]
        answer = api.post("/v1/consents", {"consents": list(some)}, timeout=60)
        recorded += answer["recorded"]
        superseded += answer["superseded"]
        progress.advance(task, len(some))
    return Recorded(len(consents), recorded, superseded)


def log_end(api: Client, datasets: Sequence[str]) -> int:
    """Return the offset below which all of these datasets' records lie, as of now."""
    ends = [0]
    for dataset in datasets:
        snapshot = api.post("/v1/snapshots", {"dataset": dataset})
        ends += (offset["offset"] for offset in snapshot["offsets"])
    return max(ends)


def wait_for_graph(api: Client, end: int, *, progress: Progress, task: TaskID) -> Json:
    """Wait until the graph has read the log up to an offset and return it; raise DemoError when it stands still."""
    deadline, last = time.monotonic() + _PATIENCE_SECONDS, -1
    progress.update(task, total=end, unit="of the log")
    for found in _graph_states(api):
        read = found.get("state", {}).get("next_offset", 0)
        progress.update(task, completed=min(read, end))
        if read >= end and not found.get("rebuilding"):
            return found
        if read != last:
            last, deadline = read, time.monotonic() + _PATIENCE_SECONDS
        if time.monotonic() > deadline:
            break
    raise DemoError(f"The graph stands still at offset {last:,} of {end:,}; see its log.")


def _graph_states(api: Client) -> Iterator[Json]:
    while True:
        try:
            yield api.get("/v1/graph")
        except ApiProblem as problem:
            if problem.reason != _REBUILDING:
                raise
            yield {"rebuilding": True}
        time.sleep(_POLL_SECONDS)
