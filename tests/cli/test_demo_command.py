"""`counterfoil demo`: a script of one's own is run beside a whole Counterfoil, and its end decides."""

import subprocess
from pathlib import Path

import pytest

from tests.cli.running import COMMAND, clean_environment, free_listens

SCRIPT = """
import os
import sys
from counterfoil_cli.client import ApiProblem, Client

with Client(os.environ["COUNTERFOIL_URL"], os.environ["COUNTERFOIL_API_KEY"]) as api:
    print("datasets:", [found["dataset"] for found in api.pages("/v1/datasets", "datasets")])
    try:
        api.get("/v1/models/none")
    except ApiProblem as problem:
        print("problem:", problem.status, problem.reason, len(problem.trace_id))
print("traces:", os.environ["COUNTERFOIL_TRACES_URL"])
print("main:", __name__, sys.argv[0].endswith("demo.py"))
sys.exit({code})
"""


@pytest.mark.parametrize(("arguments", "code"), [((), 3), (("--exit",), 0)])
def test_the_script_gets_address_and_key_and_its_exit_code_is_the_commands(
    tmp_path: Path, arguments: tuple[str, ...], code: int
):
    script = tmp_path / "examples" / "complete_journey" / "demo.py"
    script.parent.mkdir(parents=True)
    script.write_text(SCRIPT.replace("{code}", str(code)))
    (tmp_path / "deeper").mkdir()
    listens = free_listens()
    result = subprocess.run(
        [COMMAND, "demo", *arguments, "--data", tmp_path / "data"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path / "deeper",
        env=clean_environment() | listens,
    )
    assert result.returncode == code, result
    assert "datasets: ['events'" in result.stdout or "datasets: []" in result.stdout
    assert "problem: 404 MODEL_NOT_FOUND 32" in result.stdout
    assert f"traces: http://{listens['COUNTERFOIL_TRACES_LISTEN']}" in result.stdout
    assert "main: __main__ True" in result.stdout
