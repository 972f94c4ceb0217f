"""The installations whose manifests are judged: both overlays, and production with what it leaves to choose."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.k8s.installation import Installation
from tools import manifests

CHOSEN = {
    "dev": "overlays/dev",
    "prod": "overlays/prod",
    "prod with keda and tls": "chosen",
}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Installation]:
    if reason := manifests.why_not():
        pytest.skip(reason)
    copy = manifests.copied(tmp_path_factory.mktemp("manifests"))
    (copy / "chosen").mkdir()
    made = {"resources": ["../overlays/prod"], "components": ["../components/keda", "../components/tls"]}
    (copy / "chosen" / "kustomization.yaml").write_text(yaml.safe_dump(made))
    return {name: Installation(manifests.render(copy / Path(folder))) for name, folder in CHOSEN.items()}


@pytest.fixture(params=CHOSEN)
def installation(request: pytest.FixtureRequest, rendered: dict[str, Installation]) -> Installation:
    return rendered[request.param]
