"""TLS between services: who is let in, by which certificate, and what happens when it is changed."""

from __future__ import annotations

import datetime as dt
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from counterfoil.common.v1.receipts_pb2_grpc import ReceiptProducerServiceStub
from counterfoil_chassis.call import connect
from counterfoil_chassis.dependency import Dependency
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.serve import started
from counterfoil_chassis.startup import read_settings
from counterfoil_chassis.status import failure_of
from counterfoil_chassis.transport import Certificate
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.certificates import Authority
from tests.chassis.probe import HandClock, Probe, ProbeSettings, answer, bearer, principal_token, receipt_of, signer


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings_of(data_dir: Path, authority: Authority, names: list[str]) -> ProbeSettings:
    files = authority.issue("probe", names)
    return ProbeSettings(
        data_dir=data_dir, tls_cert_file=files.certificate, tls_key_file=files.key, tls_ca_file=authority.file
    )


def shown_by(authority: Authority, *names: str) -> Certificate:
    files = authority.issue("-".join(names), names)
    return Certificate(files.certificate, files.key, authority.file)


async def outcome(address: str, tls: Certificate | None, *, name: str = "probe", certified: str = "") -> str:
    """Return how a health check by such a caller ends; health needs no token, but a certificate all the same."""
    async with connect(address, to=Dependency(name), tls=tls, certified=certified) as channel:
        try:
            await HealthStub(channel).Check(HealthCheckRequest(), timeout=30)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


async def test_only_a_certificate_of_the_authority_opens_the_door(
    stack: AsyncExitStack, data_dir: Path, authority: Authority, tmp_path: Path
) -> None:
    settings = settings_of(data_dir, authority, ["probe"])
    running = await stack.enter_async_context(started("probe", settings, Probe(get=answer).build))
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger")
    files = stranger.issue("models", ["models"])
    of_stranger = Certificate(files.certificate, files.key, authority.file)
    assert await outcome(running.address, shown_by(authority, "models")) == "OK"
    assert await outcome(running.address, None) == "UNAVAILABLE"
    assert await outcome(running.address, of_stranger) == "UNAVAILABLE"


async def test_a_caller_insists_on_the_name_of_the_service_it_means(
    stack: AsyncExitStack, data_dir: Path, authority: Authority
) -> None:
    settings = settings_of(data_dir, authority, ["probe"])
    running = await stack.enter_async_context(started("probe", settings, Probe(get=answer).build))
    caller = shown_by(authority, "models")
    assert await outcome(running.address, caller, name="governance") == "UNAVAILABLE"


async def test_processes_of_a_service_under_another_name_show_the_certificate_of_their_service(
    stack: AsyncExitStack, data_dir: Path, authority: Authority
) -> None:
    settings = settings_of(data_dir, authority, ["probe"])
    running = await stack.enter_async_context(started("probe", settings, Probe(get=answer).build))
    caller = shown_by(authority, "gateway")
    assert await outcome(running.address, caller, name="probe-serving") == "UNAVAILABLE"
    assert await outcome(running.address, caller, name="probe-serving", certified="probe") == "OK"


async def test_a_service_s_token_counts_only_by_a_certificate_with_its_name(
    stack: AsyncExitStack, data_dir: Path, authority: Authority
) -> None:
    settings = settings_of(data_dir, authority, ["probe"])
    running = await stack.enter_async_context(started("probe", settings, Probe(get=answer).build))
    token = signer(data_dir, "models").mint_service()
    reasons = []
    for name in ("ingest", "models"):
        channel = connect(running.address, to=Dependency("probe"), tls=shown_by(authority, name))
        stub = ReceiptProducerServiceStub(await stack.enter_async_context(channel))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetReceipt(receipt_of("r"), **bearer(token))
        reasons.append(failure_of(refused.value).reason)
    assert reasons == ["PEER_MISMATCH", "SERVICE_NOT_ALLOWED"]  # by its own certificate it comes as far as the method
    forwarded = await stub.GetReceipt(receipt_of("r"), **bearer(principal_token(data_dir)))
    assert forwarded.receipt_id


async def test_a_certificate_that_is_changed_counts_for_the_next_connection(
    stack: AsyncExitStack, data_dir: Path, authority: Authority
) -> None:
    settings = settings_of(data_dir, authority, ["probe"])
    running = await stack.enter_async_context(started("probe", settings, Probe(get=answer).build))
    caller = shown_by(authority, "models")
    assert await outcome(running.address, caller, name="renamed") == "UNAVAILABLE"
    renamed = authority.issue("renamed", ["renamed"])
    shutil.copy(renamed.key, settings.tls_key_file)
    shutil.copy(renamed.certificate, settings.tls_cert_file)
    assert await outcome(running.address, caller, name="renamed") == "OK"


def test_what_is_half_written_is_not_taken_and_what_is_changed_is_told(authority: Authority) -> None:
    files = authority.issue("probe", ["probe"])
    certificate = Certificate(files.certificate, files.key, authority.file)
    check = certificate.check(HandClock(), channels=True)
    assert check() == ""
    before, other = certificate.pem, authority.issue("other", ["probe"])
    shutil.copy(other.certificate, files.certificate)  # its key is still the one before
    assert not certificate.renew()
    assert certificate.pem == before
    shutil.copy(other.key, files.key)
    assert certificate.renew()
    assert "restart this process" in check()


def test_a_certificate_that_ends_soon_is_told_before_it_does(authority: Authority) -> None:
    files = authority.issue("probe", ["probe"], days=20)
    certificate = Certificate(files.certificate, files.key)
    clock = HandClock(dt.datetime.now(dt.UTC))
    check = certificate.check(clock, channels=False)
    assert check() == ""
    clock.forward(dt.timedelta(days=7))
    assert "ends on" in check()


@pytest.mark.parametrize(
    ("broken", "told"), [("missing", "cannot be read"), ("text", "not a certificate"), ("key", "TLS")]
)
def test_files_that_cannot_be_used_are_one_line_at_the_start(
    authority: Authority, tmp_path: Path, broken: str, told: str
) -> None:
    files, other = authority.issue("probe", ["probe"]), authority.issue("other", ["probe"])
    (tmp_path / "text.pem").write_text("no certificate")
    certificate = {"missing": tmp_path / "nowhere", "text": tmp_path / "text.pem", "key": files.certificate}[broken]
    with pytest.raises(StartError, match=told):
        Certificate(certificate, other.key, authority.file)


def test_the_three_settings_go_together_and_may_name_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERFOIL_TLS_CERT_FILE", "/certificates/{service}.crt")
    with pytest.raises(StartError, match="set together"):
        read_settings(ProbeSettings)
    monkeypatch.setenv("COUNTERFOIL_TLS_KEY_FILE", "/certificates/{service}.key")
    monkeypatch.setenv("COUNTERFOIL_TLS_CA_FILE", "/certificates/ca.crt")
    assert str(read_settings(ProbeSettings).tls_cert_file) == "/certificates/probe.crt"
