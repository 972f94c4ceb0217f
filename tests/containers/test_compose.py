"""docker-compose.yml by the real Docker Engine and Docker Compose: `tools/containers/run-compose.sh` runs this."""

import contextlib
import functools
import hashlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest
from counterfoil_cli.env import CALL_ORDER

from tests.containers.smoke import Door, Told, check, forecast, send_events, tell
from tests.system.installation import traceparent, until
from tests.system.tenant import ok

if "DOCKER_HOST" not in os.environ:
    pytest.skip("Docker Compose is run by tools/containers/run-compose.sh", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_DATABASE = "gateway"
ONCE = {"secrets", *(f"{name}-migrate" for name in CALL_ORDER if name != WITHOUT_DATABASE)}
MEMORY_MIB = {"gateway": 768, "governance": 512, "contracts": 1024, "ingest": 4096, "graph": 1024, "models": 2048}
OUTSIDE = "203.0.113.2"
"""A machine that is none of ours, beyond the one that Docker runs on."""
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=700)
    assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done


def compose(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["docker-compose", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=700, cwd=ROOT)
    assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done


@functools.cache
def has_image(name: str) -> bool:
    """Say whether there is a stand-in of an image of others."""
    return docker("image", "inspect", name, check=False).returncode == 0


def up() -> None:
    """Start everything there is an image of (and Prometheus, of which there may be one), until all of it is healthy."""
    services = orjson.loads(compose("--profile=observability", "config", "--format=json").stdout)["services"]
    started = compose(
        "--profile=observability", "up", "--detach", "--no-build", "--pull=never", "--wait", "--wait-timeout=600",
        *(name for name, service in services.items() if has_image(service["image"])), check=False,
    )  # fmt: skip
    logs = "" if started.returncode == 0 else compose("logs", "--tail=20").stdout
    assert started.returncode == 0, f"{started.stderr}\n{compose('ps', '-a').stdout}\n{logs}"


def containers() -> dict[str, dict[str, Any]]:
    """Return what the engine knows of each container, by its service."""
    names = docker("ps", "-aq", "--filter=label=com.docker.compose.oneoff=False").stdout.split()
    found = orjson.loads(docker("inspect", *names).stdout) if names else []
    return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}


