"""k8s/overlays/dev as podman plays it: `tools/containers/run-kube.sh` runs this.

The cluster begins with the databases of the previous release, which the migration Jobs upgrade while every pod that
needs them waits. What podman does not enforce is in docs/operations/containers.md.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.containers import previous
from tests.containers.smoke import Door, Told, check, forecast, send_events, tell
from tests.rolling import load
from tests.system import golden_folder
from tests.system.installation import COMMAND, until
from tests.system.load import Load
from tests.system.tenant import Tenant
from tools.containers.kube import NAMESERVER, Cluster, Pod, logs, podman

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("governance", "contracts", "ingest", "graph", "models")
WITH_DATABASE = (*SERVICES, "models-serving")
OURS = (*WITH_DATABASE, "gateway")
USER = 10001
RECOVERY_SECONDS = 240


@dataclass
class World:
    """The cluster, and what was seen while it came up."""

    cluster: Cluster
    pods: dict[str, Pod]
    """The pod of each workload that runs now."""
    postgres: str
    """URL of the server."""
    golden: dict[str, Any]
    """What the previous release said of its data."""
    admin_key: str
    revisions: dict[str, str]
    """Of the databases before the Jobs ran."""
    waiting: dict[str, str]
    """What the initContainer of each pod said then whose database was older."""

    @property
    def door(self) -> Door:
        """The REST door of a gateway."""
        return Door(f"http://{self.pods['gateway'].address}:8080", self.admin_key)

    def replace(self, name: str) -> Pod:
        """End a workload's pod, and start another in its place when it is gone, as Recreate says."""
        self.cluster.terminate(self.pods[name])
        self.cluster.remove(self.pods[name])
        [self.pods[name]] = self.cluster.start(name)
        return self.pods[name]


def rendered(folder: Path, data: Path) -> list[dict[str, Any]]:
    """Return the overlay's manifests, with the keys of a data folder among its Secrets."""
    shutil.copytree(ROOT / "k8s", folder)
    secrets = folder / "overlays" / "dev" / "secrets"
    previous.secrets_of(data, secrets)
    subprocess.run([COMMAND, "secrets", secrets], check=True, stdout=subprocess.DEVNULL)
    command = ["kubectl", "kustomize", folder / "overlays" / "dev"]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything of the overlay, started at once over the previous release's data; ready when the Jobs are done."""
    began = time.monotonic()
    folder = tmp_path_factory.mktemp("kube")
    golden_folder.unpack(folder / "golden")
    documents = rendered(folder / "k8s", folder / "golden")
    cluster = Cluster(documents)
    try:
        keep_artifacts(folder / "golden")
        [database] = cluster.start("postgres")
        password = (folder / "k8s" / "overlays" / "dev" / "secrets" / "postgres" / "password").read_text().strip()
        server = f"postgresql://counterfoil:{password}@{database.address}:5432"
        previous.fill(server, folder / "golden")
        revisions = previous.revisions(server)
        begun = {name: cluster.begin(name) for name in cluster.of_kind("Deployment") if has_image(cluster, name)}
        older = [name for name in WITH_DATABASE if revisions[database_of(name)] != previous.newest()[database_of(name)]]
        waiting = {name: until(lambda: waits(name), seconds=RECOVERY_SECONDS, what=name) for name in older}  # noqa: B023
        assert not any(begun[name].done() for name in older)
        cluster.run_jobs(*cluster.of_kind("Job"))
        pods = {"postgres": database} | {name: each.result() for name, each in begun.items()}
        for pod in pods.values():
            pod.wait_ready()
        print(f"\n{len(pods)} pods are ready after {time.monotonic() - began:.0f} s")
        key = (folder / "golden" / "admin.key").read_text().strip()
        yield World(cluster, pods, server, golden_folder.expected(), key, revisions, waiting)
    finally:
        keep_logs(Path(os.environ["CACHE"]) / "kube-logs")
        cluster.close()


