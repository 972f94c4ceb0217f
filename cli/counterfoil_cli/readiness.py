"""Waits for the gateway to say that everything is ready; runs in a process of its own, so the parent never blocks."""

import http.client
import sys
import time

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
SPEAKS_AFTER = 15.0


def wait_until_ready(address: str) -> None:
    """Ask `GET /readyz` at host:port until it answers 200; say once on the terminal when that takes long."""
    began, pause, spoken = time.monotonic(), FIRST_PAUSE, False
    while (answer := ask(address)) != "":
        if not spoken and time.monotonic() - began > SPEAKS_AFTER:
            spoken = True
            sys.stdout.write(f"Still waiting for the gateway: {answer}\n")
            sys.stdout.flush()
        time.sleep(pause)  # nobody tells a process outside when readiness changes
        pause = min(pause * 1.5, LONGEST_PAUSE)


def ask(address: str) -> str:
    """Return "" when the gateway at host:port is ready, else what it said, in at most 300 characters."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=2)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return "" if answer.status == http.client.OK else f"{answer.status} {text}"[:300]
