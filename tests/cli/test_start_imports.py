"""What a start loads: what all processes share in the parent, and in each process nothing that only its work needs."""

import subprocess
import sys

import pytest
from counterfoil_cli.launcher import SERVICES

COSTLY = ("scipy", "pandas", "sktime", "statsmodels", "sklearn", "plotly", "alembic", "polars")
"""Each takes as long to load as a service to start."""


def loaded(program: str) -> set[str]:
    tell = f"\nimport sys\nprint(*(set({COSTLY!r}) | {{'fastapi', 'numpy', 'sqlalchemy'}}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program + tell], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_without_what_only_its_work_needs(service: str) -> None:
    assert not loaded(f"import counterfoil_{service}.__main__") & set(COSTLY)


@pytest.mark.parametrize("service", ["governance", "contracts", "graph", "gateway"])
def test_arrow_is_loaded_where_tables_are_kept_or_computed(service: str) -> None:
    assert "numpy" not in loaded(f"import counterfoil_{service}.__main__")


def test_the_parent_loads_what_all_share_and_alembic_only_to_upgrade() -> None:
    program = "from counterfoil_cli.launcher import _import_shared_libraries, UPGRADING_LIBRARIES as more\n"
    assert loaded(program + "_import_shared_libraries()") == {"sqlalchemy"}
    assert loaded(program + "_import_shared_libraries(more)") == {"sqlalchemy", "alembic"}