def keep_logs(folder: Path) -> None:
    """Write what each container said where it can be read when the sandbox is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    containers = podman("ps", "--all", "--format", "{{.Names}}").split()
    for each in json.loads(podman("container", "inspect", *containers)) if containers else ():
        shutil.copyfile(each["HostConfig"]["LogConfig"]["Path"], folder / f"{each['Name']}.log")


def database_of(name: str) -> str:
    """Return the service whose database a workload uses."""
    return name.removesuffix("-serving")


def keep_artifacts(data: Path) -> None:
    """Put the model artifacts of a data folder where the first pod of models will have its own."""
    podman("volume", "create", "models-0-data")
    volume = Path(podman("volume", "inspect", "--format", "{{.Mountpoint}}", "models-0-data"))
    shutil.copytree(data / "artifacts", volume / "artifacts")
    for each in (volume, *volume.rglob("*")):
        os.chown(each, USER, USER)


def has_image(cluster: Cluster, name: str) -> bool:
    """Say whether a workload's image was built here: all of ours are, not every one of others."""
    image = cluster.workloads[name].spec["containers"][0]["image"]
    there = subprocess.run(["podman", "image", "exists", image], check=False).returncode == 0
    assert there or name not in OURS, f"{image} is not there: tools/containers/build-images.sh"
    return there


def waits(name: str) -> str | None:
    """Return what a pod's initContainer says that it waits for; None before it does."""
    container = f"{name}-0-migrated"
    if not podman("ps", "--filter", f"name=^{container}$", "--format", "{{.Names}}"):
        return None
    return next((line for line in logs(container, lines=1000).splitlines() if "waiting for the database" in line), None)


def test_pods_wait_in_their_init_container_for_the_migration(world: World):
    assert world.waiting.keys() >= {"governance", "ingest", "graph", "models", "models-serving"}
    for name, said in world.waiting.items():
        assert f"at revision {world.revisions[database_of(name)]}" in said
        job = json.loads(podman("container", "inspect", f"{database_of(name)}-migrate-0-migrate"))[0]
        assert job["State"]["ExitCode"] == 0
        assert job["State"]["FinishedAt"] <= world.pods[name].inspect()["State"]["StartedAt"]


def test_jobs_upgrade_the_previous_release_s_databases_and_keep_their_rows(world: World):
    assert previous.revisions(world.postgres) == previous.newest()
    for service, tables in world.golden["counts"].items():
        kept = {name: count for name, count in tables.items() if name not in previous.AT_WORK}
        found = previous.rows(world.postgres, service, list(kept))
        grown = {name for name in previous.GROWING & kept.keys() if found[name] > kept[name]}
        assert {name: kept[name] if name in grown else count for name, count in found.items()} == kept


def test_the_upgraded_installation_says_what_the_previous_release_said(world: World):
    golden_folder.assert_says_the_same(world.door, world.golden)  # type: ignore[arg-type]  # it needs the door alone


@pytest.mark.parametrize("name", OURS)
def test_each_deployment_s_process_is_confined(world: World, name: str):
    pod = world.pods[name]
    code = """
import errno, json, os, pathlib
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/1/status").read_text().splitlines())
found = {key: status[key].split() for key in ("Uid", "Gid", "CapEff", "CapBnd", "CapPrm", "NoNewPrivs", "Seccomp")}
def write(folder):
    try:
        (pathlib.Path(folder) / "probe").write_text("")
        return "written"
    except OSError as error:
        return errno.errorcode[error.errno]
found["writes"] = {folder: write(folder) for folder in ("/", "/opt", "/etc", "/tmp", "/run/secrets/counterfoil")}
limits = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max")
found["memory"] = next(pathlib.Path(file).read_text() for file in limits if os.path.exists(file))
found["environment"] = pathlib.Path("/proc/1/environ").read_text()
print(json.dumps(found))
"""
    found = json.loads(pod.execute("python", "-c", code))
    assert found["Uid"] == found["Gid"] == [str(USER)] * 4
    assert found["CapEff"] == found["CapBnd"] == found["CapPrm"] == ["0" * 16]
    assert (found["NoNewPrivs"], found["Seccomp"]) == (["1"], ["2"])
    assert found["writes"].pop("/tmp") == "written"
    assert set(found["writes"].values()) <= {"EROFS", "EACCES"}
    assert found["writes"]["/"] == "EROFS"
    limit = pod.workload.spec["containers"][0]["resources"]["limits"]["memory"]
    assert int(found["memory"]) == in_bytes(limit)
    assert "postgresql://" not in found["environment"]
    assert "PRIVATE KEY" not in found["environment"]


