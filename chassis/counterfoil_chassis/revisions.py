"""Whether a database is at its release's revision, told without Alembic: loading that takes a quarter of a second."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

_ASSIGNED = re.compile(r'^(revision|down_revision)\b[^=\n]*= (?:"([^"]+)"|None)$', re.MULTILINE)


def prepare(url: str, package: str) -> None:
    """Make the database fit before serving: SQLite is upgraded, an older PostgreSQL is refused by StartError."""
    if not is_newest(url, package):
        from counterfoil_chassis import migrate  # noqa: PLC0415 - Alembic, see above

        migrate.prepare(url, package)


def is_newest(url: str, package: str) -> bool:
    """Say whether a SQLite database certainly needs no upgrade; Alembic has to look wherever this says False."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - the launcher reads revisions before it loads anything

    place = make_url(url)
    if place.get_backend_name() != "sqlite" or not place.database:
        return False
    found = stored(Path(place.database))
    return bool(found) and found == newest(Path(str(files(package))) / "migrations")


def newest(migrations: Path) -> set[str]:
    """Return the revisions in a folder that no other builds on: one, unless they have branched."""
    made: set[str] = set()
    built_on: set[str] = set()
    for script in migrations.glob("*.py"):
        for name, revision in _ASSIGNED.findall(script.read_text(encoding="utf-8")):
            (made if name == "revision" else built_on).add(revision)
    return made - built_on


def stored(file: Path) -> set[str]:
    """Return the revisions that a SQLite file is at; none when it is not there, new, or no database."""
    if not file.is_file():
        return set()
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            return {str(revision) for (revision,) in connection.execute("SELECT version_num FROM alembic_version")}
    except sqlite3.Error:
        return set()
