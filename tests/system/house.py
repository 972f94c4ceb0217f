"""Every process by itself, as containers run them: secrets by file, PostgreSQL, peers behind names, nothing shared."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
from counterfoil_cli.commands.secrets import write_secrets
from counterfoil_cli.env import CALL_ORDER, DOORS

from tests.chassis.names import HERE, Names
from tests.postgres import Server
from tests.system.installation import START_SECONDS, free_offset, until

STOP_SECONDS = 30


class Beside:
    """An event loop in a thread, for what stands between the processes."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something there to its end."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class House:
    """The processes of one installation, each started and stopped by itself."""

    def __init__(self, folder: Path, server: Server) -> None:
        """Make secrets and databases; the database server and every name are away until `open`."""
        self.folder = folder
        self.offset = free_offset()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._loop = Beside()
        self._names = Names()
        self._port = server.port
        self._connections: set[asyncio.Task[None]] = set()
        self._dns, database = self._loop.run(self._begin())
        write_secrets(folder / "secrets", database="unused")
        url = server.installation().replace(f":{server.port}/", f":{database}/")
        for name in CALL_ORDER:
            (folder / "secrets" / name / "counterfoil_database_url").write_text(f"{url}\n")
            (folder / name).mkdir()

    @functools.cached_property
    def beside(self) -> int:
        """What is added to the ports of a second gateway; first asked for when the first has its own."""
        return free_offset() - self.offset

    async def _begin(self) -> tuple[int, int]:
        """Answer for the names, and keep the database's port; return both ports."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self._names, local_addr=(HERE, 0))
        self._database = await asyncio.start_server(self._accept, HERE, 0, start_serving=False)
        return self._transport.get_extra_info("sockname")[1], self._database.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._hand_on(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):  # either side left
            there, back = await asyncio.open_connection(HERE, self._port)
            with contextlib.closing(back):
                await asyncio.gather(_copy(reader, back), _copy(there, writer))

    def open(self) -> None:
        """Let the database server and the names be found."""
        self._names.address = HERE
        self._loop.run(self._database.start_serving())

    def start(self, name: str, *, door: int = 0) -> None:
        """Start a process; `door` is added to the ports of a gateway beside another."""
        ports = {each.variable: each.port + self.offset for each in DOORS}
        listens = {
            variable: f"{HERE}:{port + door}" for variable, port in ports.items() if f"_{name.upper()}_" in variable
        }
        peers = {
            f"COUNTERFOIL_{name.upper()}_{peer.upper()}_TARGET": (
                f"dns://{HERE}:{self._dns}/{peer}.test:{ports[f'COUNTERFOIL_{peer.upper()}_LISTEN']}"
            )
            for peer in CALL_ORDER
        }
        secrets = self.folder / "secrets"
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("COUNTERFOIL_", "OTEL_"))}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name if not door else f"{name} {door}"] = subprocess.Popen(
                [sys.executable, "-m", f"counterfoil_{name}"],
                env={
                    **clean,
                    **listens,
                    **peers,
                    "COUNTERFOIL_DATA_DIR": str(self.folder / name),
                    "COUNTERFOIL_SECRETS_DIR": str(secrets / name),
                    f"COUNTERFOIL_{name.upper()}_PRIVATE_KEY_FILE": str(secrets / name / "private_key.pem"),
                    "COUNTERFOIL_TRUSTED_KEYS_DIR": str(secrets / "trusted"),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, name: str) -> int:
        """Tell a process to stop, and return its exit code."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(STOP_SECONDS)

    def says(self, name: str, path: str, *, door: int = 0) -> tuple[int, str]:
        """Return status and text of a probe; (0, "") while nobody answers."""
        [port] = [each.port for each in DOORS if each.variable == f"COUNTERFOIL_{name.upper()}_METRICS_LISTEN"]
        try:
            answer = httpx.get(f"http://{HERE}:{port + self.offset + door}{path}", timeout=10, trust_env=False)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.text

    def wait(self, name: str, path: str, *, door: int = 0) -> None:
        """Wait until a probe succeeds, and see that the process lives."""

        def ask() -> bool | None:
            process = self.running[name if not door else f"{name} {door}"]
            assert process.poll() is None, (self.folder / f"{name}.log").read_text()
            return True if self.says(name, path, door=door)[0] == 200 else None

        until(ask, seconds=START_SECONDS, what=f"{name} does not say {path}: {self.says(name, path, door=door)}")

    @property
    def admin_key(self) -> str:
        """The key of the admin."""
        return (self.folder / "secrets" / "admin" / "admin.key").read_text().strip()

    def doors(self) -> list[str]:
        """Return the REST doors that there may be, the first gateway's first."""
        return [f"http://{HERE}:{8080 + self.offset + door}" for door in (0, self.beside)]

    def http(self, key: str | None = None) -> httpx.Client:
        """Return a client that goes on to the other gateway where nobody listens any more."""
        headers = {"X-Api-Key": key} if key else {}
        return httpx.Client(
            base_url=self.doors()[0], headers=headers, timeout=60, trust_env=False, transport=_Either(self.doors())
        )

    def close(self) -> None:
        """End everything."""
        for process in self.running.values():
            process.kill()
            process.wait()
        self._loop.run(self._end())
        self._loop.close()

    async def _end(self) -> None:
        self._transport.close()
        self._database.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while read := await reader.read(1 << 16):
            writer.write(read)
            await writer.drain()
    finally:
        writer.close()


class _Either(httpx.BaseTransport):
    """Sends to the first door at which somebody listens, keeping connections as clients do."""

    def __init__(self, doors: list[str]) -> None:
        self._doors = [httpx.URL(door) for door in doors]
        self._transport = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for door in self._doors:
            request.url = request.url.copy_with(host=door.host, port=door.port)
            try:
                return self._transport.handle_request(request)
            except httpx.ConnectError:
                if door is self._doors[-1]:
                    raise
        raise AssertionError("there are no doors")

    def close(self) -> None:
        self._transport.close()


@contextlib.contextmanager
def a_house(folder: Path, server: Server) -> Iterator[House]:
    """Make a house, and end it after the block."""
    house = House(folder, server)
    try:
        yield house
    finally:
        house.close()
