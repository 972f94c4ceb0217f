"""Tests of the containers: they run inside `tools/containers/sandbox.sh` alone, by `make test-containers`."""

import os
from pathlib import Path

import pytest

INSIDE = os.environ.get("CONTAINER_SANDBOX") == "1"
"""Whether `sandbox.sh` runs us: podman and ports are then our own, and go with it."""

WHY = "containers are run inside a sandbox: `make test-containers`"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if INSIDE:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(WHY))
