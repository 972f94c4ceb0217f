"""Starts every process on this machine: checks first, imports once, forks, and shows where everything is."""

import gc
import importlib
import importlib.metadata
import importlib.util
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from counterfoil_chassis.errors import StartError
from counterfoil_chassis.revisions import newest, stored

from counterfoil_cli import settings
from counterfoil_cli.env import DOOR_CERTIFICATE, DOORS, OTLP_ENDPOINT, TRACE_DOORS, environment, reachable
from counterfoil_cli.folder import DataFolder, admin_key, check_database, open_folder, sha256_hex, write_keys
from counterfoil_cli.ports import probe
from counterfoil_cli.readiness import wait_until_ready
from counterfoil_cli.sign_in import HandedOver, ask_for_link
from counterfoil_cli.supervisor import ProcessSpec, Supervisor
from counterfoil_cli.tls import pinned

# In this order they start; in the reverse order they stop.
SERVICES = ("governance", "contracts", "ingest", "graph", "models", "gateway")
ENTRY_POINTS = "counterfoil.services"
# What most of them import: loaded once in the parent, shared by every child. None of them starts a thread or a gRPC
# object when it is imported; a test holds them to it (NumPy does, so each child loads its own). What one child alone
# needs it loads while the others start.
SHARED_LIBRARIES = (
    "grpc.aio",
    "grpc_health.v1.health_pb2_grpc",
    "google.rpc.error_details_pb2",
    "uvloop",
    "orjson",
    "pydantic_settings",
    "protovalidate",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "opentelemetry.sdk.trace.export",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "opentelemetry.instrumentation.grpc",
    "counterfoil_chassis.serve",
    "counterfoil_chassis.policy",
)
UPGRADING_LIBRARIES = ("alembic.command",)
"""Shared when there is a database to make or to upgrade; a later start does without."""


@dataclass(frozen=True)
class Options:
    """What the person who starts it chose."""

    data: Path
    port_offset: int = 0
    traces: bool = True


@dataclass(frozen=True)
class Addresses:
    """Where everything answers, as people and programs on this machine write it."""

    rest: str
    grpc: str
    traces: str  # empty: no sink of ours runs

    @classmethod
    def of(cls, variables: Mapping[str, str], *, traces: bool, tls: bool) -> "Addresses":
        """Read the addresses from the children's environment."""
        return cls(
            rest=f"{'https' if tls else 'http'}://{reachable(variables['COUNTERFOIL_GATEWAY_LISTEN'])}",
            grpc=reachable(variables["COUNTERFOIL_GATEWAY_GRPC_LISTEN"]),
            traces=f"http://{reachable(variables['COUNTERFOIL_TRACES_LISTEN'])}" if traces else "",
        )


@dataclass(frozen=True)
class Journey:
    """A program to run once all is ready; it ends with an exit code, and may end everything."""

    run: Callable[[], object]
    exit_after: bool


