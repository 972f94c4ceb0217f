"""Ports for processes that are told theirs before they bind it."""

from __future__ import annotations

import os
import random
import socket

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2
"""Which of the two workers of a run this is; ports of theirs never meet, though a port is free until it is bound."""

_given: set[int] = set()


def free_port() -> int:
    """Return a port that is free, was not returned before, and is below the kernel's ephemeral range.

    An ephemeral one can become anybody's end of a connection before it is bound, even of the connection by which
    somebody looks whether it serves already. Modulo 20 it is 9 or 19, so that it is in no installation's way either.
    """
    for port in random.sample(range(17009 + 10 * WORKER, 32700, 20), 700):
        if port in _given:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        _given.add(port)
        return port
    raise AssertionError("no port is free")
