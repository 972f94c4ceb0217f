"""What a start loads: what all processes share in the parent, and in each process nothing that only its work needs."""

import json
import subprocess
import sys

import pytest
from counterfoil_cli.launcher import SERVICES

COSTLY = ("scipy", "pandas", "sktime", "statsmodels", "sklearn", "plotly", "alembic", "polars")
"""Each takes as long to load as a service to start."""

START = f"""
import importlib, json, os, sys
from counterfoil_cli.launcher import SERVICES, UPGRADING_LIBRARIES, _import_shared_libraries

def after(*modules):
    reading, writing = os.pipe()
    if not (child := os.fork()):
        for module in modules:
            importlib.import_module(module)
        told = {{*{COSTLY!r}, "fastapi", "numpy", "sqlalchemy"}} & set(sys.modules)
        os.write(writing, json.dumps(sorted(told)).encode())
        os._exit(0)
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(os.read(reading, 4096))

_import_shared_libraries()
found = {{name: after(f"counterfoil_{{name}}.__main__") for name in SERVICES}}
print(json.dumps(found | {{"parent": after(), "upgrading": after(*UPGRADING_LIBRARIES)}}))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """What of these each process has loaded, forked as the launcher does it."""
    done = subprocess.run([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True, check=True)
    return {process: set(names) for process, names in json.loads(done.stdout).items()}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_without_what_only_its_work_needs(loaded: dict[str, set[str]], service: str) -> None:
    assert not loaded[service] & set(COSTLY)


@pytest.mark.parametrize("service", ["governance", "contracts", "graph", "gateway"])
def test_arrow_is_loaded_where_tables_are_kept_or_computed(loaded: dict[str, set[str]], service: str) -> None:
    assert "numpy" not in loaded[service]


def test_the_parent_loads_what_all_share_and_alembic_only_to_upgrade(loaded: dict[str, set[str]]) -> None:
    assert loaded["parent"] == {"sqlalchemy"}
    assert loaded["upgrading"] == {"sqlalchemy", "alembic"}