class Launcher:
    """One start: the folder is locked and every check has passed before the first fork."""

    def __init__(self, options: Options, *, began: float) -> None:
        user = settings.inherited()
        self._began = began
        self._journey: Journey | None = None
        self._link = HandedOver()
        self._sink = options.traces and not user.get(OTLP_ENDPOINT)
        self._certificate = user.get(DOOR_CERTIFICATE, "")
        self.folder = open_folder(options.data)
        self.key = admin_key(self.folder)
        self.variables = environment(
            user,
            data=self.folder.path,
            port_offset=options.port_offset,
            traces=self._sink,
            admin_key_sha256=sha256_hex(self.key),
        )
        self.addresses = Addresses.of(self.variables, traces=self._sink, tls=bool(self._certificate))
        self._doors = DOORS + (TRACE_DOORS if self._sink else ())
        probe(self._doors, self.variables)
        write_keys(self.folder, SERVICES, environment=user | self.variables)
        self._entries = _entry_points()
        self._upgrades = _check_databases(self.folder, self._entries, user)
        self._supervisor = Supervisor(_say, on_restart=lambda _: self._await_readiness())

    def run(self, journey: Journey | None = None) -> int:
        """Start everything, keep it running, and return the exit code once all has stopped."""
        self._journey = journey
        # gRPC writes lines of its own, which are no JSON; what they say of a lost connection our logs say, too.
        settings.prefer("GRPC_VERBOSITY", "NONE")
        _import_shared_libraries(UPGRADING_LIBRARIES if self._upgrades else ())
        specs = [self._spec(name, partial(_serve, self._entries[name])) for name in SERVICES]
        if self._sink:
            specs.insert(0, self._spec("traces", _serve_traces))
        return self._supervisor.run([*specs, self._readiness()])

    def _spec(self, name: str, run: Callable[[], object]) -> ProcessSpec:
        return ProcessSpec(name, partial(_with, self.variables, run), log=self.folder.log(name))

    def _readiness(self) -> ProcessSpec:
        gateway = self.addresses.rest.partition("://")[2]
        listens = (self.variables[door.variable] for door in self._doors)
        doors = [reachable(listen) for listen in listens if listen and not listen.startswith("unix:")]
        link = self._link if self._began else None
        waiting = partial(_await_readiness, gateway, doors, key=self.key, link=link, certificate=self._certificate)
        return ProcessSpec("readiness", waiting, on_end=self._on_ready, stop_seconds=1)

    def _await_readiness(self) -> None:
        self._supervisor.start(self._readiness())

    def _on_ready(self, code: int) -> None:
        if code != 0:
            return  # it was ended by someone else; the services are none the worse
        if self._began:
            _say(self._banner(time.monotonic() - self._began))
            self._began = 0.0
            self._supervisor.settled = True
            if self._journey is not None:
                run = partial(_with, self.variables, self._journey.run)
                # KeyboardInterrupt, so that its progress bars give the terminal back as it was.
                spec = ProcessSpec("demo", run, on_end=self._on_journey_end, stop_signal=signal.SIGINT, stop_seconds=3)
                self._supervisor.start(spec)
        else:
            _say("Everything is ready again.")

    def _on_journey_end(self, code: int) -> None:
        if self._journey is not None and (code != 0 or self._journey.exit_after):
            self._supervisor.stop(code if code >= 0 else 128 - code)
        else:
            _say("Everything keeps running; Ctrl-C stops it.")

    def _banner(self, seconds: float) -> str:
        traces = self.addresses.traces or self.variables[OTLP_ENDPOINT] or "off"
        end = "" if self._journey is not None else "\nCtrl-C stops everything."
        return (
            f"Counterfoil is ready after {seconds:.1f} s.\n"
            f"  REST      {self.addresses.rest}/v1\n"
            f"  OpenAPI   {self.addresses.rest}/openapi.json\n"
            f"  gRPC      {self.addresses.grpc}\n"
            f"  Console   {self._link.take() or f'{self.addresses.rest}/console/ (`counterfoil console` signs in)'}\n"
            f"  Traces    {traces}\n"
            f"  API key   in {_near(self.folder.admin_key_file)} (send it as X-Api-Key)\n"
            f"  Logs      {_near(self.folder.path / 'logs')}"
            f"{end}"
        )


def _await_readiness(
    gateway: str, doors: Sequence[str], *, key: str, link: HandedOver | None, certificate: str
) -> None:
    """Wait, then leave a sign-in link where somebody will show it."""
    tls = pinned(Path(certificate)) if certificate else None
    wait_until_ready(gateway, doors, tls=tls)
    if link is not None:
        link.leave(ask_for_link(gateway, key, tls=tls))


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    found = {entry.name: entry for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    missing = [name for name in SERVICES if name not in found]
    if missing:
        raise StartError(f"Not installed: {', '.join(missing)}; `make setup` installs every service.")
    return found


def _check_databases(
    folder: DataFolder, entries: Mapping[str, importlib.metadata.EntryPoint], user: Mapping[str, str]
) -> bool:
    """Raise StartError when a database cannot be used; return whether one has to be made or upgraded."""
    upgrades = False
    for name in SERVICES:
        package = importlib.util.find_spec(entries[name].module.partition(".")[0])
        if package is None or package.origin is None or f"COUNTERFOIL_{name.upper()}_DATABASE_URL" in user:
            continue
        migrations = Path(package.origin).parent / "migrations"
        check_database(folder.path / f"{name}.db", migrations=migrations)
        if migrations.is_dir():
            upgrades |= stored(folder.path / f"{name}.db") != newest(migrations)
    return upgrades


def _import_shared_libraries(more: Sequence[str] = ()) -> None:
    """Import what the children share, and keep the collector away from it, so that its pages stay shared."""
    gc.disable()
    for name in (*SHARED_LIBRARIES, *more):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _with(variables: Mapping[str, str], run: Callable[[], object]) -> None:
    settings.adopt(variables)
    run()


def _serve(entry: importlib.metadata.EntryPoint) -> None:
    sys.argv = [entry.name]  # `serve` is what a service does without arguments
    entry.load()()


def _serve_traces() -> None:
    importlib.import_module("counterfoil_cli.traces.__main__").main()


def _near(path: Path) -> str:
    """Return the path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _say(text: str) -> None:
    """Print for people; a terminal that went away stops nothing here."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        return
