"""Waits for the gateway to say that everything is ready; runs in a process of its own, so the parent never blocks."""

import http.client
import socket
import ssl
import sys
import time
from collections.abc import Sequence

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.1
SPEAKS_AFTER = 15.0


def wait_until_ready(gateway: str, doors: Sequence[str], *, tls: ssl.SSLContext | None = None) -> None:
    """Wait until every door (host:port) takes connections and the gateway's `GET /readyz` answers 200.

    The doors come first: right after a service died, the gateway may not know it yet. Says once on the terminal when
    it takes long.
    """
    began, pause, spoken = time.monotonic(), FIRST_PAUSE, False
    while (answer := _closed(doors) or ask(gateway, tls=tls)) != "":
        if not spoken and time.monotonic() - began > SPEAKS_AFTER:
            spoken = True
            sys.stdout.write(f"Still waiting: {answer}\n")
            sys.stdout.flush()
        time.sleep(pause)  # nobody tells a process outside when readiness changes
        pause = min(pause * 1.5, LONGEST_PAUSE)


def _closed(doors: Sequence[str]) -> str:
    """Return what the first door says that takes no connection, or "" when all do."""
    for door in doors:
        host, _, port = door.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except OSError as error:
            return f"{door}: {error}"
    return ""


def connection_to(address: str, *, tls: ssl.SSLContext | None, seconds: float) -> http.client.HTTPConnection:
    """Return a connection to host:port, by TLS where it is given what to accept; it is not open yet."""
    host, _, port = address.rpartition(":")
    if tls is None:
        return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=seconds)
    return http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=seconds, context=tls)


def ask(address: str, *, tls: ssl.SSLContext | None = None) -> str:
    """Return "" when the gateway at host:port is ready, else what it said, in at most 300 characters."""
    connection = connection_to(address, tls=tls, seconds=2)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return "" if answer.status == http.client.OK else f"{answer.status} {text}"[:300]
