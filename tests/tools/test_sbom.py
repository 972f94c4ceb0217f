"""The bills of materials say what the locks say."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tools.sbom import IMAGES, bill

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(
    r"^(?P<name>[a-z0-9.-]+)==(?P<version>\S+)(?P<marker> ;[^\\]*)? \\$((?:\n    --hash=\S+(?: \\)?)+)", re.MULTILINE
)
# What a lock for every platform holds and an image of Python 3.11 on Linux does not.
ELSEWHERE = {"python_full_version >= '3.12'", "sys_platform == 'emscripten' or sys_platform == 'win32'"}


@cache
def made(image: str) -> dict[str, Any]:
    return bill(image)


def locked(image: str) -> dict[str, set[str]]:
    """Return `name==version` of what the lock pins for the image's platform, with its hashes."""
    return {
        f"{found['name']}=={found['version']}": set(re.findall("sha256:([0-9a-f]{64})", found[4]))
        for found in PINNED.finditer((ROOT / "locks" / f"{image}.txt").read_text())
        if (found["marker"] or "").removeprefix(" ;").strip() not in ELSEWHERE
    }


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_holds_exactly_the_locks_packages_with_their_hashes(image: str) -> None:
    listed = {
        f"{each['name']}=={each['version']}": {
            digest["content"] for link in each["externalReferences"] for digest in link["hashes"]
        }
        for each in made(image)["components"]
        if not each["name"].startswith("counterfoil-")
    }
    assert len(listed) > 30
    assert listed == locked(image)


def test_states_a_licence_of_every_component_and_none_that_is_not_known(image: str) -> None:
    for each in made(image)["components"]:
        [entry] = each["licenses"]
        stated = entry["license"].get("id") or entry["license"]["name"]
        assert stated not in {"", "UNKNOWN", "not stated"}, each["name"]
        assert not re.search(r"\bA?GPL", stated), each["name"]


def test_names_the_image_as_the_root_which_depends_on_everything(image: str) -> None:
    root = made(image)["metadata"]["component"]
    assert (root["type"], root["name"]) == ("container", f"counterfoil/{image}")
    first, *_ = made(image)["dependencies"]
    assert first["ref"] == root["bom-ref"]
    assert set(first["dependsOn"]) == {each["bom-ref"] for each in made(image)["components"]}
    own = {each["name"] for each in made(image)["components"] if each["name"].startswith("counterfoil-")}
    assert own == {"counterfoil-protos", "counterfoil-chassis", f"counterfoil-{Path(IMAGES[image]).name}"}


def test_is_valid_and_names_no_index() -> None:
    text = json.dumps(made("governance"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    told = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "requirements", "--help"], capture_output=True, text=True, check=True
    )
    [public] = re.findall(r"https?://[^/\s]+/simple", told.stdout)  # whatever this machine is set up with
    assert set(re.findall(r"https?://[^/\"]+/simple", text)) == {public}


def test_is_the_same_each_time() -> None:
    assert bill("governance") == made("governance")
