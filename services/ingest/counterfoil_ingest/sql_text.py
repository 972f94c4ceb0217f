"""Names and texts as SQL takes any."""

from __future__ import annotations


def quoted(name: str) -> str:
    """Return a name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text."""
    return "'" + text.replace("'", "''") + "'"
