"""The program itself: Python, the packages against the locks, and the settings by name and value."""

import importlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from counterfoil_chassis.errors import StartError
from counterfoil_chassis.settings import ServiceSettings
from pydantic import ValidationError

from counterfoil_cli.doctor.findings import SERVICES, Finding, Patient, fail, ok, warn
from counterfoil_cli.env import BOOTSTRAP_KEY

OLDEST, NEWEST = (3, 11), (3, 13)
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)(?:\s*;\s*([^\\]+))?", re.MULTILINE)
_OF_TOOLS = frozenset(
    {
        "COUNTERFOIL_URL",
        "COUNTERFOIL_API_KEY",
        "COUNTERFOIL_CA_FILE",
        "COUNTERFOIL_DATA_DIR",
        "COUNTERFOIL_TRACES_URL",
        BOOTSTRAP_KEY,
    }
)
"""Variables that commands and examples read."""


def python() -> Iterator[Finding]:
    """Look at the release of Python."""
    found = sys.version_info[:2]
    told = sys.version.split()[0]
    if OLDEST <= found <= NEWEST:
        yield ok("python", told)
    else:
        yield fail(
            "python", told, "Counterfoil needs Python 3.11, 3.12 or 3.13: `make PYTHON=/path/to/python3.11 setup`"
        )


def packages() -> Iterator[Finding]:
    """Look whether the installed packages are those of the locks, which a repository has beside this package."""
    locks = Path(__file__).resolve().parents[3] / "locks" / "all.txt"
    own = {name: importlib.metadata.version(name) for name in ("counterfoil-chassis", "counterfoil-cli")}
    if len(set(own.values())) > 1:
        yield fail("packages", f"Counterfoil's own differ in release: {own}", "install all of one release")
    if not locks.is_file():
        yield ok("packages", f"counterfoil {own['counterfoil-cli']}; no locks here to compare with")
        return
    pins = {name.lower(): version for name, version, marker in _PIN.findall(locks.read_text()) if not marker}
    missing, other = [], []
    for name, version in pins.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if found != version:
            other.append(f"{name} {found} instead of {version}")
    remedy = "`make setup` installs what the locks say"
    if missing:
        yield fail("packages", f"{len(missing)} are not installed: {', '.join(missing[:5])}", remedy)
    elif other:
        yield warn("packages", f"{len(other)} are not as locked: {', '.join(other[:5])}", remedy)
    else:
        yield ok("packages", f"all {len(pins)} as the locks say")


def settings_of(service: str, patient: Patient) -> ServiceSettings:
    """Return a service's settings as its process sees them; raise StartError for one that is wrong."""
    kind: type[ServiceSettings] = importlib.import_module(f"counterfoil_{service}.settings").Settings
    prefix = str(kind.model_config.get("env_prefix", ""))
    given: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        variable = str(field.validation_alias or f"{prefix}{name}".upper())
        if variable in patient.variables:
            given[variable if field.validation_alias else name] = patient.variables[variable]
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StartError(f"{place}: {first['msg']}") from None


def known_variables() -> set[str]:
    """Return every variable that something here reads."""
    known = set(_OF_TOOLS)
    for service in SERVICES:
        kind: type[ServiceSettings] = importlib.import_module(f"counterfoil_{service}.settings").Settings
        prefix = str(kind.model_config.get("env_prefix", ""))
        known |= {str(field.validation_alias or f"{prefix}{name}".upper()) for name, field in kind.model_fields.items()}
        known |= {f"COUNTERFOIL_{service.upper()}_{callee.upper()}_TARGET" for callee in SERVICES}
    traces = importlib.import_module("counterfoil_cli.traces.settings").TracesSettings
    known |= {f"{traces.model_config['env_prefix']}{name}".upper() for name in traces.model_fields}
    return known


def settings(patient: Patient) -> Iterator[Finding]:
    """Look for variables that nothing reads, and for values that cannot be."""
    unread = sorted(name for name in patient.user.keys() - known_variables() if name.startswith("COUNTERFOIL_"))
    if unread:
        remedy = "correct or remove them; docs/reference/settings.md lists every setting"
        yield warn("settings", f"nothing reads {', '.join(unread)}", remedy)
    wrong = False
    for service in SERVICES:
        try:
            settings_of(service, patient)
        except StartError as error:
            wrong = True
            yield fail(f"settings {service}", str(error), "correct it and start again")
    if not unread and not wrong:
        yield ok("settings", "every one is read, and every value can be")
