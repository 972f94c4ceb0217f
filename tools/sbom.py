"""Write the software bill of materials of each image, CycloneDX 1.6, to `build/sbom/<image>.cdx.json`.

cyclonedx-py reads the lock the image is built from, hashes included. What it cannot know is added: the image as the
root, our own distributions, and the licences, which the installed packages state. The base image is not part of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.markers import Marker

from tools.docs import licence

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "sbom"
TOOL = Path(sys.executable).with_name("cyclonedx-py")
# Images with the folder of the distribution that each runs.
IMAGES = {name: f"services/{name}" for name in ("governance", "contracts", "ingest", "graph", "models")} | {
    "gateway": "gateway",
    "cli": "cli",
    "demo": "cli",
}
# What the interpreter of the base image says of itself; locks are for every platform, an image is for one.
PLATFORM = {
    "python_version": "3.11",
    "python_full_version": "3.11.0",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
}


def lock_of(image: str) -> str:
    """Return the requirements of the image's lock that its platform installs, one a line, with their hashes."""
    requirements = (ROOT / "locks" / f"{image}.txt").read_text().replace("\\\n", "").splitlines()
    return "".join(f"{line}\n" for line in requirements if _applies(line.partition(" --hash")[0]))


def _applies(requirement: str) -> bool:
    _, _, marker = requirement.partition(";")
    return not marker or Marker(marker.strip()).evaluate(dict(PLATFORM))


def bill(image: str) -> dict[str, Any]:
    """Return the bill of one image."""
    command = [str(TOOL), "requirements", "-", "--sv", "1.6", "--output-reproducible", "--no-validate"]
    written = subprocess.run(command, input=lock_of(image), text=True, check=True, capture_output=True).stdout
    made: dict[str, Any] = json.loads(written)
    for component in made["components"]:
        component["bom-ref"] = component["purl"]
        del component["description"]  # the line of the lock
        component["licenses"] = [{"license": {"name": licence(component["name"])}}]
    folders = ("protos", "chassis", IMAGES[image])
    own = [_own(tomllib.loads((ROOT / each / "pyproject.toml").read_text())["project"]) for each in folders]
    root = own[-1] | {"type": "container", "name": f"counterfoil/{image}", "bom-ref": f"counterfoil/{image}"}
    made["metadata"]["component"] = root
    made["components"] = [*own, *made["components"]]
    refs = [component["bom-ref"] for component in made["components"]]
    made["dependencies"] = [{"ref": root["bom-ref"], "dependsOn": refs}, *({"ref": ref} for ref in refs)]
    return made


def _own(project: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "library",
        "name": project["name"],
        "version": project["version"],
        "bom-ref": f"{project['name']}=={project['version']}",
        "description": project["description"],
        "licenses": [{"license": {"id": project["license"]}}],
    }


def main() -> None:
    """Write the bills of the images named, or of all."""
    OUT.mkdir(parents=True, exist_ok=True)
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for image in sys.argv[1:] or IMAGES:
        made = json.dumps(bill(image), indent=1) + "\n"
        if wrong := validator.validate_str(made):
            sys.exit(f"{image}: {wrong}")
        (OUT / f"{image}.cdx.json").write_text(made)
        print(f"build/sbom/{image}.cdx.json")


if __name__ == "__main__":
    main()
