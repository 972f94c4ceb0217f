"""What waits before the disk: every place, number, setting, reason and metric of the page is the code's."""

from __future__ import annotations

import re

import pytest
from counterfoil_chassis import coalesce, dependency, telemetry, watch
from counterfoil_chassis.settings import ServiceSettings
from counterfoil_contracts import apart, checks
from counterfoil_gateway import admission, bodies, doors, streams
from counterfoil_gateway import append as event_requests
from counterfoil_gateway import imports as uploads
from counterfoil_gateway.settings import Settings as GatewaySettings
from counterfoil_graph import following
from counterfoil_ingest import append, lake, monitoring, queries, reading
from counterfoil_ingest import uploads as spool
from counterfoil_ingest.servicers import imports
from counterfoil_ingest.servicers.queries import QUERY_SECONDS
from counterfoil_ingest.settings import Settings as IngestSettings
from counterfoil_ingest.sql import log

from tests.docs.test_docs_reference import FOLDERS, ROOT, page

PAGE = (ROOT / "docs" / "operations" / "queues.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| what waits"))
]
GATEWAY, SERVICE, INGEST = (each.model_fields for each in (GatewaySettings, ServiceSettings, IngestSettings))
MIB = 1 << 20
NUMBERS = {
    "requests at both doors": {"1,024": GATEWAY["max_running"].default},
    "bodies in memory": {"64 MiB": GATEWAY["max_body_bytes"].default / MIB, "4 MiB": bodies.MAX_BODY / MIB},
    "a body or answer that does not get on": {"90 s": admission.LONGEST_REQUEST},
    "uploads, exports, streamed": {"128": GATEWAY["max_streams"].default},
    "messages of a stream": {"60 s": streams.PATIENCE},
    "bytes of an upload": {"1 MiB": uploads.CHUNK / MIB, "60 s": streams.PATIENCE},
    "event requests": {
        "64 MiB": coalesce.MAX_WAITING_BYTES / MIB,
        "10 s": event_requests.TIMEOUT,
        "2 calls": coalesce.IN_FLIGHT,
        "256 requests": coalesce.MAX_ITEMS,
        "4 MiB": coalesce.MAX_BYTES / MIB,
        "10 while": coalesce.IN_FLIGHT + coalesce.MOST_LONG,
    },
    "reads by id": {"64 MiB": coalesce.MAX_WAITING_BYTES / MIB},
    "calls of one gRPC connection": {"256": doors._STREAMS},
    "calls": {"512": SERVICE["max_running"].default},
    "calls to one other service": {"256": SERVICE["max_calls_per_dependency"].default, "1 s": dependency.WAIT},
    "changes of a watched feed": {"500": watch._ROWS},
    "spans for the collector": {"2,048": telemetry.MOST_WAITING},
    "records for the log": {"256 MiB": append._WAITING_BYTES / MIB},
    "bytes of uploads": {
        "4 MiB": spool._WRITE_BYTES / MIB,
        "10 GiB": INGEST["max_import_bytes"].default / MIB / 1024,
    },
    "imports": {"100": imports.MOST_WAITING},
    "blocks for whoever": {"4 MiB": reading._STREAM_BYTES / MIB, "32": log._AT_HAND},
    "connections that have not": {"20 s": doors.HEAD_SECONDS},
    "records for the lake": {"50,000": lake.COMMIT_ROWS, "5 s": INGEST["lake_commit_seconds"].default},
    "SQL queries": {
        "2 at once": INGEST["queries_at_once"].default,
        "2 of": INGEST["queries_per_workspace"].default,
        "16": queries.MOST_WAITING,
        "30 s": QUERY_SECONDS,
    },
    "rows of a result": {"4 MiB": queries._JSON_BYTES / MIB, "1 GiB": queries._STREAM_BYTES / MIB / 1024},
    "monitors that are due": {"2": monitoring.AT_ONCE},
    "checks": {"20": checks.MOST_PENDING, "200": checks.MOST_KEPT},
    "schemas": {"2 at": apart.AT_ONCE, "64": apart.MOST_WAITING, "5 s": apart.SECONDS},
    "the log, for": {"64 MiB": following.MOST_BYTES / MIB},
}


@pytest.mark.parametrize("begin", NUMBERS)
def test_the_numbers_are_the_code_s(begin: str) -> None:
    rows = [row for row in ROWS if row[0] == begin] or [row for row in ROWS if row[0].startswith(begin)]
    (row,) = rows[:1]
    for text, number in NUMBERS[begin].items():
        told = re.match(r"[\d,]+", text)
        assert told is not None
        assert float(told[0].replace(",", "")) == number, text
        assert text in " ".join(row[2:]), (begin, text)


def test_every_place_is_there() -> None:
    for row in ROWS:
        places = re.findall(r"`([a-z]+)/([a-z_/]+\.py)`", row[1])
        assert places or row[1] == "gRPC", row
        for member, file in places:
            assert (FOLDERS[member] / f"counterfoil_{member}" / file).is_file(), (member, file)


def test_every_setting_reason_and_metric_is_there() -> None:
    settings, errors, telemetry_page = page("settings.md"), page("errors.md"), page("telemetry.md")
    for name in re.findall(r"`(?:COUNTERFOIL_|…_)([A-Z_<>]+)`", PAGE):
        assert re.search(rf"`COUNTERFOIL_[A-Z<>_]*{re.escape(name.split('>_')[-1])}`", settings), name
    for status, reason in re.findall(r"(\d{3}) `([A-Z_]+)`", PAGE):
        code = {"429": "RESOURCE_EXHAUSTED", "503": "UNAVAILABLE", "504": "DEADLINE_EXCEEDED"}.get(status)
        assert f"`{reason}`" in errors, reason
        kept = re.search(rf"\| `{reason}` \| ([A-Z_]+) \|", errors)
        if code and kept and reason != "DEADLINE_EXCEEDED":  # which event SDKs are told as 503, since they repeat that
            assert kept[1] == code, reason
    for name in re.findall(r"`(counterfoil_[a-z_]+)", PAGE):
        assert f"`{name}`" in telemetry_page, name
