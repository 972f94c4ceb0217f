"""Ask the process of this container for its health: `python -m counterfoil_chassis.probe readiness`; exit code 0 = yes.

It asks the door for metrics, which says by HTTP what the gRPC health service says, from the same event loop, and wants
no certificate. Loading gRPC would take five times as long as all of this, every few seconds in each container.
"""

from __future__ import annotations

import os
import re
import socket
import sys

from counterfoil_chassis.errors import StartError

PATHS = {"startup": "/startupz", "readiness": "/readyz", "liveness": "/livez"}
USAGE = f"usage: python -m counterfoil_chassis.probe {'|'.join(PATHS)} [--port PORT]"
_SECONDS = 2.0
_VARIABLE = re.compile(r"COUNTERFOIL_[A-Z]+_METRICS_LISTEN")


def main() -> int:
    """Ask, print the answer in one line, and return the exit code; raise StartError where nobody can be asked."""
    match sys.argv[1:]:
        case [name] if name in PATHS:
            address = _metrics_address()
        case [name, "--port", port] if name in PATHS and port.isdigit():
            address = ("127.0.0.1", int(port))
        case _:
            raise StartError(USAGE)
    try:
        status, text = _ask(address, PATHS[name])
    except OSError as error:
        status, text = 0, f"{name}: no; {address[0]}:{address[1]} does not answer: {error.strerror or error}"
    print(text)  # noqa: T201 - Docker and the kubelet keep it
    return 0 if status == 200 else 1


def _metrics_address() -> tuple[str, int]:
    """Return where this container's process listens, as its image says; settings would take longer than asking."""
    found = {name: value for name, value in os.environ.items() if _VARIABLE.fullmatch(name)}  # noqa: TID251
    if len(found) != 1:
        raise StartError(f"{len(found)} variables like {_VARIABLE.pattern} are set; say which by --port")
    host, _, port = next(iter(found.values())).rpartition(":")
    if not port.isdigit():
        raise StartError(f"{next(iter(found))} names no address: this probe asks there")
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host), int(port)  # noqa: S104 - not bound


def _ask(address: tuple[str, int], path: str) -> tuple[int, str]:
    """Return the status and text of an answer, 0 when it is none; raise OSError when there is none."""
    with socket.create_connection(address, timeout=_SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {address[0]}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
    head, _, body = answer.partition("\r\n\r\n")
    status = head.split(" ", 2)[1:2]
    return int(status[0]) if status and status[0].isdigit() else 0, body.strip() or "there was no answer"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StartError as error:
        sys.stderr.write(f"counterfoil probe: {error}\n")
        sys.exit(2)
