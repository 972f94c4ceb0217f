"""What lies on this machine: the data folder, keys, databases, certificates, ports."""

import asyncio
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from counterfoil_chassis import transport
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.identity import load_private_key
from counterfoil_chassis.migrate import newest_revisions
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from counterfoil_cli.backups.databases import Place, connected, places
from counterfoil_cli.doctor.findings import SERVICES, Finding, Patient, fail, ok, warn
from counterfoil_cli.env import DOORS, TRACE_DOORS
from counterfoil_cli.folder import check_database
from counterfoil_cli.ports import probe

LITTLE_BYTES = 1 << 30
LEAST_BYTES = 128 << 20
SKEW_SECONDS = 5.0


def folder(patient: Patient) -> Iterator[Finding]:
    """Look at the data folder's rights and at the space that is left."""
    data = patient.data
    if not data.is_dir():
        yield warn("data folder", f"{data} is not there", "start once with `counterfoil up`, or name it with --data")
        return
    if not os.access(data, os.W_OK | os.X_OK):
        yield fail("data folder", f"{data} cannot be written", "give it to the user that runs Counterfoil")
        return
    yield ok("data folder", f"{data} can be written")
    space = shutil.disk_usage(data)
    told = f"{space.free / (1 << 30):.1f} of {space.total / (1 << 30):.1f} GiB are free"
    if space.free < LEAST_BYTES:
        yield fail("disk", told, "make room: records are refused when there is none left")
    elif space.free < LITTLE_BYTES:
        yield warn("disk", told, "make room or give it more before it is full")
    else:
        yield ok("disk", told)


def keys(patient: Patient) -> Iterator[Finding]:
    """Look whether every key is there, is its owner's alone, and fits its public half."""
    data, trusted = patient.data, Path(patient.variables["COUNTERFOIL_TRUSTED_KEYS_DIR"])
    if not data.is_dir():
        return
    wrong = 0
    for service in SERVICES:
        own = patient.variables.get(f"COUNTERFOIL_{service.upper()}_PRIVATE_KEY_FILE")
        file = Path(own) if own else data / "keys" / f"{service}.pem"
        for finding in _key(service, file, trusted / f"{service}.pem"):
            wrong += 1
            yield finding
    admin = data / "admin.key"
    if admin.exists() and _open_to_others(admin):
        wrong += 1
        yield fail("key admin", f"{admin} can be read by others", f"chmod 600 {admin}, and create another key")
    if not wrong:
        yield ok("keys", "every private key fits its public half, and is its owner's alone")


def _key(service: str, private: Path, public: Path) -> Iterator[Finding]:
    name = f"key {service}"
    if not private.exists():
        yield warn(name, f"{private} is not there", "`counterfoil up` makes it at the next start")
        return
    if _open_to_others(private):
        yield fail(name, f"{private} can be read by others", f"chmod 600 {private}, and make another pair")
    try:
        half = load_private_key(private).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    except StartError as error:
        yield fail(name, str(error), "restore it, or delete it to have another one made")
        return
    if not public.exists() or public.read_bytes() != half:
        remedy = "copy the public half to every trusted folder; `counterfoil up` does it at the next start"
        yield fail(name, f"{public} is not its public half: other services refuse its tokens", remedy)


