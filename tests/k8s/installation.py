"""Rendered manifests, read as a cluster reads them: who runs with which environment, and who may talk to whom."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from counterfoil_chassis.settings import ServiceSettings
from counterfoil_contracts.settings import Settings as Contracts
from counterfoil_gateway.settings import Settings as Gateway
from counterfoil_governance.settings import Settings as Governance
from counterfoil_graph.settings import Settings as Graph
from counterfoil_ingest.settings import Settings as Ingest
from counterfoil_models.settings import Settings as Models

NAMESPACE = "counterfoil"
PROCESSES: Mapping[str, type[ServiceSettings]] = {
    "gateway": Gateway,
    "models": Models,
    "models-serving": Models,
    "graph": Graph,
    "ingest": Ingest,
    "contracts": Contracts,
    "governance": Governance,
}
SCALED = {"gateway", "models-serving"}
WORKLOADS = ("Deployment", "StatefulSet", "Job")
Document = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, ours or somebody else's."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    ports: Mapping[str, int] = field(default_factory=dict)


class Installation:
    """What one kustomization renders."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents

    def all(self, *kinds: str) -> dict[str, Document]:
        """Return the documents of some kinds by their names."""
        return {each["metadata"]["name"]: each for each in self.documents if each["kind"] in kinds}

    def pod(self, name: str) -> Document:
        """Return the pod template of a workload."""
        template: Document = self.all(*WORKLOADS)[name]["spec"]["template"]
        return template

    def process(self, name: str) -> Document:
        """Return the one container of a workload that lasts."""
        (container,) = self.pod(name)["spec"]["containers"]
        assert isinstance(container, dict)
        return container

    def peer(self, name: str) -> Peer:
        """Return a workload's pod as an end of connections."""
        ports = {each["name"]: each["containerPort"] for each in self.process(name).get("ports", [])}
        return Peer(self.pod(name)["metadata"]["labels"], ports=ports)

    def environment(self, container: Document) -> dict[str, str]:
        """Return what a container finds in its environment."""
        found: dict[str, str] = {}
        for each in container.get("envFrom", []):
            found |= self.all("ConfigMap")[each["configMapRef"]["name"]]["data"]
        return found | {each["name"]: each["value"] for each in container.get("env", [])}

    def secret_keys(self, name: str) -> set[str]:
        """Return the keys of a Secret, whoever makes it."""
        if name in self.all("Secret"):
            return set(self.all("Secret")[name]["data"])
        if name in {each["spec"]["secretName"] for each in self.all("Certificate").values()}:
            return {"tls.crt", "tls.key", "ca.crt"}
        return {each["secretKey"] for each in self.all("ExternalSecret")[name]["spec"]["data"]}

    def files(self, name: str, container: Document) -> dict[str, set[str]]:
        """Return the files of the Secrets that a container mounts, by folder."""
        volumes = {each["name"]: each for each in self.pod(name)["spec"]["volumes"]}
        return {
            mount["mountPath"]: self.secret_keys(volumes[mount["name"]]["secret"]["secretName"])
            for mount in container.get("volumeMounts", [])
            if "secret" in volumes.get(mount["name"], {})  # a StatefulSet's claims are not among them
        }

    def selected(self, service: Document) -> list[str]:
        """Return the workloads whose pods a Service, policy or budget selects."""
        selector = service["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        return [name for name in self.all(*WORKLOADS) if wanted.items() <= self.pod(name)["metadata"]["labels"].items()]

    def allows(self, source: Peer, target: Peer, port: int) -> bool:
        """Say whether the policies let one pod open a connection to a port of another."""
        return self.lets("Egress", source, target, port) and self.lets("Ingress", target, source, port)

    def lets(self, direction: str, own: Peer, other: Peer, port: int) -> bool:
        """Say whether the policies of one end let it connect out (Egress) or be connected to (Ingress)."""
        if own.namespace != NAMESPACE:
            return True  # policies of ours bind pods of ours
        policies = [
            each["spec"]
            for each in self.all("NetworkPolicy").values()
            if direction in each["spec"]["policyTypes"] and _selects(each["spec"]["podSelector"], own.labels)
        ]
        if not policies:
            return True
        named = (other if direction == "Egress" else own).ports
        ends = "to" if direction == "Egress" else "from"
        return any(
            (ends not in rule or any(_is(end, other) for end in rule[ends]))
            and ("ports" not in rule or port in [named.get(each["port"], each["port"]) for each in rule["ports"]])
            for policy in policies
            for rule in policy.get(direction.lower(), [])
        )


def _is(end: Document, peer: Peer) -> bool:
    if "ipBlock" in end:
        return peer.namespace == "elsewhere"
    where = {"kubernetes.io/metadata.name": peer.namespace}
    in_namespace = (
        _selects(end["namespaceSelector"], where) if "namespaceSelector" in end else peer.namespace == NAMESPACE
    )
    return in_namespace and _selects(end.get("podSelector", {}), peer.labels)


def _selects(selector: Document, labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In"
        if labels.get(each["key"]) not in each["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def variables(settings: type[ServiceSettings]) -> Iterator[str]:
    """Yield the environment variables that a process reads."""
    for name, each in settings.model_fields.items():
        yield str(each.validation_alias or f"{settings.model_config['env_prefix']}{name}".upper())


def decoded(secret: Document) -> Iterator[str]:
    """Yield the values of a Secret."""
    for value in secret.get("data", {}).values():
        yield base64.b64decode(value).decode()
    yield from secret.get("stringData", {}).values()
