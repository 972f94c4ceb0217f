"""The environment, read and written in one place."""

import os
from collections.abc import Mapping
from pathlib import Path


def inherited() -> dict[str, str]:
    """Return a copy of this process's environment."""
    return dict(os.environ)  # noqa: TID251 - this is settings.py


def prefer(name: str, value: str) -> None:
    """Set a variable of this process's environment unless the user has."""
    os.environ.setdefault(name, value)  # noqa: TID251 - this is settings.py


def adopt(variables: Mapping[str, str]) -> None:
    """Make these variables part of this process's environment; called in a forked child only."""
    os.environ.update(variables)  # noqa: TID251 - this is settings.py


def secret(name: str) -> str:
    """Return the secret `COUNTERFOIL_<NAME>`, "" = there is none."""
    return os.environ.get(f"COUNTERFOIL_{name.upper()}", "")  # noqa: TID251 - this is settings.py


def adopt_secrets() -> None:
    """Make the settings by file part of this process's environment, whose own variables win; raise StartError."""
    if folder := os.environ.get("COUNTERFOIL_SECRETS_DIR"):  # noqa: TID251 - this is settings.py
        from counterfoil_chassis.settings import secrets_in  # noqa: PLC0415 - pydantic, which few commands need

        for name, value in secrets_in(Path(folder)).items():
            prefer(name.upper(), value)
