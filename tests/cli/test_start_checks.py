"""What is looked at before anything starts: each fault is one line and exit code 2."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.identity import load_private_key, load_trusted_keys
from counterfoil_cli.env import CALL_ORDER, DOORS, TRACE_DOORS, environment, reachable
from counterfoil_cli.folder import API_KEY, admin_key, check_database, open_folder, sha256_hex, write_keys
from counterfoil_cli.launcher import SERVICES, SHARED_LIBRARIES
from counterfoil_cli.ports import probe
from hypothesis import given
from hypothesis import strategies as st

Run = Callable[..., subprocess.CompletedProcess[str]]


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line with which a start was refused."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    return line


def test_a_fresh_folder_is_private_and_holds_a_key_for_the_admin_and_a_pair_for_every_service(tmp_path: Path):
    folder = open_folder(tmp_path / "data")
    key = admin_key(folder)
    write_keys(folder, SERVICES, environment={"COUNTERFOIL_TRUSTED_KEYS_DIR": str(folder.path / "keys" / "trusted")})
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert API_KEY.fullmatch(key)
    assert admin_key(folder) == key
    assert folder.admin_key_file.stat().st_mode & 0o777 == 0o600
    trusted = load_trusted_keys(folder.path / "keys" / "trusted")
    assert set(trusted) == set(SERVICES)
    for name in SERVICES:
        private = folder.path / "keys" / f"{name}.pem"
        assert private.stat().st_mode & 0o777 == 0o600
        assert load_private_key(private).public_key() == trusted[name]
    os.close(folder.lock)


def test_a_second_start_on_the_same_folder_is_refused_with_the_process_that_holds_it(counterfoil: Run, tmp_path: Path):
    folder = open_folder(tmp_path / "data")
    line = refused(counterfoil("up", "--data", folder.path))
    assert f"in use by another start (process {os.getpid()})" in line
    assert "--data" in line
    os.close(folder.lock)


def test_a_file_where_the_folder_should_be_is_refused(counterfoil: Run, tmp_path: Path):
    (tmp_path / "data").write_text("a file")
    assert f"{tmp_path / 'data'} is a file where a folder should be" in refused(
        counterfoil("up", "--data", tmp_path / "data")
    )


def test_a_file_where_a_folder_inside_should_be_is_refused(counterfoil: Run, tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "keys").write_text("a file")
    assert "keys" in refused(counterfoil("up", "--data", tmp_path / "data"))


def test_a_folder_that_cannot_be_made_is_refused(counterfoil: Run):
    assert "cannot be used" in refused(counterfoil("up", "--data", "/proc/counterfoil"))


@pytest.mark.parametrize("content", ["", "\n", "not a key", "cfk_short", "cfk_" + "é" * 43])
def test_an_admin_key_file_without_a_key_is_refused(counterfoil: Run, tmp_path: Path, content: str):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.key").write_text(content)
    assert "admin.key holds no API key" in refused(counterfoil("up", "--data", tmp_path / "data"))


def test_an_unreadable_private_key_is_refused(counterfoil: Run, tmp_path: Path, free_listens: dict[str, str]):
    (tmp_path / "data" / "keys").mkdir(parents=True)
    (tmp_path / "data" / "keys" / "ingest.pem").write_text("no key")
    assert "ingest.pem cannot be read" in refused(counterfoil("up", "--data", tmp_path / "data", **free_listens))


def test_a_database_of_a_newer_release_is_refused(counterfoil: Run, tmp_path: Path, free_listens: dict[str, str]):
    (tmp_path / "data").mkdir()
    database(tmp_path / "data" / "governance.db", revision="9999")
    line = refused(counterfoil("up", "--data", tmp_path / "data", **free_listens))
    assert "governance.db was written by a newer Counterfoil (revision 9999)" in line


def test_a_database_that_is_none_is_refused(counterfoil: Run, tmp_path: Path, free_listens: dict[str, str]):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models.db").write_text("this is no database, whatever its name says " * 50)
    line = refused(counterfoil("up", "--data", tmp_path / "data", **free_listens))
    assert "models.db cannot be read as a database" in line


def test_a_database_whose_revision_we_know_passes(tmp_path: Path):
    (tmp_path / "0001_initial.py").write_text('revision = "0001"\ndown_revision = None\n')
    (tmp_path / "0002_more.py").write_text('revision: str = "0002"\ndown_revision = "0001"\n')
    database(tmp_path / "a.db", revision="0002")
    check_database(tmp_path / "a.db", migrations=tmp_path)
    database(tmp_path / "b.db", revision="0003")
    with pytest.raises(StartError, match="newer"):
        check_database(tmp_path / "b.db", migrations=tmp_path)


def test_a_used_port_is_named_with_what_needs_it_and_what_changes_it(
    counterfoil: Run, tmp_path: Path, free_listens: dict[str, str]
):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        listens = free_listens | {"COUNTERFOIL_INGEST_LISTEN": f"127.0.0.1:{port}"}
        line = refused(counterfoil("up", "--data", tmp_path / "data", **listens))
    assert line.startswith(f"Port {port} (ingest) is in use;")
    assert "COUNTERFOIL_INGEST_LISTEN" in line
    assert "--port-offset" in line


def test_a_listener_that_shares_its_port_is_still_a_clash():
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        door = DOORS[0]
        with pytest.raises(StartError, match="in use"):
            probe([door], {door.variable: f"127.0.0.1:{holder.getsockname()[1]}"})


@pytest.mark.parametrize("listen", ["", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000"])
def test_an_address_without_a_port_is_refused_with_the_setting(listen: str):
    with pytest.raises(StartError, match="COUNTERFOIL_GATEWAY_LISTEN"):
        probe([DOORS[0]], {DOORS[0].variable: listen})


def test_a_demo_outside_of_the_repository_is_refused(counterfoil: Run):
    assert "examples/complete_journey is not in this folder nor above it" in refused(counterfoil("demo"))


@given(st.integers(min_value=-1000, max_value=45000), st.booleans())
def test_every_caller_is_told_where_its_callees_listen(offset: int, traces: bool):
    made = environment({}, data=Path("/data"), port_offset=offset, traces=traces, admin_key_sha256="ab")
    for position, caller in enumerate(CALL_ORDER):
        for callee in CALL_ORDER[position + 1 :]:
            target = made[f"COUNTERFOIL_{caller.upper()}_{callee.upper()}_TARGET"]
            assert target == made[f"COUNTERFOIL_{callee.upper()}_LISTEN"]
        for stranger in CALL_ORDER[:position]:
            assert f"COUNTERFOIL_{caller.upper()}_{stranger.upper()}_TARGET" not in made
    ports = [made[door.variable] for door in DOORS + (TRACE_DOORS if traces else ())]
    assert len(set(ports)) == len(ports)
    assert (made["OTEL_EXPORTER_OTLP_ENDPOINT"] != "") == traces


def test_a_value_of_the_user_wins_and_callers_follow_it():
    user = {
        "COUNTERFOIL_INGEST_LISTEN": "0.0.0.0:9000",
        "COUNTERFOIL_MODELS_GOVERNANCE_TARGET": "dns:///g",
        "HOME": "/",
    }
    made = environment(user, data=Path("/data"), port_offset=0, traces=True, admin_key_sha256="ab")
    assert made["COUNTERFOIL_INGEST_LISTEN"] == "0.0.0.0:9000"
    assert made["COUNTERFOIL_GATEWAY_INGEST_TARGET"] == "127.0.0.1:9000"
    assert made["COUNTERFOIL_MODELS_GOVERNANCE_TARGET"] == "dns:///g"
    assert "A" not in made


@pytest.mark.parametrize(
    ("listen", "target"),
    [("[::]:1", "[::1]:1"), (":1", "127.0.0.1:1"), ("10.0.0.1:1", "10.0.0.1:1"), ("*:1", "127.0.0.1:1")],
)
def test_an_address_that_binds_everything_is_reached_on_loopback(listen: str, target: str):
    assert reachable(listen) == target


def test_the_stored_form_of_a_key_is_its_sha256():
    assert sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4


def test_no_shared_library_starts_a_thread_when_it_is_imported():
    program = (
        "import importlib, os\n"
        f"for name in {SHARED_LIBRARIES!r}: importlib.import_module(name)\n"
        "assert len(os.listdir('/proc/self/task')) == 1, os.listdir('/proc/self/task')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_child_of_the_parent_that_imported_them_serves_grpc():
    program = PARENT.replace("LIBRARIES", repr(SHARED_LIBRARIES))
    result = subprocess.run([sys.executable, "-c", program], check=False, timeout=120, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "b'pong'\n" * 2), result.stderr


PARENT = """
import gc, importlib, os, sys
for name in LIBRARIES: importlib.import_module(name)
gc.freeze()
def child():
    import asyncio, grpc, uvloop
    async def main():
        server = grpc.aio.server()
        async def ping(request, context): return b"pong"
        handler = grpc.unary_unary_rpc_method_handler(ping)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"Ping": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            print(await channel.unary_unary("/a.B/Ping")(b"", timeout=20), flush=True)
        await server.stop(None)
    uvloop.run(main())
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


def database(file: Path, *, revision: str) -> None:
    """Write what Alembic leaves in a database."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
