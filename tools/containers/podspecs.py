"""Kubernetes workloads as podman 4.3.1 can play them.

What `podman kube play` leaves out or does otherwise is put right here: each place says what that is. What it cannot
honour, and what would change behaviour, is refused instead of left out.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.containers.probes import KINDS, Probe

Document = Mapping[str, Any]

PLAYED = frozenset({"Deployment", "StatefulSet", "Job"})
USED = frozenset({"ConfigMap", "Secret", "PersistentVolumeClaim", "Service"})
NOT_ENFORCED = frozenset(
    {"Namespace", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
)
"""Kinds that podman ignores; docs/operations/containers.md says how they are validated instead."""

_SECRET = "secret."  # noqa: S105  (a prefix)


class UnsupportedError(Exception):
    """Something in the manifests cannot be played as it would run on Kubernetes."""


@dataclass(frozen=True)
class Workload:
    """One Deployment, StatefulSet or Job: what its pods are made of."""

    name: str
    kind: str
    spec: Document
    """The pod's spec as podman shall have it, but for the names of emptyDir volumes."""
    labels: Mapping[str, str]
    hosts: tuple[str, ...]
    """Names under which Services make its pods known."""
    probes: Mapping[str, Mapping[str, Probe]]
    """By container and kind of probe."""
    claims: tuple[str, ...] = ()
    """The volumes that outlive its pods."""
    rollout: Mapping[str, Any] = field(default_factory=dict)
    """`maxSurge` and `maxUnavailable`."""
    pre_stop_seconds: float = 0.0
    grace_seconds: int = 30
    deadline_seconds: int = 600
    backoff_limit: int = 6

    @property
    def containers(self) -> list[str]:
        """The names of its containers, without those that only begin."""
        return [container["name"] for container in self.spec["containers"]]

    def pod(self, name: str) -> Document:
        """Return the document of one of its pods.

        An emptyDir is a *named* volume to podman, which two pods with a volume of one name would share.
        """
        spec = copy.deepcopy(dict(self.spec))
        names = {volume["name"]: f"{name}-{volume['name']}" for volume in spec["volumes"] if "emptyDir" in volume}
        for volume in spec["volumes"]:
            volume["name"] = names.get(volume["name"], volume["name"])
        for container in _all_containers(spec):
            for mount in container.get("volumeMounts", ()):
                mount["name"] = names.get(mount["name"], mount["name"])
        metadata = {"name": name, "labels": dict(self.labels)}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def workloads(documents: Iterable[Document]) -> dict[str, Workload]:
    """Return what is to be played, by name; raise UnsupportedError."""
    documents = list(documents)
    if unknown := {each["kind"] for each in documents} - PLAYED - USED - NOT_ENFORCED:
        raise UnsupportedError(f"kinds that are not handled: {', '.join(sorted(unknown))}")
    services = [each for each in documents if each["kind"] == "Service"]
    return {each["metadata"]["name"]: _workload(each, services) for each in documents if each["kind"] in PLAYED}


def config_maps(documents: Iterable[Document]) -> list[Document]:
    """Return the ConfigMaps, and the Secrets as such: podman takes a Secret, but every use of it fails."""
    found: list[Document] = []
    for each in documents:
        if each["kind"] == "ConfigMap":
            found.append({key: each[key] for key in ("apiVersion", "kind", "metadata", "data")})
        elif each["kind"] == "Secret":
            data = {key: base64.b64decode(value).decode() for key, value in each.get("data", {}).items()}
            metadata = {"name": _SECRET + each["metadata"]["name"]}
            data |= each.get("stringData", {})
            found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return found


