from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.logs import JsonFormatter
from counterfoil_chassis.startup import read_settings
from pydantic import ValidationError

from tests.chassis.probe import ProbeSettings


def test_defaults_follow_the_data_folder_and_the_services_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERFOIL_DATA_DIR", "/somewhere")
    settings = ProbeSettings()
    assert settings.data_dir == Path("/somewhere")
    assert settings.private_key_file == Path("/somewhere/keys/probe.pem")
    assert settings.trusted_keys_dir == Path("/somewhere/keys/trusted")
    assert settings.database_url == "sqlite+aiosqlite:////somewhere/probe.db"


def test_the_environment_overrides_and_arguments_override_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COUNTERFOIL_DATA_DIR", "/somewhere")
    monkeypatch.setenv("COUNTERFOIL_PROBE_LISTEN", "0.0.0.0:9")
    monkeypatch.setenv("COUNTERFOIL_PROBE_DATABASE_URL", "postgresql+asyncpg://db/x")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    settings = ProbeSettings(data_dir=tmp_path)
    assert (settings.listen, settings.data_dir) == ("0.0.0.0:9", tmp_path)
    assert settings.database_url == "postgresql+asyncpg://db/x"
    assert settings.otlp_endpoint == "http://collector:4317"
    with pytest.raises(ValidationError):
        settings.listen = "elsewhere"  # type: ignore[misc]  # frozen


def test_a_log_line_has_fixed_fields_extra_fields_and_the_traceback() -> None:
    logger = logging.getLogger("probe")
    try:
        raise ValueError("no paper")
    except ValueError:
        record = logger.makeRecord(
            "probe",
            logging.ERROR,
            "f.py",
            1,
            "printing %s",
            ("failed",),
            sys.exc_info(),
            extra={"page": 7, "p": Path("x")},
        )
    line = json.loads(JsonFormatter("models").format(record))
    assert (line["level"], line["service"], line["event"]) == ("ERROR", "models", "printing failed")
    assert (line["page"], line["logger"]) == (7, "probe")
    assert "no paper" in line["error"]


def test_importing_the_chassis_starts_no_thread_and_no_loop() -> None:
    program = (
        "import threading, asyncio, importlib, pkgutil, counterfoil_chassis as c\n"
        "for m in pkgutil.iter_modules(c.__path__):\n"
        "    m.name == 'migrations' or importlib.import_module('counterfoil_chassis.' + m.name)\n"
        "import os\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert len(os.listdir('/proc/self/task')) == 1, os.listdir('/proc/self/task')\n"
        "from opentelemetry import trace\n"
        "assert type(trace.get_tracer_provider()).__name__ == 'ProxyTracerProvider'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_one_server_gives_each_service_a_database_and_its_own_setting_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", "postgresql://me:s%40crt@db:5432?sslmode=require")
    assert ProbeSettings().database_url == "postgresql://me:s%40crt@db:5432/counterfoil_probe?sslmode=require"
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", "postgresql://db/acme")
    assert ProbeSettings().database_url == "postgresql://db/acme_probe"
    monkeypatch.setenv("COUNTERFOIL_PROBE_DATABASE_URL", "postgresql://elsewhere/own")
    assert ProbeSettings().database_url == "postgresql://elsewhere/own"


@pytest.fixture
def secrets_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of settings by file as Kubernetes mounts a secret: names are links into a folder that is exchanged."""
    folder, content = tmp_path / "secrets", tmp_path / "secrets" / "..2026_01"
    content.mkdir(parents=True)
    (folder / "..data").symlink_to(content.name)
    for name, text in {
        "counterfoil_database_url": "postgresql://me:s%40crt@db:5432\n",
        "counterfoil_probe_listen": "0.0.0.0:9",
        "otel_exporter_otlp_endpoint": "http://collector:4317\r\n",
        "private_key.pem": "no setting",
    }.items():
        (content / name).write_text(text)
        (folder / name).symlink_to(f"..data/{name}")
    monkeypatch.setenv("COUNTERFOIL_SECRETS_DIR", str(folder))
    return folder


@pytest.mark.usefixtures("secrets_dir")
def test_settings_by_file_count_where_the_environment_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ProbeSettings()
    assert settings.database_url == "postgresql://me:s%40crt@db:5432/counterfoil_probe"
    assert (settings.listen, settings.otlp_endpoint) == ("0.0.0.0:9", "http://collector:4317")
    monkeypatch.setenv("COUNTERFOIL_PROBE_LISTEN", "0.0.0.0:10")
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", "")
    assert ProbeSettings().listen == "0.0.0.0:10"
    assert ProbeSettings().database_url.startswith("sqlite")


def test_a_folder_or_file_of_settings_that_cannot_be_read_is_one_line_without_values(
    secrets_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets_dir / "counterfoil_trace_ratio").write_bytes(b"\xffhunter2")
    with pytest.raises(StartError, match="UTF-8") as binary:
        read_settings(ProbeSettings)
    (secrets_dir / "counterfoil_trace_ratio").write_text("hunter2")
    with pytest.raises(StartError, match="COUNTERFOIL_TRACE_RATIO is wrong") as wrong:
        read_settings(ProbeSettings)
    (secrets_dir / "counterfoil_trace_ratio").unlink()
    (secrets_dir / "counterfoil_trace_ratio").mkdir()
    with pytest.raises(StartError, match=r"counterfoil_trace_ratio of COUNTERFOIL_SECRETS_DIR .* directory") as folder:
        read_settings(ProbeSettings)
    monkeypatch.setenv("COUNTERFOIL_SECRETS_DIR", str(secrets_dir / "none"))
    with pytest.raises(StartError, match="none of COUNTERFOIL_SECRETS_DIR cannot be read: No such file"):
        read_settings(ProbeSettings)
    assert not any("hunter2" in str(each.value) for each in (binary, wrong, folder))


@pytest.mark.parametrize(
    "url", ["postgresql://me:hun/ter2@db:5432", "postgresql://me:hun#ter2@db", "mysql://db/hunter2"]
)
def test_a_database_url_that_cannot_be_meant_is_told_without_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", url)
    with pytest.raises(StartError, match="%2F") as failure:
        read_settings(ProbeSettings)
    assert "hun" not in str(failure.value)
