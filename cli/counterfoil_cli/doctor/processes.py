"""What runs: each process's own health, the gateway's clock, the trace sink."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from counterfoil_cli.doctor.findings import SERVICES, Finding, Patient, fail, ok, warn
from counterfoil_cli.env import DOOR_CERTIFICATE, OTLP_ENDPOINT, reachable
from counterfoil_cli.readiness import connection_to
from counterfoil_cli.tls import pinned

SECONDS = 4.0
SKEW_SECONDS = 5.0


def get(address: str, path: str) -> tuple[int, bytes] | None:
    """Return what a process's own door answers, None when there is none."""
    connection = connection_to(address, tls=None, seconds=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def door_of(service: str, variables: Mapping[str, str]) -> str:
    """Return where a process's metrics and health are, empty when nowhere."""
    listen = variables.get(f"COUNTERFOIL_{service.upper()}_METRICS_LISTEN", "")
    return reachable(listen) if listen else ""


def answers(variables: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    """Ask every process how it is; those that do not run are left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for service in SERVICES:
        address = door_of(service, variables)
        answer = get(address, "/healthz") if address else None
        try:
            body = json.loads(answer[1]) if answer else None
        except ValueError:
            body = None
        if isinstance(body, dict) and body.get("service") == service:
            found[service] = body
    return found


def processes(patient: Patient) -> Iterator[Finding]:
    """Tell what each process says of itself."""
    if not patient.answers:
        yield warn("processes", "none answers", "start them with `counterfoil up`, or name where with --port-offset")
        return
    for service in SERVICES:
        answer = patient.answers.get(service)
        if answer is None:
            told = f"it does not answer at {door_of(service, patient.variables) or 'any address'}"
            yield fail(service, told, f"look at {patient.data / 'logs' / f'{service}.log'}, and start it")
            continue
        failing = [check for check in answer["checks"] if not check["ok"]]
        for check in failing:
            kind = fail if check["needed"] else warn
            yield kind(f"{service}: {check['name']}", f"since {check['since']}", check.get("detail", ""))
        if not failing:
            yield ok(service, f"release {answer['version']}, every check is passed")
    releases = {str(answer["version"]) for answer in patient.answers.values()}
    if len(releases) > 1:
        yield warn("releases", f"processes of {', '.join(sorted(releases))} run", "finish the upgrade")


def clocks(patient: Patient) -> Iterator[Finding]:
    """Compare this machine's clock with the gateway's, which may run elsewhere."""
    if "gateway" not in patient.answers:
        return
    certificate = patient.variables.get(DOOR_CERTIFICATE, "")
    address = reachable(patient.variables["COUNTERFOIL_GATEWAY_LISTEN"])
    connection = connection_to(address, tls=pinned(Path(certificate)) if certificate else None, seconds=SECONDS)
    try:
        connection.request("GET", "/healthz")
        told = connection.getresponse().getheader("date", "")
        skew = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
    except (OSError, ValueError, http.client.HTTPException) as error:
        yield fail("gateway door", f"it does not answer at {address}: {error}", "look at the gateway's log")
        return
    finally:
        connection.close()
    if abs(skew) > SKEW_SECONDS:
        yield warn("clock", f"the gateway's differs by {skew:+.0f} s", "have both machines keep time by NTP")
    else:
        yield ok("clock", "as the gateway's")


def traces(patient: Patient) -> Iterator[Finding]:
    """Look whether somebody takes the traces."""
    endpoint = patient.variables.get(OTLP_ENDPOINT, "")
    if not endpoint or not patient.answers:
        return
    place = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    try:
        socket.create_connection((place.hostname or "", place.port or 4317), timeout=SECONDS).close()
    except OSError as error:
        remedy = f"start what collects them, or correct {OTLP_ENDPOINT}; nothing else depends on it"
        yield warn("traces", f"nobody takes them at {place.hostname}:{place.port}: {error}", remedy)
    else:
        yield ok("traces", f"taken at {place.hostname}:{place.port}")
