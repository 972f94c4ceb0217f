"""Checks before a service starts: each failure is one line that says what to do."""

from __future__ import annotations

import socket
from typing import TypeVar

from pydantic import ValidationError

from counterfoil_chassis.errors import StartError
from counterfoil_chassis.settings import ServiceSettings

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def read_settings(settings_type: type[SettingsT]) -> SettingsT:
    """Read the environment; raise StartError that names the first wrong variable."""
    try:
        return settings_type()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StartError(f"the setting {place} is wrong: {first['msg']}") from None


def make_data_dir(settings: ServiceSettings) -> None:
    """Create the data folder and try to write there; raise StartError when that fails."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        probe = settings.data_dir / f".write-probe-{settings.service_name()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StartError(f"the data folder {settings.data_dir} cannot be written: {error.strerror}") from None


def require_free(listen: str) -> None:
    """Raise StartError when the address is taken; gRPC itself would print its own story."""
    name, _, port = listen.rpartition(":")
    if not port.isdigit():
        raise StartError(f"the address {listen} is not host:port")
    name = name.strip("[]")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((name, int(port)))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StartError(f"cannot listen on {listen}: {reason}; stop what uses it or set another address") from None