def in_bytes(quantity: str) -> int:
    """Return a quantity of Kubernetes in bytes."""
    units = {"Ki": 10, "Mi": 20, "Gi": 30}
    return int(quantity[:-2]) << units[quantity[-2:]]


def test_a_process_that_takes_more_memory_than_its_limit_is_killed_alone(world: World):
    pod = world.pods["gateway"]
    limit = in_bytes(pod.workload.spec["containers"][0]["resources"]["limits"]["memory"])
    code = f"kept = []\nwhile True: kept.append(bytearray(b'x' * {limit // 8}))"
    done = subprocess.run(["podman", "exec", pod.container, "python", "-c", code], check=False, timeout=60)
    assert done.returncode == 128 + signal.SIGKILL


@pytest.fixture(scope="module")
def told(world: World) -> Iterator[Told]:
    """A workspace in which everything was done once, through the gateway."""
    with contextlib.closing(tell(world.door, "smoke")) as told:
        yield told


def test_everything_works_through_the_gateway(world: World, told: Told):
    send_events(world.door, told.write_key)
    check(told)


def test_forecasts_come_from_the_pods_that_only_serve(world: World, told: Told):
    forecast(told.tenant)
    assert calls(world.pods["models-serving"], "CreateForecast") > 0
    assert calls(world.pods["models-serving"], "Replay") > 0
    assert calls(world.pods["models"], "CreateForecast") == 0


def calls(pod: Pod, method: str) -> float:
    """Return how many calls of a method a pod has answered."""
    text = httpx.get(f"http://{pod.address}:9104/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("counterfoil_server_calls_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if f'/{method}"' in line)


def test_what_was_stored_survives_the_pods(world: World, told: Told):
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(world.replace, ("postgres", "ingest", "models")))
    until(
        lambda: answers(world.door), seconds=RECOVERY_SECONDS, what="the services have not found their database again"
    )
    # Readiness may have been asked by a connection to the new pod while a call still waits on one to the old.
    until(lambda: takes_a_file(told), seconds=RECOVERY_SECONDS, what="no file is taken again")
    check(told)


def takes_a_file(told: Told) -> bool | None:
    """Tell whether an upload, which nothing repeats by itself, arrives; what is refused is told to come again."""
    query = {"dataset": "events", "format": "jsonl", "file_name": "again.jsonl"}
    answer = told.tenant.http.post("/v1/imports", params=query, content=b"")
    assert answer.status_code == 503 or answer.is_client_error or answer.is_success, answer.text
    return None if answer.status_code == 503 else True


def answers(door: Door) -> bool | None:
    """Tell whether the gateway says that every service is ready."""
    return True if httpx.get(f"{door.url}/readyz", timeout=10, trust_env=False).status_code == 200 else None


