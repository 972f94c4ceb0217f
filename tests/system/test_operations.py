"""A whole Counterfoil under TLS everywhere, as whoever operates it sees it: doors, doctor, support bundle, logs."""

from __future__ import annotations

import json
import ssl
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.certificates import Authority, Files
from tests.cli.running import COMMAND, Program, clean_environment
from tests.system.installation import free_offset, until

SERVICES = ("gateway", "models", "graph", "ingest", "contracts", "governance")
EMAIL = "canary.ada@example.com"
CARD = "canary 4111 1111 1111 1111"


@dataclass(frozen=True)
class Secured:
    """The running installation, and what it takes to be let in."""

    data: Path
    offset: int
    banner: list[str]
    environment: dict[str, str]
    authority: Authority
    client: Files

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{8080 + self.offset}"

    @property
    def key(self) -> str:
        return (self.data / "admin.key").read_text().strip()

    def http(self, key: str | None = None) -> httpx.Client:
        context = ssl.create_default_context(cafile=self.authority.file)
        headers = {"x-api-key": key or self.key}
        return httpx.Client(base_url=self.url, headers=headers, verify=context, trust_env=False, timeout=30)

    def health(self, service: str, port: int) -> dict[str, object]:
        answer = httpx.get(f"http://127.0.0.1:{port + self.offset}/healthz", trust_env=False, timeout=30)
        assert answer.json()["service"] == service
        return answer.json()

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | more
        return subprocess.run(
            [COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    for service in SERVICES:
        authority.issue(service, [service])
    door = authority.issue("door", ["localhost", "127.0.0.1"])
    environment = clean_environment() | {
        "COUNTERFOIL_TLS_CERT_FILE": str(folder / "{service}.crt"),
        "COUNTERFOIL_TLS_KEY_FILE": str(folder / "{service}.key"),
        "COUNTERFOIL_TLS_CA_FILE": str(authority.file),
        "COUNTERFOIL_GATEWAY_TLS_CERT_FILE": str(door.certificate),
        "COUNTERFOIL_GATEWAY_TLS_KEY_FILE": str(door.key),
    }
    data, offset = folder / "data", free_offset()
    process = subprocess.Popen(
        [COMMAND, "up", "--data", data, "--port-offset", str(offset)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    program = Program(process)
    try:
        program.line("Counterfoil is ready")
        program.line("  Logs")
        yield Secured(data, offset, program.lines, environment, authority, authority.issue("caller", ["graph"]))
    finally:
        process.terminate()
        program.end()


def test_records_come_in_and_are_served_over_it(secured: Secured) -> None:
    with secured.http() as api:
        made = api.post("/v1/sources", json={"display_name": "shop", "protocol": "segment"}).raise_for_status().json()
        event = {"event": "Order Completed", "userId": EMAIL, "properties": {"email": EMAIL, "note": CARD}}
        sent = api.post("/v1/track", json=event, auth=(made["write_key"], ""), headers={"x-api-key": ""})
        assert sent.status_code == 200
        records = api.get("/v1/datasets/events/records").raise_for_status().json()
    assert EMAIL in json.dumps(records)
    [link] = [line.split()[-1] for line in secured.banner if line.startswith("  Console")]
    assert link.startswith(f"{secured.url}/console/sign-in?code=")


def test_services_refuse_whoever_shows_no_certificate_of_the_authority(secured: Secured, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").issue("graph", ["graph"])
    root = secured.authority.file.read_bytes()
    mine, theirs = (
        grpc.ssl_channel_credentials(root, files.key.read_bytes(), files.certificate.read_bytes())
        for files in (secured.client, stranger)
    )
    for service, port in (("ingest", 7101), ("governance", 7105)):
        address, name = f"127.0.0.1:{port + secured.offset}", [("grpc.ssl_target_name_override", service)]
        with grpc.secure_channel(address, mine, options=name) as channel:
            assert check(channel) == "SERVING"
        for channel in (
            grpc.secure_channel(address, theirs, options=name),
            grpc.secure_channel(address, grpc.ssl_channel_credentials(root), options=name),
            grpc.insecure_channel(address),
        ):
            with channel:
                assert check(channel) == "UNAVAILABLE"


def check(channel: grpc.Channel) -> str:
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    except grpc.RpcError as error:
        return error.code().name
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def test_every_process_tells_how_it_is_and_that_its_certificate_is_good(secured: Secured) -> None:
    ports = {"gateway": 9100, "ingest": 9101, "contracts": 9102, "graph": 9103, "models": 9104, "governance": 9105}
    for service, port in ports.items():
        told = until(  # who follows another may just have lost it
            lambda service=service, port=port: (
                found if (found := secured.health(service, port))["status"] == "ok" else None
            ),
            seconds=60,
            what=f"{service} is not well",
        )
        assert "certificate" in {each["name"] for each in told["checks"]}


def test_commands_know_the_gateway_by_the_authority_alone(secured: Secured) -> None:
    known = ["--url", secured.url, "--data", str(secured.data)]
    assert secured.run("status", *known, "--ca-file", str(secured.authority.file)).returncode == 0
    refused = secured.run("status", *known)
    assert refused.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr or "Nothing answers" in refused.stderr


def test_doctor_finds_a_good_installation_good(secured: Secured) -> None:
    found = secured.run("doctor", "--data", str(secured.data), "--port-offset", str(secured.offset))
    assert found.returncode == 0, found.stdout
    lines = found.stdout.splitlines()
    assert not [line for line in lines if line.startswith(("fail", "warn")) and "packages" not in line], found.stdout
    for named in ("python:", "keys:", "database ingest:", "certificate graph:", "gateway:", "clock:", "traces:"):
        assert any(named in line for line in lines), named


def test_doctor_names_what_is_wrong_and_what_to_do(secured: Secured) -> None:
    (secured.data / "keys" / "models.pem").chmod(0o644)
    try:
        arguments = ["doctor", "--data", str(secured.data), "--port-offset", str(secured.offset)]
        found = secured.run(*arguments, COUNTERFOIL_INGEST_LISTENS="127.0.0.1:1", COUNTERFOIL_LOG_LEVEL="LOUD")
    finally:
        (secured.data / "keys" / "models.pem").chmod(0o600)
    assert found.returncode == 1
    text = found.stdout
    assert "warn  settings: nothing reads COUNTERFOIL_INGEST_LISTENS" in text
    assert "fail  settings ingest: COUNTERFOIL_LOG_LEVEL" in text
    assert "fail  key models:" in text
    assert f"chmod 600 {secured.data / 'keys' / 'models.pem'}" in text


def test_logs_hold_no_secret_and_nothing_of_anybody_whatever_is_sent(secured: Secured) -> None:
    secrets = [*strew(secured), secured.key, EMAIL, "4111 1111"]
    for log in (secured.data / "logs").glob("*.log"):
        for line in log.read_text().splitlines():
            found = json.loads(line)
            assert {"time", "level", "service", "event", "logger"} <= found.keys(), line
            assert not [secret for secret in secrets if secret in line], line


def test_the_support_bundle_holds_no_secret_and_nothing_of_anybody(secured: Secured, tmp_path: Path) -> None:
    secrets = [*strew(secured), secured.key.removeprefix("cfk_"), EMAIL, "4111 1111", "canary"]
    with (secured.data / "logs" / "ingest.log").open("a") as log:
        log.writelines(f"{line}\n" for line in lines_that_nobody_should_write())
    archive = tmp_path / "bundle.zip"
    made = secured.run(
        "doctor",
        "--data",
        str(secured.data),
        "--port-offset",
        str(secured.offset),
        "--bundle",
        str(archive),
        COUNTERFOIL_MODELS_DATABASE_URL="postgresql://canary-user:canary-password@127.0.0.1:1/models",
        COUNTERFOIL_GATEWAY_PUBLIC_URL="https://shop.example.com",
    )
    assert archive.stat().st_mode & 0o077 == 0, made.stderr
    with zipfile.ZipFile(archive) as opened:
        parts = {name: opened.read(name).decode() for name in opened.namelist()}
    for name, text in parts.items():
        for secret in secrets:
            at = text.find(secret)
            assert at < 0, f"{name} holds {secret!r}: {text[max(0, at - 80) : at + 40]}"
    health = json.loads(parts["health/ingest.json"])
    assert "database" in {each["name"] for each in health["checks"]}
    assert "counterfoil_server_calls_total" in parts["metrics/ingest.txt"]
    assert json.loads(parts["tables.json"])["governance"]["keys"] >= 1
    logged = [json.loads(line) for line in parts["logs/ingest.log"].splitlines()]
    assert "serving" in {line.get("event") for line in logged}
    assert ["counterfoil_ingest/lake.py:7 _write", "ValueError"] in [line.get("error") for line in logged]


def lines_that_nobody_should_write() -> list[str]:
    """Return what a library, or a mistake of ours, could put into a log."""
    fixed = {"time": "t", "level": "ERROR", "service": "ingest"}
    place = '  File "/srv/canary/counterfoil_ingest/lake.py", line 7, in _write\n    raise ValueError(row)'
    return [
        f"a library prints {EMAIL}",
        json.dumps(fixed | {"logger": "asyncio", "event": f"never retrieved: {EMAIL}", "path": f"/v1/persons/{EMAIL}"}),
        json.dumps(
            fixed
            | {"logger": "counterfoil_ingest.lake", "event": "lake round failed", "cause": CARD, "workspace": "canary"}
            | {"error": f"Traceback (most recent call last):\n{place}\nValueError: {EMAIL} is no number"}
        ),
    ]


def strew(secured: Secured) -> list[str]:
    """Send secrets and personal data by every way that is open; return the secrets."""
    wrong_key, wrong_write_key = "cfk_" + "canary" * 7, "cfw_" + "canary" * 7
    with secured.http() as api:
        key = (
            api.post("/v1/keys", json={"principal_id": "admin", "display_name": "canary", "scopes": ["ingest.read"]})
            .raise_for_status()
            .json()
        )
        source = (
            api.post("/v1/sources", json={"display_name": "canary", "protocol": "segment"}).raise_for_status().json()
        )
        auth = (source["write_key"], "")
        api.post("/v1/track", content=f'{{"event": {EMAIL}'.encode(), auth=auth, headers={"x-api-key": ""})
        api.post("/v1/track", json={"event": CARD, "userId": EMAIL}, auth=auth, headers={"x-api-key": ""})
        api.post("/v1/track", json={"event": "e"}, auth=(wrong_write_key, ""), headers={"x-api-key": ""})
        api.post("/v1/persons:lookup", json={"type": "email", "value": EMAIL})
        api.post("/v1/sql", json={"sql": f"SELECT '{EMAIL}' FROM nowhere"})
        api.get(f"/v1/persons/{EMAIL}")
        api.get("/v1/sources", headers={"x-api-key": wrong_key})
        api.post("/v1/imports?dataset=events&format=jsonl", content=f'{{"email": "{EMAIL}"'.encode())
    return [wrong_key, wrong_write_key, source["write_key"], key["api_key"]]
