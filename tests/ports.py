"""Ports for processes that are told theirs before they bind it."""

from __future__ import annotations

import os
import random
import socket

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 3
"""Which of the three workers of a run this is; ports of theirs never meet, though a port is free until it is bound.

Modulo STEP the first worker's ports are 7 to 9, those of its installations 0 to 5, 26, 30 to 35, 47 and 48; those of
the next two are 10 and 20 more.
"""
STEP = 70

_given: set[int] = set()


def free_port() -> int:
    """Return a port that is free, was not returned before, and is below the kernel's ephemeral range.

    An ephemeral one can become anybody's end of a connection before it is bound, even of the connection by which
    somebody looks whether it serves already.
    """
    first = 17017 + 10 * WORKER  # 7 modulo 70
    known = [port + more for port in range(first, 32700, STEP) for more in range(3)]
    for port in random.sample(known, len(known)):
        if port in _given:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        _given.add(port)
        return port
    raise AssertionError("no port is free")