def test_crashes_and_a_hang_recover_and_lose_nothing_that_was_acknowledged(world: World):
    with world.door.http(world.admin_key) as admin:
        tenant = Tenant.create(world.door, admin, workspace="crashes")  # type: ignore[arg-type]  # the door alone
    working = Load.begin(tenant)
    try:
        working.wait_for_progress(seconds=RECOVERY_SECONDS)
        restarts, hung = world.pods["ingest"].restarts, time.monotonic()
        os.kill(world.pods["ingest"].inspect()["State"]["Pid"], signal.SIGSTOP)
        for name in ("governance", "contracts", "graph", "models", "models-serving"):
            crash(world.pods[name])
        until(
            lambda: True if world.pods["ingest"].restarts > restarts else None,
            seconds=RECOVERY_SECONDS,
            what="the liveness probe does not find the hang",
        )
        print(f"\nthe liveness probe found the hang after {time.monotonic() - hung:.0f} s")
        crash(world.pods["ingest"])
        working.wait_for_progress(seconds=RECOVERY_SECONDS)
        print(f"everybody's work goes on after {time.monotonic() - hung:.0f} s")
    finally:
        working.stop()
    assert working.refused() == []
    working.check()
    tenant.http.close()


def crash(pod: Pod) -> None:
    """Kill a pod's process, and wait until podman has started another."""
    old = pod.inspect()["State"]["Pid"]
    os.kill(old, signal.SIGKILL)
    until(
        lambda: True if pod.inspect()["State"]["Pid"] not in (0, old) else None,
        seconds=RECOVERY_SECONDS,
        what=f"{pod.name} is not started again",
    )


BALANCER = """
global
  maxconn 1000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
resolvers pods
  nameserver podman {nameserver}:53
  timeout resolve 200ms
  timeout retry 200ms
  hold valid 200ms
  hold obsolete 0ms
frontend door
  bind 127.0.0.1:8080
  default_backend gateways
backend gateways
  balance roundrobin
  option redispatch 1
  option httpchk GET /readyz
  http-check expect status 200
  default-server check port 9100 inter 200ms fall 1 rise 1 init-addr none resolvers pods resolve-prefer ipv4
  server-template gateway 4 gateway.counterfoil.svc.cluster.local:8080
"""


@pytest.fixture
def balancer(world: World, tmp_path: Path) -> Iterator[str]:
    """HAProxy before every pod that the Service `gateway` selects, asked five times a second whether it is ready.

    It asks where the kubelet's readiness probe has the same answer: the REST door's own /readyz is about every service.
    """
    file = tmp_path / "haproxy.cfg"
    file.write_text(BALANCER.format(nameserver=NAMESERVER))
    unpacked = Path(os.environ["CACHE"]) / "haproxy"
    libraries = {"LD_LIBRARY_PATH": str(unpacked / "usr/lib/x86_64-linux-gnu")}
    with (tmp_path / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            [unpacked / "usr/sbin/haproxy", "-db", "-f", file], stdout=log, stderr=log, env=os.environ | libraries
        )
    try:
        yield "http://127.0.0.1:8080"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.at_length
def test_a_rolling_restart_of_the_gateway_under_load_loses_no_request(world: World, balancer: str, told: Told):
    _, write_key = told.tenant.source("Rolled")
    running = [world.pods["gateway"], *world.cluster.start("gateway")]
    until(lambda: answers_at(balancer), seconds=RECOVERY_SECONDS, what="the balancer finds no gateway")
    with load(balancer, key=told.tenant.key, write_key=write_key) as working:
        working.wait_for_progress()
        for old in running:
            began = time.monotonic()
            fresh = world.cluster.surge(old)
            assert old.inspect()["State"]["ExitCode"] == 0, logs(old.container)
            world.pods["gateway"] = fresh
            print(f"\n{old.name} is replaced by {fresh.name} in {time.monotonic() - began:.0f} s")
            working.wait_for_progress()
    print(working.report())
    working.check(told.tenant.key, balancer)
    with Door(balancer, world.admin_key).http(told.tenant.key) as through:
        check(Told(Tenant(world.door, told.tenant.workspace, told.tenant.key, through), write_key, told.forecast))  # type: ignore[arg-type]


def answers_at(url: str) -> bool | None:
    """Tell whether a gateway answers behind a balancer."""
    try:
        return True if httpx.get(f"{url}/healthz", timeout=5, trust_env=False).status_code == 200 else None
    except httpx.TransportError:
        return None
