"""One installation that a real Prometheus scrapes and whose traces go to a real Jaeger, where these are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.ports import free_port
from tests.system.installation import Installation, until

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "observability"
CACHE = Path(os.environ.get("CONTAINER_CACHE", Path.home() / ".cache" / "counterfoil-containers"))
JAEGER = CACHE / "bin" / "jaeger"
NO_JAEGER = "Jaeger is not built: tools/containers/build-jaeger.sh"
NO_PROMETHEUS = "prometheus is not installed (Debian's package prometheus)"


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    return [free_port() for _ in range(count)]


@contextmanager
def running(command: list[str | Path], output: Path, *, ready: str, **settings: str) -> Iterator[None]:
    """Run a server while the block does; it begins when `ready` answers 200."""
    with output.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=os.environ | settings)

    def answers() -> bool | None:
        assert process.poll() is None, output.read_text(errors="replace")
        try:
            return httpx.get(ready, timeout=2, trust_env=False).status_code == 200 or None
        except httpx.TransportError:
            return None

    try:
        until(answers, seconds=60, what=f"{command[0]} is not ready: {output}")
        yield
    finally:
        process.kill()  # what it has is of no use to anybody, and Jaeger takes ten seconds to say goodbye
        process.wait()


@dataclass
class Jaeger:
    """A running Jaeger v2 with our configuration: its doors by their usual ports."""

    ports: Mapping[int, int] = field(default_factory=dict)

    def get(self, path: str, *, door: int = 16686, **query: Any) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.ports[door]}{path}", params=query, timeout=10, trust_env=False)


@pytest.fixture(scope="session")
def jaeger_if_built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger | None]:
    """The real Jaeger, from observability/jaeger.yaml with other ports; None where it was not built."""
    if not JAEGER.is_file():
        yield None
        return
    folder = tmp_path_factory.mktemp("jaeger")
    usual = (4317, 4318, 8888, 8889, 13133, 16685, 16686)
    ports = dict(zip(usual, free_ports(len(usual)), strict=True))
    text = (FOLDER / "jaeger.yaml").read_text()
    for port in usual:
        assert str(port) in text
        text = text.replace(str(port), str(ports[port]))
    assert "interval: 15s" in text
    (folder / "config.yaml").write_text(text.replace("interval: 15s", "interval: 1s"))
    ready = f"http://127.0.0.1:{ports[13133]}/status"
    with running(
        [JAEGER, f"--config={folder / 'config.yaml'}"], folder / "log", ready=ready, JAEGER_LISTEN_HOST="127.0.0.1"
    ):
        yield Jaeger(ports)


@pytest.fixture(scope="session")
def jaeger(jaeger_if_built: Jaeger | None) -> Jaeger:
    if jaeger_if_built is None:
        pytest.skip(NO_JAEGER)
    return jaeger_if_built


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory, jaeger_if_built: Jaeger | None) -> Iterator[Installation]:
    """A whole installation; without a Jaeger its traces go to its own sink."""
    settings = {}
    if jaeger_if_built is not None:
        settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{jaeger_if_built.ports[4317]}"
    with Installation.running(tmp_path_factory.mktemp("watched") / "data", settings=settings) as started:
        yield started
        assert started.stop() == 0, started.output.read_text(errors="replace")


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus that scrapes an installation by our configuration and evaluates our rules, every second."""

    url: str

    def ask(self, path: str, **query: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=query, timeout=30, trust_env=False).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression gives now, without what is no number."""
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return [each for each in result if each["value"][1] != "NaN"]


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory, watched: Installation) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip(NO_PROMETHEUS)
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(_scraping(watched, folder))
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, folder / "log", ready=f"{url}/-/ready"):
        yield Prometheus(url)


def _scraping(watched: Installation, folder: Path) -> str:
    """Return observability/prometheus.yml with the installation's addresses and every interval a second."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["scrape_configs"] = [each for each in config["scrape_configs"] if each["job_name"] == "counterfoil"]
    for group in config["scrape_configs"][0]["static_configs"]:
        ports = [int(target.rpartition(":")[2]) for target in group["targets"]]
        group["targets"] = [f"127.0.0.1:{port + watched.offset}" for port in ports]
    [pattern] = config["rule_files"]
    for file in sorted(FOLDER.glob(pattern)):
        rules = yaml.safe_load(file.read_text())
        for group in rules["groups"]:
            group["interval"] = "1s"
        (folder / file.name).write_text(yaml.safe_dump(rules))
    config["rule_files"] = [str(folder / "*.yaml")]
    return yaml.safe_dump(config)
