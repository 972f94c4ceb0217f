"""Tests of the containers: they run inside `tools/containers/sandbox.sh` alone, by `make test-containers`."""

import os
from pathlib import Path

import pytest

INSIDE = os.environ.get("CONTAINER_SANDBOX") == "1"
"""Whether `sandbox.sh` runs us: podman and ports are then our own, and go with it."""

AT_LENGTH = os.environ.get("CONTAINERS_AT_LENGTH") == "1"
"""Whether the tests that take minutes run, too."""

WHY = "containers are run inside a sandbox: `make test-containers`"
WHY_NOT_NOW = "takes its time: `make test-containers ARGS=--all`"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"at_length: {WHY_NOT_NOW}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            if not INSIDE:
                item.add_marker(pytest.mark.skip(WHY))
            elif item.get_closest_marker("at_length") and not AT_LENGTH:
                item.add_marker(pytest.mark.skip(WHY_NOT_NOW))
