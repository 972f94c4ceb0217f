"""What doctor finds on a machine where nothing runs, and what never gets into a support bundle."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from counterfoil_chassis import migrate
from counterfoil_chassis.identity import write_key_pair
from counterfoil_cli.commands.doctor import examined
from counterfoil_cli.doctor import places, processes, programs, redaction
from counterfoil_cli.doctor.findings import SERVICES, Finding, Patient
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.certificates import Authority
from tests.cli.running import clean_environment, free_listens
from tests.postgres import Server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for service in SERVICES:
        write_key_pair(folder / "keys" / f"{service}.pem", folder / "keys" / "trusted", service)
    return folder


@pytest.fixture
def patient(data: Path, monkeypatch: pytest.MonkeyPatch) -> Patient:
    for name in set(os.environ) - clean_environment().keys():
        monkeypatch.delenv(name)
    for name, value in free_listens().items():
        monkeypatch.setenv(name, value)
    return examined(data, port_offset=0)


def found(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def changed(patient: Patient, **variables: str) -> Patient:
    return Patient(patient.data, dict(patient.user) | variables, dict(patient.variables) | variables, patient.answers)


def test_where_nothing_runs_it_says_so_and_that_the_ports_are_free(patient: Patient) -> None:
    assert found(processes.processes(patient))["processes"].outcome == "warn"
    assert found(places.ports(patient))["ports"].outcome == "ok"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        finding = found(places.ports(changed(patient, COUNTERFOIL_GRAPH_LISTEN=address)))["ports"]
    assert finding.outcome == "fail"
    assert "COUNTERFOIL_GRAPH_LISTEN" in finding.told


def test_a_setting_that_nothing_reads_and_a_value_that_cannot_be_are_named(patient: Patient) -> None:
    assert found(programs.settings(patient)) == {
        "settings": programs.ok("settings", "every one is read, and every value can be")
    }
    wrong = changed(patient, COUNTERFOIL_GRAPF_LISTEN="x", COUNTERFOIL_INGEST_QUERIES_AT_ONCE="none")
    told = found(programs.settings(wrong))
    assert "COUNTERFOIL_GRAPF_LISTEN" in told["settings"].told
    assert told["settings ingest"].outcome == "fail"
    assert "queries_at_once" in told["settings ingest"].told


def test_keys_that_others_can_read_or_that_do_not_fit_are_named(patient: Patient) -> None:
    assert [each.outcome for each in places.keys(patient)] == ["ok"]
    keys = patient.data / "keys"
    (keys / "graph.pem").chmod(0o644)
    shutil.copy(keys / "trusted" / "graph.pem", keys / "trusted" / "models.pem")
    (keys / "ingest.pem").write_text("no key")
    (keys / "contracts.pem").unlink()
    told = found(places.keys(patient))
    assert (told["key graph"].outcome, told["key models"].outcome, told["key ingest"].outcome) == ("fail",) * 3
    assert told["key contracts"].outcome == "warn"
    assert "key gateway" not in told


def test_a_database_of_another_revision_or_that_is_none_is_named(patient: Patient) -> None:
    assert {each.outcome for each in places.databases(patient)} == {"warn"}  # none is there yet
    for service in ("contracts", "graph", "models"):
        migrate.upgrade(f"sqlite:///{patient.data / service}.db", f"counterfoil_{service}")
    (patient.data / "ingest.db").write_text("no database, but long enough to be read as one" * 50)
    for service, revision in (("graph", "0000"), ("models", "9999")):
        with closing(sqlite3.connect(patient.data / f"{service}.db")) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
            connection.commit()
    told = found(places.databases(patient))
    assert told["database contracts"].outcome == "ok"
    assert told["database ingest"].outcome == "fail"
    assert told["database models"].outcome == "fail"
    assert "newer" in told["database models"].told


def test_a_postgresql_that_is_not_migrated_or_not_there_is_named(patient: Patient, postgres: Server) -> None:
    server = changed(patient, COUNTERFOIL_DATABASE_URL=postgres.url)
    told = found(places.databases(server))
    assert told["database graph"].outcome == "fail"
    assert "migrate" in told["database graph"].remedy
    nobody = changed(patient, COUNTERFOIL_DATABASE_URL="postgresql://u:hidden-canary@127.0.0.1:9")
    told = found(places.databases(nobody))
    assert told["database graph"].outcome == "fail"
    assert "hidden-canary" not in told["database graph"].told


def test_certificates_that_end_soon_or_do_not_name_their_service_are_named(patient: Patient, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for service in SERVICES:
        authority.issue(service, ["other" if service == "graph" else service], days=5 if service == "ingest" else 90)
    authority.issue("models", ["models"], days=-0.5)
    told = found(
        places.certificates(
            changed(
                patient,
                COUNTERFOIL_TLS_CERT_FILE=str(tmp_path / "{service}.crt"),
                COUNTERFOIL_TLS_KEY_FILE=str(tmp_path / "{service}.key"),
                COUNTERFOIL_TLS_CA_FILE=str(authority.file),
            )
        )
    )
    outcomes = {name.removeprefix("certificate "): finding.outcome for name, finding in told.items()}
    assert outcomes == {
        "gateway": "ok",
        "models": "fail",
        "graph": "fail",
        "ingest": "warn",
        "contracts": "ok",
        "governance": "ok",
    }


SECRETS = st.one_of(
    st.builds("cfk_{}".format, st.text("abcXYZ019_-", min_size=20, max_size=50)),
    st.builds(
        "canary{}@{}.example".format, st.text("abcXYZ019.", min_size=3, max_size=20), st.text("abcxyz", min_size=3)
    ),
    st.builds("postgresql://canary{}:canary{}@host".format, *[st.text("abcXYZ019", min_size=6, max_size=12)] * 2),
)


@settings(max_examples=50)
@given(secret=SECRETS, before=st.text(max_size=20), key=st.text(max_size=10))
def test_whatever_a_log_line_holds_of_a_caller_s_is_not_in_the_bundle(secret: str, before: str, key: str) -> None:
    ours = {"time": "t", "logger": "counterfoil_ingest.lake", "event": "lake round failed", "reason": secret}
    theirs = {"time": "t", "logger": "asyncio", "event": f"{before} {secret}", key or "k": [secret]}
    error = {
        **ours,
        "error": f'  File "/a/b/c.py", line 1, in f\n    raise ValueError("{secret}")\nValueError: {secret}',
    }
    lines = [json.dumps(each) for each in (ours, theirs, error)] + [f"{before}{secret}"]
    kept = redaction.scrubbed("\n".join(redaction.log_lines(lines)))
    for part in (secret, secret.partition("@")[0].rpartition("://")[2]):
        assert part not in kept
    assert "lake round failed" in kept


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_a_setting_s_text_is_shown_only_where_its_name_says_that_it_is_harmless(text: str) -> None:
    for name in ("bootstrap_key_sha256", "trusted_proxies", "image_digest", "anything_new"):
        assert redaction.shown_setting(name, text, data=Path("/data")) in ("", redaction.OMITTED)