def _workload(document: Document, services: list[Document]) -> Workload:
    name, kind, of = document["metadata"]["name"], document["kind"], document["spec"]
    template = of["template"]
    labels = template["metadata"]["labels"]
    spec = _secrets_as_config_maps(template["spec"])
    spec.setdefault("volumes", [])
    for claim in of.get("volumeClaimTemplates", ()):
        named = claim["metadata"]["name"]
        spec["volumes"].append({"name": named, "persistentVolumeClaim": {"claimName": f"{named}-{name}-0"}})
    _refuse_what_is_not_honoured(name, spec)
    probes = {each["name"]: dict(_probes(each)) for each in spec["containers"]}
    hosts = tuple(_hosts(document, services, spec["containers"]))
    pre_stop = max(_pre_stop_seconds(each) for each in spec["containers"])
    claims = [each["persistentVolumeClaim"] for each in spec["volumes"] if "persistentVolumeClaim" in each]
    _mount_as_claimed(spec)
    for container in _all_containers(spec):
        for key in ("ports", "lifecycle", *KINDS):
            container.pop(key, None)  # ports would be published on every address; the others are done by us, or wrong
    if kind == "Job":
        spec["restartPolicy"] = "Never"
    elif spec.get("initContainers"):
        spec["restartPolicy"] = "OnFailure"  # with Always the initContainers, too, are restarted for ever
    return Workload(
        name=name,
        kind=kind,
        spec=spec,
        labels=labels,
        hosts=hosts,
        probes=probes,
        claims=tuple(each["claimName"] for each in claims),
        rollout=of.get("strategy", {}).get("rollingUpdate", {}),
        pre_stop_seconds=pre_stop,
        grace_seconds=spec.get("terminationGracePeriodSeconds", 30),
        deadline_seconds=of.get("activeDeadlineSeconds", 600),
        backoff_limit=of.get("backoffLimit", 6),
    )


def _all_containers(spec: Document) -> list[dict[str, Any]]:
    return [*spec["containers"], *spec.get("initContainers", ())]


def _secrets_as_config_maps(part: Any) -> Any:
    """Rewrite every reference to a Secret into one to its ConfigMap."""
    if isinstance(part, list):
        return [_secrets_as_config_maps(each) for each in part]
    if not isinstance(part, Mapping):
        return part
    made: dict[str, Any] = {}
    for key, value in part.items():
        if key in ("secretKeyRef", "secretRef"):
            made[key.replace("secret", "configMap")] = {**value, "name": _SECRET + value["name"]}
        elif key == "secret" and isinstance(value, Mapping) and "secretName" in value:
            kept = {name: value[name] for name in ("items", "defaultMode") if name in value}
            made["configMap"] = {"name": _SECRET + value["secretName"], **kept}
        else:
            made[key] = _secrets_as_config_maps(value)
    return made


def _refuse_what_is_not_honoured(name: str, spec: Document) -> None:
    for container in _all_containers(spec):
        where = f"{name}/{container['name']}"
        if any("subPath" in mount for mount in container.get("volumeMounts", ())):
            raise UnsupportedError(f"{where}: subPath is not honoured, a folder appears instead")
        if any("$(" in variable.get("value", "") for variable in container.get("env", ())):
            raise UnsupportedError(f"{where}: $(NAME) in the value of a variable is not expanded")
        if container.get("restartPolicy"):
            raise UnsupportedError(f"{where}: a container that begins and stays (sidecar) is not known")
    for volume in spec["volumes"]:
        if not volume.keys() & {"configMap", "emptyDir", "persistentVolumeClaim", "hostPath"}:
            raise UnsupportedError(f"{name}: the volume {volume['name']} is of a kind that is not known")


def _mount_as_claimed(spec: Document) -> None:
    """Mount read-only what a claim gives read-only: podman looks at the mount alone."""
    read_only = {
        volume["name"] for volume in spec["volumes"] if volume.get("persistentVolumeClaim", {}).get("readOnly", False)
    }
    for container in _all_containers(spec):
        for mount in container.get("volumeMounts", ()):
            if mount["name"] in read_only:
                mount["readOnly"] = True


def _probes(container: Document) -> Iterator[tuple[str, Probe]]:
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ()) if "name" in port}
    for kind in KINDS:
        if kind in container:
            yield kind, Probe.read(container[kind], ports)


def _pre_stop_seconds(container: Document) -> float:
    hook = container.get("lifecycle", {}).get("preStop", {})
    if hook.keys() - {"sleep"}:
        raise UnsupportedError(f"{container['name']}: only a preStop that sleeps is known")
    return float(hook.get("sleep", {}).get("seconds", 0))


def _hosts(document: Document, services: list[Document], containers: list[Document]) -> Iterator[str]:
    """Yield the names of the Services that select a workload's pods: no Service of podman's translates ports."""
    labels = document["spec"]["template"]["metadata"]["labels"]
    ports = {port.get("name"): port["containerPort"] for each in containers for port in each.get("ports", ())}
    for service in services:
        selector = service["spec"].get("selector")
        if not selector or not selector.items() <= labels.items():
            continue
        name, namespace = service["metadata"]["name"], service["metadata"].get("namespace", "default")
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            if ports.get(target, target) != port["port"]:
                raise UnsupportedError(f"Service {name}: port {port['port']} is not the container's {target}")
        place = f"{name}.{namespace}"
        yield from (name, place, f"{place}.svc", f"{place}.svc.cluster.local")
