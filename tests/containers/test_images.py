"""Each image from inside: who runs it, what it holds and may write, how it begins and ends.

`tools/containers/run-all.sh` runs this in a sandbox. Everything is asked with a read-only root, no capability, no
network, and with nothing in the shells' place.
"""

import json
import re
import subprocess
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from counterfoil_chassis.revisions import newest, stored

from tests.system.installation import COMMAND, until
from tools.containers.kube import podman
from tools.sbom import IMAGES, bill

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("governance", "contracts", "ingest", "graph", "models")
PROCESSES = (*SERVICES, "gateway")
USER = 10001
DATA = "/var/lib/counterfoil"
START_SECONDS = 180.0
DRAIN_SECONDS = 30
"""What Kubernetes grants a pod; a process that needs it all is killed."""
CONTAINED = (
    "--pull=never", "--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:mode=1777", "--network=none",
    "--cap-drop=ALL", "--security-opt=no-new-privileges",
    "--volume=/dev/null:/usr/bin/dash:ro", "--volume=/dev/null:/usr/bin/bash:ro",
)  # fmt: skip
# Asked of the interpreter of the image; what may be written is tried, as anybody else would.
QUESTIONS = """
import glob, importlib.metadata, importlib.util, json, os, re, shutil, sys

def writable(folder):
    try:
        with open(folder + "/probe", "w"):
            return True
    except OSError:
        return False

print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "groups": os.getgroups(),
    "modules": [name for name in json.loads(sys.argv[1]) if importlib.util.find_spec(name)],
    "commands": [name for name in json.loads(sys.argv[2]) if shutil.which(name)],
    "installed": sorted(
        re.sub("[-_.]+", "-", each.name).lower() + "==" + each.version for each in importlib.metadata.distributions()
    ),
    "written": [folder for folder in json.loads(sys.argv[3]) if writable(folder)],
    "owned": [
        path for top in ("/opt", "/usr", "/etc") for path, _, _ in os.walk(top) if os.stat(path).st_uid == os.getuid()
    ],
    "uncompiled": [
        path for path in glob.glob("/opt/counterfoil/counterfoil_*/**/*.py", recursive=True)
        if not os.path.exists(importlib.util.cache_from_source(path))
    ],
}))
"""
# Asked as root, for whom alone they would be kept; a mount point of the build may stay, empty.
LEFT_BEHIND = """
import json, os
folders = (os.path.expanduser("~/.cache"), "/wheels", "/build")
print(json.dumps([folder for folder in folders if os.path.isdir(folder) and os.listdir(folder)]))
"""
MODULES = (
    "counterfoil_governance", "counterfoil_contracts", "counterfoil_ingest", "counterfoil_graph", "counterfoil_models",
    "counterfoil_gateway", "counterfoil_cli", "counterfoil_chassis", "pip", "ensurepip", "setuptools", "uv_build",
)  # fmt: skip
COMMANDS = ("python", "counterfoil", "pip", "pip3", "uv", "gcc", "cc", "make", "git", "curl")
FOLDERS = ("/", "/opt", "/opt/venv", "/usr/local/bin", "/etc", "/run", "/tmp", DATA)


def tag(image: str) -> str:
    return f"docker.io/counterfoil/{image}:dev"


@dataclass(frozen=True)
class Image:
    """An image, what it is configured to be and what was found in it."""

    name: str
    config: dict[str, Any]
    found: dict[str, Any]


@pytest.fixture(scope="module", params=IMAGES)
def image(request: pytest.FixtureRequest) -> Image:
    name = request.param
    asked = [json.dumps(each) for each in (MODULES, COMMANDS, FOLDERS)]
    options = ("run", "--rm", *CONTAINED, "--volume", DATA, "--entrypoint", "python")
    found = podman(*options, tag(name), "-c", QUESTIONS, *asked, seconds=120)
    as_root = ("run", "--rm", *CONTAINED, "--user=0", "--entrypoint", "python")
    left = json.loads(podman(*as_root, tag(name), "-c", LEFT_BEHIND, seconds=120))
    [config] = json.loads(podman("image", "inspect", tag(name)))
    return Image(name, config["Config"], json.loads(found) | {"left_behind": left})


def package(name: str) -> str:
    return f"counterfoil_{Path(IMAGES[name]).name}"


def test_runs_as_nobody_in_particular(image: Image) -> None:
    assert image.config["User"] == f"{USER}:{USER}"  # by number, or runAsNonRoot cannot know
    assert image.found["user"] == [USER, USER]
    assert set(image.found["groups"]) <= {USER}


def test_holds_one_member_and_nothing_that_installs_or_builds(image: Image) -> None:
    assert set(image.found["modules"]) == {package(image.name), "counterfoil_chassis"}
    command_line = {"counterfoil"} if package(image.name) == "counterfoil_cli" else set()
    assert set(image.found["commands"]) == {"python"} | command_line
    assert image.found["left_behind"] == []


