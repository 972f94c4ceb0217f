"""The load, in a process of its own: bodies are made first, then sent as fast as they are answered.

Speaks JSON lines: reads `{"requests": n}`, makes the bodies, writes `{"ready": true}`, reads `{"go": true}`, sends,
writes `{"seconds": s, "latencies": [s, ...]}`. Any answer but 200 ends it with exit code 1.
"""

import base64
import http.client
import json
import queue
import sys
import threading
import time
from urllib.parse import urlsplit

from tests.bench.events import wire_bodies

CONNECTIONS = 8


class Connection(threading.Thread):
    """One kept connection that takes bodies from the queue until it is empty."""

    def __init__(self, address: str, key: str, bodies: "queue.SimpleQueue[bytes]") -> None:
        super().__init__(daemon=True)
        self._http = http.client.HTTPConnection(address, timeout=30)
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode(),
            "Content-Type": "application/json",
        }
        self._bodies = bodies
        self.latencies: list[float] = []
        self.failure = ""

    def run(self) -> None:
        """Send until nothing is left or an answer is not 200."""
        while not self.failure:
            try:
                body = self._bodies.get_nowait()
            except queue.Empty:
                return
            began = time.perf_counter()
            self._http.request("POST", "/v1/batch", body, self._headers)
            answer = self._http.getresponse()
            text = answer.read()
            if answer.status != http.client.OK:
                self.failure = f"{answer.status} {text[:300]!r}"
            self.latencies.append(time.perf_counter() - began)


def main() -> None:
    """Serve rounds until standard input ends."""
    url, key = sys.argv[1:]
    for line in sys.stdin:
        bodies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        for body in wire_bodies(json.loads(line)["requests"]):
            bodies.put(body)
        _say({"ready": True})
        sys.stdin.readline()
        connections = [Connection(urlsplit(url).netloc, key, bodies) for _ in range(CONNECTIONS)]
        began = time.perf_counter()
        for connection in connections:
            connection.start()
        for connection in connections:
            connection.join()
        failures = [connection.failure for connection in connections if connection.failure]
        if failures:
            sys.exit(failures[0])
        latencies = [each for connection in connections for each in connection.latencies]
        _say({"seconds": time.perf_counter() - began, "latencies": latencies})


def _say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
