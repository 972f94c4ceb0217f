"""Play rendered Kubernetes manifests with podman 4.3.1, inside sandbox.sh.

`python -m tools.containers.kube MANIFESTS.yaml COMMAND...` waits until every pod is ready, runs the command, and ends
with its exit code. What `podman kube play` leaves out is done here: `podspecs` says what it gets instead, `probes` asks
the probes. The pods of every workload start at once, as on Kubernetes, and wait for each other in their initContainers;
only databases come first. There is no Service: its names lead to the pods that it selects, ready or not.
"""

from __future__ import annotations

import argparse
import ipaddress
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.containers.podspecs import Document, UnsupportedError, Workload, config_maps, workloads
from tools.containers.probes import Watch

NETWORK = "kube"
SUBNET = ipaddress.ip_network("10.89.0.0/24")
NAMESERVER = str(SUBNET[1])
"""Where the names of Services are known to those who are in no pod."""
COMMAND_SECONDS = 120.0
START_SECONDS = 600.0
"""Within which a pod has to be ready. Like every bound here it is for a machine that has much else to do."""


class PlayError(Exception):
    """A pod did not become what it should be; the message ends with what its containers said."""


def podman(*arguments: str, seconds: float = COMMAND_SECONDS) -> str:
    """Run podman and return what it printed; raise PlayError with what it complained of."""
    command = ["podman", *arguments]
    # conmon leaves files where a container was started: in the sandbox's folder for temporary files.
    place = tempfile.gettempdir()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, cwd=place)
    if done.returncode:
        raise PlayError(f"podman {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


@dataclass
class Pod:
    """One pod that runs. podman calls its containers `<pod>-<container>`."""

    name: str
    workload: Workload
    address: str
    watches: list[Watch]

    @property
    def container(self) -> str:
        """The name of its first container."""
        return f"{self.name}-{self.workload.containers[0]}"

    @property
    def ready(self) -> bool:
        """Whether all of its containers are."""
        return all(watch.ready for watch in self.watches)

    @property
    def restarts(self) -> int:
        """How often one of its containers was restarted because of a probe."""
        return sum(watch.restarts for watch in self.watches)

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until it is ready; raise PlayError when it is not by then."""
        until = time.monotonic() + seconds
        for watch in self.watches:
            if not watch.wait_ready(max(0.0, until - time.monotonic())):
                raise PlayError(f"{self.name} is not ready after {seconds:.0f} s\n{logs(watch.container)}")

    def inspect(self) -> dict[str, Any]:
        """Return what podman knows of its first container."""
        found: dict[str, Any] = json.loads(podman("container", "inspect", self.container))[0]
        return found

    def execute(self, *command: str) -> str:
        """Run a command in its first container and return what it printed."""
        return podman("exec", self.container, *command)


def logs(container: str, *, lines: int = 20) -> str:
    """Return the last lines that a container wrote, on either stream."""
    command = ["podman", "logs", "--tail", str(lines), container]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=COMMAND_SECONDS
    )
    return done.stdout


class Cluster:
    """The workloads of a set of manifests, and the pods of them that run. End it with `close`."""

    def __init__(self, documents: Iterable[Document]) -> None:
        """Read the manifests, and make the network and the volumes of claims; raise UnsupportedError."""
        documents = list(documents)
        self.workloads = workloads(documents)
        self.pods: dict[str, Pod] = {}
        self._config_maps = config_maps(documents)
        self._numbers = {name: itertools.count() for name in self.workloads}
        self._players = ThreadPoolExecutor(16, thread_name_prefix="play")
        self._begun: list[Future[Pod]] = []
        self._addresses = itertools.islice(SUBNET.hosts(), 1, None)  # the first is the network's own
        podman("network", "create", "--subnet", str(SUBNET), NETWORK)
        for claim in sorted({claim for workload in self.workloads.values() for claim in workload.claims}):
            podman("volume", "create", claim)  # the owner becomes the user of the first container that mounts it

    def of_kind(self, *kinds: str) -> list[str]:
        """Return the names of the workloads of these kinds."""
        return [name for name, workload in self.workloads.items() if workload.kind in kinds]

    def begin(self, name: str) -> Future[Pod]:
        """Start a pod; the result comes when its initContainers have ended, though it may not be ready yet."""
        pod = f"{name}-{next(self._numbers[name])}"
        begun = self._players.submit(self._play, self.workloads[name], pod, str(next(self._addresses)))
        self._begun.append(begun)
        return begun

    def start(self, *names: str) -> list[Pod]:
        """Start a pod of each workload at once and wait until all are ready."""
        pods = [begun.result() for begun in [self.begin(name) for name in names]]
        for pod in pods:
            pod.wait_ready()
        return pods

    def surge(self, old: Pod) -> Pod:
        """Replace a pod as a rolling update with maxSurge 1 and maxUnavailable 0 does: the next one is ready first."""
        rollout = old.workload.rollout
        if (rollout.get("maxSurge"), rollout.get("maxUnavailable")) != (1, 0):
            raise UnsupportedError(f"{old.workload.name}: only maxSurge 1 with maxUnavailable 0 is played")
        [fresh] = self.start(old.workload.name)
        self.terminate(old)
        return fresh

    def run_jobs(self, *names: str) -> None:
        """Run Jobs at once, each again until it succeeds or its backoffLimit is reached; raise PlayError."""
        jobs = [(self.workloads[name], str(next(self._addresses))) for name in names]
        for done in [self._players.submit(self._run_job, *job) for job in jobs]:
            done.result()

    def terminate(self, pod: Pod) -> None:
        """End a pod as the kubelet does: no more requests, the preStop hook, SIGTERM, SIGKILL when grace ends."""
        del self.pods[pod.name]
        for watch in pod.watches:
            watch.end()
        time.sleep(pod.workload.pre_stop_seconds)
        grace = pod.workload.grace_seconds
        containers = [f"{pod.name}-{name}" for name in pod.workload.containers]
        podman("stop", "--time", str(grace), *containers, seconds=COMMAND_SECONDS + grace)
        podman("pod", "stop", pod.name)  # and with it the network, which those that drain still need
        for watch in pod.watches:
            watch.join(COMMAND_SECONDS)

    def remove(self, pod: Pod) -> None:
        """Remove an ended pod; volumes of claims stay."""
        podman("pod", "rm", pod.name)

    def close(self) -> None:
        """Stop asking and starting; the sandbox takes the pods with it, but those that somebody waits for go now."""
        for pod in self.pods.values():
            for watch in pod.watches:
                watch.end()
        if not all(each.done() for each in self._begun):
            podman("pod", "rm", "--all", "--force", "--time", "0", seconds=START_SECONDS)
        self._players.shutdown(cancel_futures=True)

    def _play(self, workload: Workload, name: str, address: str) -> Pod:
        self._podman_play(workload, name, address)
        watches = [_watch(workload, name, container, address) for container in workload.containers]
        pod = self.pods[name] = Pod(name, workload, address, watches)
        for watch in watches:
            watch.start()
        return pod

    def _podman_play(self, workload: Workload, name: str, address: str) -> None:
        # Both addresses are given, since podman gives others when the pod's only container was stopped and started.
        place = f"ip={address},mac=02:00:00:00:00:{ipaddress.ip_address(address).packed[-1]:02x}"
        network = ",".join([f"{NETWORK}:{place}", *(f"alias={host}" for host in (name, *workload.hosts))])
        _check_user(workload)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump_all([*self._config_maps, workload.pod(name)], file)
            file.flush()
            podman("kube", "play", "--network", network, file.name, seconds=START_SECONDS + COMMAND_SECONDS)

    def _run_job(self, workload: Workload, address: str) -> None:
        for attempt in range(workload.backoff_limit + 1):
            name = f"{workload.name}-{attempt}"
            self._podman_play(workload, name, address)
            containers = [f"{name}-{container}" for container in workload.containers]
            codes = podman("wait", *containers, seconds=workload.deadline_seconds).split()
            if set(codes) == {"0"}:
                return
            podman("pod", "stop", name)  # which gives the address back
        raise PlayError(f"Job {workload.name}: exit codes {codes}\n{''.join(map(logs, containers))}")


def _watch(workload: Workload, pod: str, name: str, address: str) -> Watch:
    container = f"{pod}-{name}"

    def process() -> int:
        return int(podman("container", "inspect", "--format", "{{.State.Pid}}", container))

    def restart(grace_seconds: int | None) -> None:
        # Stopped and started: `podman restart` may leave a hung one stopped.
        grace = workload.grace_seconds if grace_seconds is None else grace_seconds
        podman("stop", "--time", str(grace), container, seconds=COMMAND_SECONDS + grace)
        podman("start", container)

    return Watch(container, address, workload.probes[name], process=process, restart=restart)


def _check_user(workload: Workload) -> None:
    """Refuse a root user where the manifest says runAsNonRoot, by the kubelet's rule: podman ignores it."""
    of_pod = workload.spec.get("securityContext", {})
    for container in [*workload.spec["containers"], *workload.spec.get("initContainers", ())]:
        context = {**of_pod, **container.get("securityContext", {})}
        if not context.get("runAsNonRoot"):
            continue
        image = json.loads(podman("image", "inspect", container["image"]))[0]
        user = str(context.get("runAsUser", image["Config"].get("User", "").partition(":")[0]))
        if not user.isdigit() or int(user) == 0:
            raise UnsupportedError(
                f"{workload.name}/{container['name']}: runAsNonRoot, but the user is {user or 'root'}"
            )


def main(arguments: Sequence[str]) -> int:
    """Play everything, then run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="kube", description="Play Kubernetes manifests with podman.")
    parser.add_argument("manifests", type=Path)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    cluster = Cluster(each for each in yaml.safe_load_all(given.manifests.read_text()) if each)
    try:
        cluster.start(*cluster.of_kind("StatefulSet"))
        begun = [cluster.begin(name) for name in cluster.of_kind("Deployment")]
        cluster.run_jobs(*cluster.of_kind("Job"))
        for each in begun:
            each.result().wait_ready()
        for pod in cluster.pods.values():
            print(f"{pod.name} is ready at {pod.address}", flush=True)
        return subprocess.run(given.command, check=False).returncode
    finally:
        cluster.close()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (PlayError, UnsupportedError) as error:
        sys.exit(f"kube: {error}")
