"""The Dockerfiles are one, but for what a member is called, does and listens to."""

import re
import tomllib
from pathlib import Path

import pytest

from tools.sbom import IMAGES

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = {name: folder for name, folder in IMAGES.items() if name != "demo"}
# What only some have: the ports of a process, the folders that the command line prepares, the command line's own name.
OWN = (
    r"^ENV PATH=(?:.*\\\n)*.*\n",
    r"^EXPOSE .*\n",
    r"^# Fresh volumes .*\nRUN (?:.*\\\n)*.*\n",
    r"^ENTRYPOINT .*\n",
    r"image\.description=.*",
)


def text_of(name: str) -> str:
    return (ROOT / MEMBERS[name] / "Dockerfile").read_text()


def common(name: str) -> str:
    """Return a Dockerfile without what is its member's own."""
    text = text_of(name)
    for own in OWN:
        text = re.sub(own, "", text, flags=re.MULTILINE)
    text = re.sub(rf"{re.escape(MEMBERS[name])}(?=[/ \n])", "FOLDER", text)
    return re.sub(rf"\b{name}\b", "NAME", text).replace("FOLDER", "NAME")


@pytest.mark.parametrize("name", MEMBERS)
def test_differs_from_the_others_in_its_own_alone(name: str) -> None:
    assert common(name) == common("governance")


@pytest.mark.parametrize("name", MEMBERS)
def test_starts_its_member_in_exec_form_at_its_ports(name: str) -> None:
    text = text_of(name)
    module = f"counterfoil_{name}"
    assert f'ENTRYPOINT ["python", "-m", "{module}"]\n' in text or (
        name == "cli" and 'ENTRYPOINT ["counterfoil"]' in text
    )
    listened = set(re.findall(rf"COUNTERFOIL_{name.upper()}_\w*LISTEN=0\.0\.0\.0:(\d+)", text))
    exposed = re.search(r"^EXPOSE (.*)$", text, flags=re.MULTILINE)
    assert listened == set(exposed[1].split() if exposed else [])
    if name != "cli":
        settings = (ROOT / MEMBERS[name] / module / "settings.py").read_text()
        assert listened == set(re.findall(r'listen: str = Field\(default="127\.0\.0\.1:(\d+)"', settings))


@pytest.mark.parametrize("name", MEMBERS)
def test_is_of_this_release(name: str) -> None:
    project = tomllib.loads((ROOT / MEMBERS[name] / "pyproject.toml").read_text())["project"]
    assert f'org.opencontainers.image.version="{project["version"]}"\n' in text_of(name)