def python(service: str, code: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Python in a service's own container."""
    return compose("exec", "-T", service, "python", "-c", code, *arguments, check=check)


def on_network(network: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a container of nobody's on one network."""
    image = "counterfoil/cli:dev"
    return docker(
        "run",
        "--rm",
        f"--network=counterfoil_{network}",
        "--entrypoint=python",
        image,
        "-c",
        code,
        *arguments,
        check=False,
    )


def reaches(service: str, host: str, port: int) -> bool:
    """Say whether a service's container gets a connection."""
    return connected(python(service, CONNECT, host, str(port), check=False))


def stranger_reaches(network: str, host: str, port: int) -> bool:
    """Say whether a container of nobody's on one network gets a connection."""
    return connected(on_network(network, CONNECT, host, str(port)))


def connected(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode in (0, 1), done  # others are the engine's
    return done.returncode == 0


def healthy(service: str, *, restarts: int) -> bool | None:
    found = containers()[service]
    is_back = found["RestartCount"] >= restarts and found["State"]["Running"]
    return True if is_back and found["State"]["Health"]["Status"] == "healthy" else None


def kill(service: str) -> None:
    """Kill the first process of a container, as the kernel would: `docker kill` would count as a wish."""
    os.kill(containers()[service]["State"]["Pid"], signal.SIGKILL)


def wait_until_all_is_there(told: Told) -> None:
    """Check what was told again and again: at first processes find out that connections of theirs are gone."""

    def checked() -> bool | None:
        try:
            check(told)
        except AssertionError:
            return None
        return True

    with contextlib.suppress(AssertionError):
        until(checked, seconds=120, what="not everything is there")
    check(told)  # says what is not


@pytest.fixture(scope="module", autouse=True)
def installation() -> None:
    """The whole house, started as a stranger starts it."""
    up()


@pytest.fixture(scope="module")
def door() -> Door:
    """The published port, and the admin's key from the volume that only the command line mounts."""
    code = "import os; print(open(os.environ['COUNTERFOIL_DATA_DIR'] + '/admin.key').read())"
    key = compose("run", "--rm", "-T", "--no-deps", "--entrypoint=python", "cli", "-c", code).stdout.strip()
    return Door("http://127.0.0.1:8080", key)


@pytest.fixture(scope="module")
def told(door: Door) -> Iterator[Told]:
    """A workspace in which everything was done once."""
    with contextlib.closing(tell(door, "smoke")) as world:
        yield world


@pytest.fixture(scope="module")
def outside() -> Iterator[str]:
    """The address of a web server beyond this machine, which knows no way back to Docker's networks."""
    for command in (
        "netns add outside",
        "link add way type veth peer name far",
        "link set far netns outside",
        "address add 203.0.113.1/24 dev way",
        "link set way up",
        f"-n outside address add {OUTSIDE}/24 dev far",
        "-n outside link set far up",
        "route add default via 203.0.113.2",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    server = (
        "import socket; s = socket.create_server(('', 80)); print('up', flush=True)\nwhile True: s.accept()[0].close()"
    )
    command = ["ip", "netns", "exec", "outside", "python3", "-c", server]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield OUTSIDE
        process.kill()


def test_everything_that_serves_is_healthy_and_what_runs_once_has_ended_well():
    found = containers()
    assert set(found) >= {*CALL_ORDER, *ONCE, "postgres"}
    for name, container in found.items():
        state = container["State"]
        if name in ONCE:
            assert (state["Status"], state["ExitCode"]) == ("exited", 0), name
        else:
            assert state["Status"] == "running", name
            assert state.get("Health", {}).get("Status", "healthy") == "healthy", name
    assert all("Health" in found[name]["State"] for name in (*CALL_ORDER, "postgres"))


def test_only_the_doors_and_the_pages_are_published_and_on_this_machine_alone():
    listening = {(c.laddr.ip, c.laddr.port) for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    published = {("127.0.0.1", 8080), ("127.0.0.1", 8081)}
    found = containers()
    pages = {("127.0.0.1", port) for name, port in (("jaeger", 16686), ("prometheus", 9090)) if name in found}
    assert {each for each in listening if each[1] < 30000} == published | pages


def test_a_stranger_does_everything_through_the_published_port(door: Door, told: Told):
    send_events(door, told.write_key)
    check(told)


@pytest.mark.parametrize("service", CALL_ORDER)
def test_a_process_can_neither_write_its_files_nor_gain_a_right_and_its_memory_has_an_end(service: str):
    code = """
import json, os, pathlib, sys
def write(place):
    try:
        (pathlib.Path(place) / "probe").write_text("x")
        return "written"
    except OSError as error:
        return os.strerror(error.errno)
status = dict(line.split(":\\t", 1) for line in open("/proc/1/status").read().splitlines() if ":\\t" in line)
limits = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "writes": {place: write(place) for place in sys.argv[1:]},
    "status": {name: status[name] for name in ("Uid", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")},
    "secrets": sorted(os.listdir("/run/secrets/counterfoil")),
    "memory": next(int(open(file).read()) for file in limits if os.path.exists(file)),
}))
"""
    closed = ("/", "/opt/venv", "/run/secrets/counterfoil", "/etc/counterfoil/trusted")
    seen = orjson.loads(python(service, code, *closed, "/tmp").stdout)
    assert seen["user"] == [10001, 10001]
    assert seen["writes"] == dict.fromkeys(closed, "Read-only file system") | {"/tmp": "written"}
    nothing = "0" * 16
    none = {"CapEff": nothing, "CapPrm": nothing, "CapBnd": nothing}
    assert seen["status"] == none | {"Uid": "\t".join(["10001"] * 4), "NoNewPrivs": "1", "Seccomp": "2"}
    own = {"private_key.pem"} | ({"counterfoil_database_url"} if service != WITHOUT_DATABASE else set())
    own |= {"counterfoil_governance_bootstrap_key_sha256"} if service == "governance" else set()
    assert set(seen["secrets"]) == own
    assert seen["memory"] == MEMORY_MIB[service] << 20


def test_who_takes_more_memory_than_allowed_is_killed_alone():
    greedy = compose(
        "run",
        "--rm",
        "-T",
        "--no-deps",
        "--entrypoint=python",
        "contracts",
        "-c",
        "bytes(range(1)) * (1200 << 20)",
        check=False,
    )
    assert greedy.returncode == 137, greedy
    assert healthy("contracts", restarts=0)


def test_postgresql_runs_as_its_own_user_and_gains_no_right():
    status = compose("exec", "-T", "postgres", "grep", "-E", "^(Uid|CapEff|NoNewPrivs)", "/proc/1/status").stdout
    assert status.split() == ["Uid:", *["999"] * 4, "CapEff:", "0" * 16, "NoNewPrivs:", "1"]


def test_only_the_gateway_gets_out(outside: str):
    networks = {
        name.removeprefix("counterfoil_") for name in docker("network", "ls", "--format={{.Name}}").stdout.split()
    }
    networks &= {"edge", "inside", "data", "pages"}  # without Jaeger there are no pages
    with ThreadPoolExecutor() as pool:  # most of it is waiting for connections that never come
        services = dict(zip(CALL_ORDER, pool.map(lambda name: reaches(name, outside, 80), CALL_ORDER), strict=True))
        strangers = dict(
            zip(networks, pool.map(lambda name: stranger_reaches(name, outside, 80), networks), strict=True)
        )
    assert services == {name: name == "gateway" for name in CALL_ORDER}
    assert strangers == {name: name == "edge" for name in networks}  # it is the network that forbids it


def test_postgresql_is_reached_by_services_and_services_by_the_gateway_and_neither_from_elsewhere():
    found = containers()

    def address(service: str, network: str) -> str:
        return str(found[service]["NetworkSettings"]["Networks"][f"counterfoil_{network}"]["IPAddress"])

    database, ingest = (address("postgres", "data"), 5432), (address("ingest", "inside"), 7101)
    with ThreadPoolExecutor() as pool:
        asked = [
            pool.submit(reaches, "ingest", "postgres", 5432),
            pool.submit(reaches, "gateway", "ingest", 7101),
            pool.submit(stranger_reaches, "data", *database),
            pool.submit(stranger_reaches, "inside", *ingest),
            pool.submit(reaches, "gateway", "postgres", 5432),
            pool.submit(stranger_reaches, "edge", *database),  # not by its number either
            pool.submit(stranger_reaches, "edge", *ingest),
        ]
    assert [each.result() for each in asked] == [True] * 4 + [False] * 3


def test_the_command_line_prints_a_link_that_signs_a_browser_in_through_the_published_port():
    [link] = compose("run", "--rm", "-T", "--no-deps", "cli", "console").stdout.split()
    assert re.fullmatch(r"http://localhost:8080/console/sign-in\?code=\S+", link)
    with httpx.Client(follow_redirects=True, trust_env=False, timeout=30) as browser:
        page = browser.get(link)
        assert (page.status_code, page.url.path) == (200, "/console/")
        assert ok(browser.get("http://localhost:8080/console/session"))["principal"] == "admin"
        assert browser.get(link).status_code == 410


def test_one_trace_crosses_the_services_and_is_read_from_jaeger(told: Told):
    if "jaeger" not in containers():
        pytest.skip("there is no stand-in of Jaeger here: tools/containers/build-jaeger.sh")
    parent, trace_id = traceparent()
    answer = told.tenant.http.post(
        "/v1/forecasts",
        json={"model_id": "shops", "horizon_days": 3},
        headers={"Request-Timeout": "60", "traceparent": parent},
    )
    ok(answer)

    def services() -> set[str] | None:
        found = httpx.get(f"http://127.0.0.1:16686/api/traces/{trace_id}", timeout=5, trust_env=False)
        if found.status_code != 200:
            return None
        names = {each["serviceName"] for trace in found.json()["data"] for each in trace["processes"].values()}
        return names if {"gateway", "models", "ingest"} <= names else None

    until(services, seconds=120, what="Jaeger has no trace of gateway, models and ingest")


@pytest.mark.at_length
def test_a_process_that_dies_is_started_again_and_nothing_is_lost(door: Door, told: Told):
    restarts = {name: containers()[name]["RestartCount"] for name in CALL_ORDER}
    for name in CALL_ORDER:
        kill(name)
    for name, before in restarts.items():
        until(lambda: healthy(name, restarts=before + 1), seconds=300, what=f"{name} is not back")  # noqa: B023
    wait_until_all_is_there(told)
    send_events(door, told.write_key)
    check(told)


@pytest.mark.at_length
def test_postgresql_dies_and_comes_back_with_what_was_acknowledged(door: Door, told: Told):
    kill("postgres")
    until(lambda: healthy("postgres", restarts=1), seconds=300, what="PostgreSQL is not back")
    wait_until_all_is_there(told)
    send_events(door, told.write_key)
    check(told)


@pytest.mark.at_length
def test_the_demo_runs_against_the_gateway(told: Told):
    if not has_image("counterfoil/demo:dev"):
        pytest.fail("there is no image of the demo")
    done = compose("run", "--rm", "-T", "--no-deps", "demo", "--url", "http://gateway:8080", "--pack", "harbour_store")
    assert "Done in" in done.stdout


def test_prometheus_scrapes_every_process():
    if "prometheus" not in containers():
        pytest.skip("there is no stand-in of Prometheus here")

    def scraped() -> bool | None:
        query = {"query": 'up{job="counterfoil"} == 1'}
        answer = httpx.get("http://127.0.0.1:9090/api/v1/query", params=query, timeout=5, trust_env=False)
        names = {each["metric"]["service"] for each in ok(answer)["data"]["result"]}
        return True if names == set(CALL_ORDER) else None

    until(scraped, seconds=300, what="a process is not scraped")


def secrets() -> dict[str, str]:
    """Return the SHA-256 of every file in the volumes of secrets."""
    found = {}
    for volume in docker("volume", "ls", "-q").stdout.split():
        if "secrets" in volume or "trusted" in volume:
            folder = Path(docker("volume", "inspect", "--format={{.Mountpoint}}", volume).stdout.strip())
            found |= {
                f"{volume}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()
            }
    return found


@pytest.mark.at_length
def test_down_and_up_again_keeps_every_secret_and_every_record(door: Door, told: Told):
    before = secrets()
    compose("--profile=*", "down")
    assert containers() == {}
    up()
    assert secrets() == before
    assert len(before) == 1 + 1 + 6 + 5 + 1 + 6  # admin's key, password, private keys, URLs, digest, public keys
    assert {container["State"]["ExitCode"] for name, container in containers().items() if name in ONCE} == {0}
    forecast(told.tenant)
    check(told)


def test_down_with_volumes_leaves_nothing(told: Told):
    compose("--profile=*", "down", "--volumes")
    assert docker("ps", "-aq").stdout == ""
    assert docker("volume", "ls", "-q").stdout == ""
    assert set(docker("network", "ls", "--format={{.Name}}").stdout.split()) == {"bridge", "host", "none"}