def _open_to_others(file: Path) -> bool:
    return bool(file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def databases(patient: Patient) -> Iterator[Finding]:
    """Look whether each database can be reached and is at the revision that this release needs."""
    try:
        found = places(patient.data, patient.variables)
    except StartError as error:
        yield fail("databases", str(error), "`make setup` installs every service")
        return
    for service, place in sorted(found.items()):
        yield _database(f"database {service}", place)


def _database(name: str, place: Place) -> Finding:
    file = place.file
    skew = 0.0
    try:
        if file is None:
            revisions, skew = asyncio.run(_postgresql(place))
        elif not file.exists():
            return warn(name, f"{file} is not there", "the service makes it at its first start")
        else:
            revisions = _sqlite(file)
    except StartError as error:
        return fail(name, str(error), "see that PostgreSQL runs, then `counterfoil migrate`")
    except sqlite3.Error as error:
        return fail(name, f"{file} cannot be read: {error}", "restore it from a backup")
    newest = newest_revisions(place.store.migrations)
    if revisions != newest:
        return _older(name, place, f"at revision {', '.join(revisions) or 'none'}; this needs {', '.join(newest)}")
    if abs(skew) > SKEW_SECONDS:
        return warn(name, f"its server's clock differs by {skew:+.0f} s", "have both machines keep time by NTP")
    return ok(name, f"revision {', '.join(newest)}")


def _older(name: str, place: Place, told: str) -> Finding:
    if place.file is None:
        return fail(name, told, "`counterfoil migrate`, with the release that is to run")
    try:
        check_database(place.file, migrations=Path(str(files(place.store.migrations))) / "migrations")
    except StartError as error:
        return fail(name, str(error), "restore a backup of this release, or install the newer one")
    return warn(name, told, "the service upgrades it when it starts")


def _sqlite(file: Path) -> list[str]:
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return [str(row[0]) for row in found]


async def _postgresql(place: Place) -> tuple[list[str], float]:
    """Return the revisions, and by how many seconds the server's clock is ahead."""
    connection = await connected(place)
    try:
        now = await connection.fetchval("SELECT clock_timestamp()")
        there = await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL")
        rows = await connection.fetch("SELECT version_num FROM alembic_version") if there else []
    finally:
        await connection.close()
    return [str(row[0]) for row in rows], (now - datetime.now(UTC)).total_seconds()


def certificates(patient: Patient) -> Iterator[Finding]:
    """Look whether each certificate can be used, names its service, and does not end soon."""
    of_services = patient.variables.get("COUNTERFOIL_TLS_CERT_FILE", "")
    for service in SERVICES if of_services else ():
        texts = [patient.variables.get(f"COUNTERFOIL_TLS_{part}_FILE", "") for part in ("CERT", "KEY", "CA")]
        certificate, key, authority = (Path(each.replace("{service}", service)) for each in texts)
        yield _certificate(f"certificate {service}", certificate, key, authority, service=service)
    door = patient.variables.get("COUNTERFOIL_GATEWAY_TLS_CERT_FILE", "")
    if door:
        key = Path(patient.variables.get("COUNTERFOIL_GATEWAY_TLS_KEY_FILE", ""))
        yield _certificate("certificate of the doors", Path(door), key, None, service="")
    if not of_services and not door:
        yield ok("certificates", "none: no TLS is set")


def _certificate(name: str, certificate: Path, key: Path, authority: Path | None, *, service: str) -> Finding:
    try:
        pem = transport.Certificate(certificate, key, authority).pem
    except StartError as error:
        return fail(name, str(error), "put a certificate and its key there, as docs/operations/tls.md says")
    ends = transport.expiry(pem.certificate)
    left = ends - datetime.now(UTC)
    if left.total_seconds() <= 0:
        return fail(name, f"ended on {ends:%Y-%m-%d}", "put a new one in its place and restart")
    if service and service not in transport.names(pem.certificate):
        return fail(name, f"does not have the DNS name {service}", "other services refuse it: have one made that does")
    if left < transport.EXPIRES_SOON:
        return warn(name, f"ends on {ends:%Y-%m-%d}", "put a new one in its place; channels need a restart")
    return ok(name, f"good until {ends:%Y-%m-%d}")


def ports(patient: Patient) -> Iterator[Finding]:
    """Look, where nothing of ours runs, whether every port is free."""
    if patient.answers:
        return
    taken = []
    for door in DOORS + TRACE_DOORS:
        try:
            probe([door], patient.variables)
        except StartError as error:
            taken.append(str(error))
    for each in taken:
        yield fail("ports", each, "then start again")
    if not taken:
        yield ok("ports", "every one is free")