def test_holds_what_its_bill_of_materials_says(image: Image) -> None:
    told = {f"{re.sub('[-_.]+', '-', each['name'])}=={each['version']}" for each in bill(image.name)["components"]}
    assert set(image.found["installed"]) == told


def test_writes_its_data_and_temporary_files_alone(image: Image) -> None:
    assert image.found["written"] == ["/tmp", DATA]
    assert image.found["owned"] == []
    assert image.found["uncompiled"] == []  # or every start compiles it again, for it cannot be kept


def test_says_what_it_is(image: Image) -> None:
    project = tomllib.loads((ROOT / IMAGES[image.name] / "pyproject.toml").read_text())["project"]
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in image.config["Labels"].items()
        if key.startswith("org.opencontainers.image.")
    }
    assert labels["title"] == f"counterfoil-{image.name}"
    assert labels["version"] == project["version"]
    assert labels["licenses"] == project["license"]
    assert re.fullmatch("[0-9a-f]{40}", labels["revision"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", labels["created"])
    assert labels["description"]
    assert labels["source"].startswith("https://")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run([COMMAND, "secrets", folder], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", folder], check=True)
    return folder


@pytest.fixture
def options(request: pytest.FixtureRequest, keys: Path) -> tuple[str, ...]:
    """Return what a process gets beside its image: its key, those of all, a volume of its own."""
    name = request.getfixturevalue("name")
    return (
        *CONTAINED, "--volume", f"data-{name}:{DATA}", "--volume", f"{keys / 'trusted'}:/etc/counterfoil/trusted:ro",
        "--volume", f"{keys / name}:/run/secrets/counterfoil:ro",
        "--env", "COUNTERFOIL_TRUSTED_KEYS_DIR=/etc/counterfoil/trusted",
        "--env", f"COUNTERFOIL_{name.upper()}_PRIVATE_KEY_FILE=/run/secrets/counterfoil/private_key.pem",
    )  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_migrates_its_own_file(name: str, options: tuple[str, ...]) -> None:
    podman("run", "--rm", *options, tag(name), "migrate", seconds=START_SECONDS)
    file = Path(podman("volume", "inspect", f"data-{name}", "--format", "{{.Mountpoint}}")) / f"{name}.db"
    assert file.stat().st_uid == USER
    assert stored(file) == newest(ROOT / IMAGES[name] / f"counterfoil_{name}" / "migrations") != set()


@pytest.fixture
def container(name: str, options: tuple[str, ...]) -> Iterator[str]:
    """A process that serves, as far as it can without the others."""
    identifier = podman("run", "--detach", *options, tag(name))
    try:
        until(lambda: started(identifier), seconds=START_SECONDS, what=f"{name} did not start")
        yield identifier
    finally:
        podman("rm", "--force", "--time", "0", identifier)


def started(identifier: str) -> bool | None:
    if not state(identifier)["Running"]:
        pytest.fail(f"it ended: {logs(identifier)}")
    command = ["podman", "exec", identifier, "python", "-m", "counterfoil_chassis.probe", "startup"]
    return True if subprocess.run(command, check=False, capture_output=True).returncode == 0 else None


def state(identifier: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(podman("inspect", identifier))[0]["State"]
    return found


def logs(identifier: str) -> str:
    done = subprocess.run(["podman", "logs", identifier], check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", PROCESSES)
def test_begins_without_a_shell_and_ends_when_told_to(name: str, container: str) -> None:
    command = podman("exec", container, "python", "-c", "print(open('/proc/1/cmdline').read().split(chr(0))[:3])")
    assert command == str(
        ["python", "-m", f"counterfoil_{name}"]
    )  # it is process 1 itself: nothing between it and SIGTERM
    began = time.monotonic()
    podman("stop", "--time", str(DRAIN_SECONDS), container, seconds=DRAIN_SECONDS + 60)
    assert state(container)["ExitCode"] == 0, logs(container)  # 137 when it had to be killed
    assert time.monotonic() - began < DRAIN_SECONDS


@pytest.mark.parametrize(("name", "said"), [("cli", "counterfoil, version 0.1.0"), ("demo", "Usage: ")])
def test_the_command_line_answers(name: str, said: str) -> None:
    argument = "--version" if name == "cli" else "--help"
    assert podman("run", "--rm", *CONTAINED, "--volume", DATA, tag(name), argument).startswith(said)


def test_the_command_line_makes_secrets_in_fresh_volumes() -> None:
    volumes = [
        part for name in (*PROCESSES, "trusted", "admin", "postgres") for part in ("-v", f"s-{name}:/secrets/{name}")
    ]
    told = podman("run", "--rm", *CONTAINED, *volumes, tag("cli"), "secrets", "/secrets")
    assert "made admin/admin.key" in told
