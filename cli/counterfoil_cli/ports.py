"""Looks whether every port is free before anything starts, so that a clash is one line and not five stack traces."""

import errno
import socket
from collections.abc import Iterable, Mapping

from counterfoil_chassis.errors import StartError

from counterfoil_cli.env import Door


def probe(doors: Iterable[Door], environment: Mapping[str, str]) -> None:
    """Bind and release every address that is one; raise StartError that names the first one that cannot be had."""
    for door in doors:
        listen = environment[door.variable]
        if (not listen and door.optional) or listen.startswith("unix:"):
            continue
        host, _, port = listen.rpartition(":")
        if not port.isdigit() or int(port) > 65535:
            raise StartError(f"{door.variable}={listen} is not an address; write it as 127.0.0.1:{door.port}.")
        try:
            _bind(host.strip("[]"), int(port))
        except OSError as error:
            raise StartError(_explain(error, door=door, listen=listen, port=port)) from error


def _bind(host: str, port: int) -> None:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probed:
        # Past connections in TIME_WAIT are no clash, a listener is; SO_REUSEPORT would hide one.
        probed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probed.bind(address)
        probed.listen(1)


def _explain(error: OSError, *, door: Door, listen: str, port: str) -> str:
    change = f"set {door.variable} or move every port with --port-offset, e.g. --port-offset 1000"
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} ({door.what}) is in use; stop what uses it, {change}."
    if error.errno == errno.EACCES:
        return f"Port {port} ({door.what}) may not be bound by this user; {change}."
    return f"{listen} ({door.what}) cannot be bound: {error.strerror or error}; {change}."
