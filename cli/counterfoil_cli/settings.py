"""The environment, read and written in one place."""

import os
from collections.abc import Mapping


def inherited() -> dict[str, str]:
    """Return a copy of this process's environment."""
    return dict(os.environ)  # noqa: TID251 - this is settings.py


def prefer(name: str, value: str) -> None:
    """Set a variable of this process's environment unless the user has."""
    os.environ.setdefault(name, value)  # noqa: TID251 - this is settings.py


def adopt(variables: Mapping[str, str]) -> None:
    """Make these variables part of this process's environment; called in a forked child only."""
    os.environ.update(variables)  # noqa: TID251 - this is settings.py
