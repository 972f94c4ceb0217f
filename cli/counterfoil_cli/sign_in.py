"""The console's sign-in link: fetched by the process that waits for readiness, handed to the parent through a file."""

import http.client
import json
import os
import ssl
import tempfile
from typing import Final

from counterfoil_cli.readiness import connection_to

_MOST_BYTES: Final = 4096


class HandedOver:
    """A few bytes that a forked child leaves for its parent, in a file without a name: nothing to wait for or tidy."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            self._descriptor = os.dup(file.fileno())  # both processes hold it to their end

    def leave(self, text: str) -> None:
        """Leave a text in place of what lay here."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode()[:_MOST_BYTES], 0)

    def take(self) -> str:
        """Return what was left, empty when nothing was."""
        return os.pread(self._descriptor, _MOST_BYTES, 0).decode(errors="replace")


def ask_for_link(gateway: str, key: str, *, tls: ssl.SSLContext | None = None) -> str:
    """Return a one-time link from the gateway at host:port, empty when it gives none: a banner is no reason to fail."""
    connection = connection_to(gateway, tls=tls, seconds=5)
    try:
        connection.request("POST", "/console/sign-in-links", headers={"x-api-key": key})
        answer = connection.getresponse()
        body = json.loads(answer.read(_MOST_BYTES))
    except (OSError, ValueError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
    return str(body.get("url", "")) if answer.status == http.client.OK else ""
