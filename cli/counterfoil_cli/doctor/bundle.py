"""The support bundle: a ZIP archive of what is needed to help, without records, keys and personal data."""

import asyncio
import importlib.metadata
import platform
import sqlite3
import sys
import time
import zipfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson
from counterfoil_chassis.errors import StartError

from counterfoil_cli.backups.databases import Place, connected, places, tables
from counterfoil_cli.doctor.findings import SERVICES, Finding, Patient
from counterfoil_cli.doctor.processes import door_of, get
from counterfoil_cli.doctor.programs import settings_of
from counterfoil_cli.doctor.redaction import log_lines, scrubbed, shown_setting
from counterfoil_cli.supervisor import last_lines

LOG_LINES: Final = 1000
COUNT_SECONDS: Final = 5.0
_ABOUT: Final = """\
A support bundle of Counterfoil. It has: what `counterfoil doctor` found; settings, secrets left out; releases of
packages; each process's health and metrics; the last lines of its log, with the fields alone that hold no caller's
words; counts of tables and sizes of folders. It has no records, keys, tokens, addresses or names of persons.
"""


def write(file: Path, patient: Patient, findings: Sequence[Finding]) -> list[str]:
    """Write the archive and return the names of what is in it; every text is scrubbed on its way."""
    parts: dict[str, str] = {
        "README.txt": _ABOUT,
        "doctor.json": _json([asdict(finding) for finding in findings]),
        "settings.json": _json(_settings(patient)),
        "versions.json": _json(_versions()),
        "tables.json": _json(_tables(patient)),
        "folders.json": _json(_folders(patient.data)),
    }
    for service in SERVICES:
        if answer := patient.answers.get(service):
            parts[f"health/{service}.json"] = _json(answer)
            metrics = get(door_of(service, patient.variables), "/metrics")
            parts[f"metrics/{service}.txt"] = metrics[1].decode() if metrics else ""
    for log in sorted((patient.data / "logs").glob("*.log")):
        parts[f"logs/{log.name}"] = "\n".join(log_lines(last_lines(log, LOG_LINES, longest=None))) + "\n"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, scrubbed(text))
    file.chmod(0o600)
    return list(parts)


def _json(content: Any) -> str:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2, default=str).decode()


def _settings(patient: Patient) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for service in SERVICES:
        try:
            settings = settings_of(service, patient)
        except StartError as error:
            found[service] = {"wrong": type(error).__name__}
            continue
        found[service] = {
            name: shown_setting(name, getattr(settings, name), data=patient.data)
            for name in type(settings).model_fields
        }
    return found


def _versions() -> dict[str, Any]:
    packages = sorted((each.name, each.version) for each in importlib.metadata.distributions())
    system = {"system": platform.system(), "release": platform.release(), "machine": platform.machine()}
    return {"python": sys.version, **system, "packages": dict(packages)}


def _tables(patient: Patient) -> dict[str, Any]:
    try:
        found = places(patient.data, patient.variables)
    except StartError as error:
        return {"error": str(error)}
    counted: dict[str, Any] = {}
    for service, place in found.items():
        try:
            counted[service] = _counts(place)
        except (StartError, sqlite3.Error) as error:
            counted[service] = {"error": type(error).__name__}
    return counted


def _counts(place: Place) -> dict[str, int | None]:
    names = [str(table.name) for table in tables(place.store)]
    if place.file is None:
        return asyncio.run(_count_postgresql(place, names))
    with closing(sqlite3.connect(f"{place.file.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
        ends = time.monotonic() + COUNT_SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > ends, 100_000)
        return {name: _count_sqlite(connection, name) for name in names}


def _count_sqlite(connection: sqlite3.Connection, name: str) -> int | None:
    """Return how many rows a table has, None when counting takes too long or there is none."""
    try:
        return int(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0])  # noqa: S608 - a name of ours
    except sqlite3.OperationalError:
        return None


async def _count_postgresql(place: Place, names: Sequence[str]) -> dict[str, int | None]:
    connection = await connected(place)
    try:
        rows = await connection.fetch("SELECT relname, n_live_tup FROM pg_stat_user_tables")
    finally:
        await connection.close()
    estimated = {row[0]: int(row[1]) for row in rows}
    return {name: estimated.get(name) for name in names}


def _folders(data: Path) -> dict[str, Any]:
    """Return the size of each file and folder directly below the data folder, by name."""
    sizes: dict[str, Any] = {}
    for each in sorted(data.iterdir()) if data.is_dir() else ():
        files = [file for file in (each.rglob("*") if each.is_dir() else [each]) if file.is_file()]
        sizes[each.name] = {"files": len(files), "bytes": sum(file.stat().st_size for file in files if file.exists())}
    return sizes
