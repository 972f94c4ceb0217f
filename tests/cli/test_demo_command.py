"""`counterfoil demo`: packs of one's own are run beside a whole Counterfoil, and their end decides."""

import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.running import COMMAND, clean_environment, free_listens

ASKING = """
import os
from counterfoil_cli.client import ApiProblem, Client

def main():
    with Client(os.environ["COUNTERFOIL_URL"], os.environ["COUNTERFOIL_API_KEY"]) as api:
        print("datasets:", [found["dataset"] for found in api.pages("/v1/datasets", "datasets")])
        try:
            api.get("/v1/models/none")
        except ApiProblem as problem:
            print("problem:", problem.status, problem.reason, len(problem.trace_id))
    print("traces:", os.environ["COUNTERFOIL_TRACES_URL"])
    return {code}
"""
ENDING = """
def main():
    print("the second one ran")
    return 4
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two packs, the first of which is still to be written."""
    for pack, text in (("complete_journey", ""), ("harbour_store", ENDING)):
        folder = tmp_path / "examples" / pack
        folder.mkdir(parents=True)
        (folder / "demo.py").write_text(text)
    return tmp_path


def run(repository: Path, *arguments: str, code: int, listens: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder deep inside the repository."""
    (repository / "examples" / "complete_journey" / "demo.py").write_text(ASKING.replace("{code}", str(code)))
    (repository / "deeper").mkdir()
    return subprocess.run(
        [COMMAND, "demo", *arguments, "--data", repository / "data"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=repository / "deeper",
        env=clean_environment() | listens,
    )


def test_a_pack_gets_address_and_key_and_a_failure_ends_all(repository: Path):
    listens = free_listens()
    result = run(repository, code=3, listens=listens)
    assert result.returncode == 3, result
    assert "datasets: ['events'" in result.stdout or "datasets: []" in result.stdout
    assert "problem: 404 MODEL_NOT_FOUND 32" in result.stdout
    assert f"traces: http://{listens['COUNTERFOIL_TRACES_LISTEN']}" in result.stdout
    assert "the second one ran" not in result.stdout


@pytest.mark.parametrize(("arguments", "code", "both"), [((), 4, True), (("--pack", "complete_journey"), 0, False)])
def test_packs_run_one_after_the_other_unless_one_is_named(
    repository: Path, arguments: tuple[str, ...], code: int, both: bool
):
    result = run(repository, "--exit", *arguments, code=0, listens=free_listens())
    assert result.returncode == code, result
    assert ("the second one ran" in result.stdout) is both


def test_runs_against_a_gateway_that_runs_with_the_key_of_the_folder_and_starts_nothing(repository: Path):
    heard: list[tuple[str, str | None]] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append((self.path.partition("?")[0], self.headers["x-api-key"]))
            known = self.path.startswith("/v1/datasets")
            body = (
                b'{"datasets":[{"dataset":"events"}]}'
                if known
                else b'{"reason":"MODEL_NOT_FOUND","trace_id":"' + (b"0" * 32 + b'"}')
            )
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    (repository / "data").mkdir()
    (repository / "data" / "admin.key").write_text("cfk_admin\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        settings = {"COUNTERFOIL_TRACES_URL": "http://traces"}
        result = run(repository, "--url", url, "--pack", "complete_journey", code=5, listens=settings)
        server.shutdown()
    assert result.returncode == 5, result
    assert heard == [("/v1/datasets", "cfk_admin"), ("/v1/models/none", "cfk_admin")]
    assert "problem: 404 MODEL_NOT_FOUND 32" in result.stdout
    assert [file.name for file in (repository / "data").iterdir()] == ["admin.key"]


def test_says_where_the_packs_are_looked_for(tmp_path: Path):
    result = subprocess.run(
        [COMMAND, "demo", "--data", tmp_path / "data"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert "run `counterfoil demo` inside the repository" in result.stderr
    assert not (tmp_path / "data").exists()
