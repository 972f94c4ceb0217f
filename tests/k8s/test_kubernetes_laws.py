"""What holds of every installation's manifests, whatever they look like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from counterfoil_chassis import serve
from counterfoil_chassis.settings import ServiceSettings
from counterfoil_gateway import doors

from tests.k8s.installation import (
    NAMESPACE,
    PROCESSES,
    SCALED,
    WORKLOADS,
    Document,
    Installation,
    Peer,
    decoded,
    variables,
)

ROOT = Path(__file__).resolve().parents[2]
WRITERS = sorted(PROCESSES.keys() - SCALED)
WITH_DATABASE = sorted(PROCESSES.keys() - {"gateway"})
PROMETHEUS = Peer({"app.kubernetes.io/name": "prometheus"}, "monitoring")
STRANGER = Peer({}, "elsewhere")
OTHERS_VARIABLES = {  # of images that are not ours, by their documentation
    "jaeger": {"JAEGER_LISTEN_HOST"},
    "postgres": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE", "PGDATA"},
}


def containers(installation: Installation) -> Iterator[tuple[str, Document]]:
    """Yield (workload, container), initContainers as well."""
    for name in installation.all(*WORKLOADS):
        pod = installation.pod(name)["spec"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield name, container


def settings_of(installation: Installation, name: str, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    """Return the settings that a process reads in its pod; secrets have stand-ins for values."""
    process = installation.process(name)
    environment = installation.environment(process)
    for key in installation.files(name, process)[environment.pop("COUNTERFOIL_SECRETS_DIR")]:
        if key.startswith("counterfoil_"):
            value = "postgresql://counterfoil:secret@postgres:5432" if key.endswith("_url") else "0" * 64
            environment.setdefault(key.upper(), value)
    for variable in variables(PROCESSES[name]):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    return PROCESSES[name]()


def targets_of(settings: ServiceSettings) -> list[tuple[str, int]]:
    """Return where a process connects to, as (host, port)."""
    values = [str(value) for field, value in settings if field.endswith("_target") and value]
    return [(host, int(port)) for host, _, port in (value.rpartition("/")[2].rpartition(":") for value in values)]


def ports_of(settings: type[ServiceSettings]) -> set[int]:
    """Return the ports that a process listens on by default, and in its image."""
    fields = settings.model_fields
    return {int(str(fields[each].default).rpartition(":")[2]) for each in fields if each.endswith("listen")}


def test_every_process_of_the_platform_has_its_deployment(installation: Installation) -> None:
    assert PROCESSES.keys() == installation.all("Deployment").keys() - {"jaeger"}


def test_every_variable_is_a_setting_that_the_process_knows(installation: Installation) -> None:
    for name, container in containers(installation):
        service = name.removesuffix("-migrate")
        known = OTHERS_VARIABLES.get(name) or {*variables(PROCESSES[service])}
        assert installation.environment(container).keys() <= known, name
        for keys in installation.files(name, container).values():
            assert {each.upper() for each in keys if each.startswith("counterfoil_")} <= known, name


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_finds_in_its_pod_all_that_it_needs(
    installation: Installation, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(installation, name, monkeypatch)
    process = installation.process(name)
    files = installation.files(name, process)
    key = settings.private_key_file
    assert key is not None
    assert key.name in files[str(key.parent)]
    assert files[str(settings.trusted_keys_dir)] == {f"{each}.pem" for each in PROCESSES if each != "models-serving"}
    mounts = {each["mountPath"]: each for each in process["volumeMounts"]}
    assert not mounts[str(settings.data_dir)].get("readOnly")
    assert "/tmp" in mounts
    if name != "gateway":
        assert (
            settings.database_url
            == f"postgresql://counterfoil:secret@postgres:5432/counterfoil_{settings.service_name()}"
        )
    if name == "governance":
        assert settings.model_dump()["bootstrap_key_sha256"]
    for file in (settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file):
        assert file is None or file.name in files[str(file.parent)]


@pytest.mark.parametrize("name", PROCESSES)
def test_no_process_looks_for_another_on_its_own_machine(
    installation: Installation, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host, port in targets_of(settings_of(installation, name, monkeypatch)):
        service = installation.all("Service")[host]
        (target,) = installation.selected(service)
        assert port in installation.peer(target).ports.values()
        assert port in [each["port"] for each in service["spec"]["ports"]]


def test_each_process_may_call_whom_its_settings_name_and_nobody_else(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {
        (name, host, port)
        for name in PROCESSES
        for host, port in targets_of(settings_of(installation, name, monkeypatch))
    }
    assert needed
    peers = {name: installation.peer(name) for name in PROCESSES}
    connections = [
        (name, other, port)
        for name in PROCESSES
        for other in PROCESSES
        for port in peers[other].ports.values()
        if name != other
    ]
    out = {each for each in connections if installation.lets("Egress", peers[each[0]], peers[each[1]], each[2])}
    into = {each for each in connections if installation.lets("Ingress", peers[each[1]], peers[each[0]], each[2])}
    public = {(name, "gateway", port) for name in PROCESSES for port in (8080, 8081)}  # dev opens them to everybody
    assert out == needed
    assert into - public == needed


def test_the_processes_metrics_are_for_prometheus_alone(installation: Installation) -> None:
    for name in PROCESSES:
        peer = installation.peer(name)
        seen = {port for port in peer.ports.values() if installation.allows(PROMETHEUS, peer, port)}
        assert peer.ports["metrics"] in seen
        for other in (STRANGER, Peer({}, PROMETHEUS.namespace), *map(installation.peer, PROCESSES)):
            assert not installation.allows(other, peer, peer.ports["metrics"])


def test_only_what_has_a_database_reaches_postgresql(installation: Installation) -> None:
    server = installation.peer("postgres") if "postgres" in installation.all("StatefulSet") else STRANGER
    jobs = installation.all("Job")
    reaching = {
        name
        for name in installation.all(*WORKLOADS)
        if name != "postgres" and installation.allows(installation.peer(name), server, 5432)
    }
    assert reaching == {*WITH_DATABASE, *jobs}
    assert not installation.allows(Peer({}), server, 5432)


def test_every_process_reaches_dns_and_where_its_traces_go(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns = Peer({"k8s-app": "kube-dns"}, "kube-system")
    for name in installation.all(*WORKLOADS):
        assert installation.allows(installation.peer(name), dns, 53)
    for name in PROCESSES:
        place = urlsplit(settings_of(installation, name, monkeypatch).otlp_endpoint)
        assert place.hostname is not None
        host, _, namespace = place.hostname.partition(".")
        collector = Peer({}, namespace) if namespace else installation.peer(host)
        assert installation.allows(installation.peer(name), collector, place.port or 0)
        assert not installation.allows(installation.peer(name), collector, 22)


def test_nobody_from_elsewhere_gets_in_but_by_the_gateways_doors(rendered: dict[str, Installation]) -> None:
    for name, installation in rendered.items():
        balancer = Peer({}, "envoy-gateway-system")
        for other, open_to in ((STRANGER, name == "dev"), (balancer, True)):
            reached = {
                (process, port)
                for process in installation.all(*WORKLOADS)
                for port in installation.peer(process).ports.values()
                if installation.allows(other, installation.peer(process), port)
            }
            assert reached == ({("gateway", 8080), ("gateway", 8081)} if open_to else set())


def test_a_pod_that_no_policy_names_is_cut_off(installation: Installation) -> None:
    someone = Peer({"app.kubernetes.io/name": "someone"}, ports={"http": 80})
    for other in (STRANGER, *map(installation.peer, PROCESSES)):
        assert not installation.allows(someone, other, 443)
        assert not installation.allows(other, someone, 80)


@pytest.mark.parametrize("name", PROCESSES)
def test_ports_are_those_of_the_settings_and_the_image(installation: Installation, name: str) -> None:
    settings = PROCESSES[name]
    ports = set(installation.peer(name).ports.values())
    assert ports == ports_of(settings)
    service = settings.service_name()
    dockerfile = ROOT / ("gateway" if service == "gateway" else f"services/{service}") / "Dockerfile"
    assert {int(each) for each in re.findall(r"LISTEN=0\.0\.0\.0:(\d+)", dockerfile.read_text())} == ports


def test_services_have_the_ports_of_the_containers_they_select(installation: Installation) -> None:
    shown: set[str] = set()
    for service in installation.all("Service").values():
        (name,) = installation.selected(service)
        ports = installation.peer(name).ports
        for each in service["spec"]["ports"]:
            assert each["port"] == ports[each["targetPort"]]
        headless = service["spec"].get("clusterIP") == "None"
        assert headless == (service["metadata"]["name"] not in ("gateway", "jaeger"))
        shown.add(name)
    assert shown >= PROCESSES.keys()


def test_the_doors_service_shows_no_metrics_and_keeps_a_caller_at_one_gateway(installation: Installation) -> None:
    gateway = installation.all("Service")["gateway"]["spec"]
    assert [each["port"] for each in gateway["ports"]] == [8080, 8081]
    assert gateway["sessionAffinity"] == "ClientIP"


def test_prometheus_finds_the_metrics_of_every_process(installation: Installation) -> None:
    for monitor in installation.all("ServiceMonitor").values():
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (endpoint,) = monitor["spec"]["endpoints"]
        found = {
            installation.selected(service)[0]
            for service in installation.all("Service").values()
            if wanted.items() <= service["metadata"]["labels"].items()
            and endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        }
        assert found == PROCESSES.keys()


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_is_one_pod_that_ends_before_the_next_begins(installation: Installation, name: str) -> None:
    spec = installation.all("Deployment")[name]["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_only_what_holds_no_lease_is_scaled(installation: Installation) -> None:
    scaled = {"HorizontalPodAutoscaler": set[str](), "ScaledObject": set[str](), "PodDisruptionBudget": set[str]()}
    for kind, names in scaled.items():
        for each in installation.all(kind).values():
            target = each["spec"].get("scaleTargetRef")
            names.update([target["name"]] if target else installation.selected(each))
            if target:
                assert each["spec"].get("minReplicas", each["spec"].get("minReplicaCount")) >= 2
    autoscaled = [*scaled["HorizontalPodAutoscaler"], *scaled["ScaledObject"]]
    assert sorted(autoscaled) in ([], sorted(SCALED))  # each by one of them, never by both
    assert scaled["PodDisruptionBudget"] == set(autoscaled)
    for name in SCALED:
        spec = installation.all("Deployment")[name]["spec"]
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert "replicas" not in spec  # else an apply would undo what the autoscaler did


def test_production_scales(rendered: dict[str, Installation]) -> None:
    assert rendered["prod"].all("HorizontalPodAutoscaler").keys() == SCALED
    assert rendered["prod with keda and tls"].all("HorizontalPodAutoscaler").keys() == {"models-serving"}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_has_the_time_to_drain(
    installation: Installation, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(installation, name, monkeypatch)
    pod = installation.pod(name)["spec"]
    sleep = installation.process(name).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert (sleep > 0) == (name in SCALED)  # nobody else has a balancer that has to hear of it
    pause = max(serve._DRAIN_PAUSE_SECONDS, doors.DRAIN_PAUSE)
    assert pod["terminationGracePeriodSeconds"] >= sleep + pause + settings.drain_seconds + serve._CLEAN_UP_SECONDS


@pytest.mark.parametrize("name", PROCESSES)
def test_probes_ask_three_different_questions(installation: Installation, name: str) -> None:
    process = installation.process(name)
    has_tls = "COUNTERFOIL_TLS_CERT_FILE" in installation.environment(process) and name != "gateway"
    asked = {}
    for each in ("startup", "readiness", "liveness"):
        probe = process[f"{each}Probe"]
        asked[each] = probe["httpGet"]["path"] if has_tls else probe["grpc"]["service"]
        port = process["ports"][[port["name"] for port in process["ports"]].index("metrics" if has_tls else "grpc")]
        assert (probe["httpGet"] if has_tls else probe["grpc"])["port"] in (port["containerPort"], port["name"])
    paths = {"startup": "/startupz", "readiness": "/readyz", "liveness": "/livez"}
    assert asked == (paths if has_tls else {each: each for each in asked})
    liveness, readiness = process["livenessProbe"], process["readinessProbe"]
    assert (
        liveness["periodSeconds"] * liveness["failureThreshold"]
        > readiness["periodSeconds"] * readiness["failureThreshold"]
    )


def test_every_container_is_restricted(installation: Installation) -> None:
    for name, container in containers(installation):
        pod, context = installation.pod(name)["spec"], container["securityContext"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] == (999 if name == "postgres" else 10001), name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not any("hostPath" in each for each in pod["volumes"])
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
        assert "memory" in container["resources"]["limits"], name
    for account in installation.all("ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False
    labels = installation.all("Namespace")[NAMESPACE]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_each_workload_runs_as_an_account_of_its_own_service(installation: Installation) -> None:
    for name in installation.all(*WORKLOADS):
        account = installation.pod(name)["spec"]["serviceAccountName"]
        assert account == name.removesuffix("-migrate")
        assert account in installation.all("ServiceAccount")


@pytest.mark.parametrize("name", WITH_DATABASE)
def test_no_process_starts_before_its_database_is_migrated(installation: Installation, name: str) -> None:
    (waiting,) = installation.pod(name)["spec"]["initContainers"]
    job = installation.process(f"{PROCESSES[name].service_name()}-migrate")
    assert waiting["args"] == ["migrate", "--wait"]
    assert job["args"] == ["migrate"]
    assert waiting["image"] == job["image"] == installation.process(name)["image"]
    (folder,) = installation.files(name, waiting)
    assert folder == installation.environment(waiting)["COUNTERFOIL_SECRETS_DIR"]
    assert "counterfoil_database_url" in installation.files(name, waiting)[folder]


def test_images_are_named_as_they_are_built(rendered: dict[str, Installation]) -> None:
    for kind, installation in rendered.items():
        for name, container in containers(installation):
            image = container["image"]
            if name in OTHERS_VARIABLES:
                assert re.fullmatch(r"docker\.io/(jaegertracing/jaeger|library/postgres):[\w.-]+", image)
                continue
            service = PROCESSES[name.removesuffix("-migrate")].service_name()
            version = r":dev" if kind == "dev" else r"@sha256:[0-9a-f]{64}"
            assert re.fullmatch(rf"docker\.io/counterfoil/{service}{version}", image)


def test_receipts_cite_the_digest_that_runs(rendered: dict[str, Installation], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("graph", "models", "models-serving"):
        installation = rendered["prod"]
        digest = settings_of(installation, name, monkeypatch).model_dump()["image_digest"]
        assert digest
        assert installation.process(name)["image"].endswith(f"@{digest}")


def test_no_secret_is_committed() -> None:
    files = [yaml.safe_load_all(file.read_text()) for file in sorted((ROOT / "k8s").rglob("*.yaml"))]
    documents = [each for file in files for each in file if isinstance(each, dict)]
    generators = [each for document in documents for each in document.get("secretGenerator", [])]
    assert generators
    for generator in generators:
        assert generator.keys() == {"name", "files"}
        assert all(each.startswith("secrets/") for each in generator["files"])
    assert not [each for each in documents if each.get("kind") == "Secret"]
    assert "k8s/overlays/dev/secrets/" in (ROOT / ".gitignore").read_text().split()


def test_both_overlays_expect_the_same_secrets(rendered: dict[str, Installation]) -> None:
    dev, prod = rendered["dev"], rendered["prod"]
    made = {re.sub(r"-[0-9a-z]{10}$", "", name): set(secret["data"]) for name, secret in dev.all("Secret").items()}
    stored = {name: prod.secret_keys(name) for name in prod.all("ExternalSecret")}
    assert made == stored | {"postgres": {"password"}}
    for secret in dev.all("Secret").values():
        assert set(decoded(secret)) == {"stand-in\n"}


def test_what_processes_keep_outside_postgresql_is_on_a_volume_that_lasts(installation: Installation) -> None:
    volumes = {
        name: next(each for each in installation.pod(name)["spec"]["volumes"] if each["name"] == "data")
        for name in PROCESSES
    }
    lasting = {
        name: each["persistentVolumeClaim"]["claimName"]
        for name, each in volumes.items()
        if "persistentVolumeClaim" in each
    }
    assert lasting == {"ingest": "ingest-data"}
    assert installation.all("PersistentVolumeClaim").keys() == {"ingest-data"}
