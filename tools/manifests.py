"""Render and check what is in `k8s/`; with `--crds`, fetch the schemas of other projects' kinds anew.

Every overlay, every base alone, and every pair of components is rendered by `kubectl kustomize`. Each document has to
fit the schema of its kind: Kubernetes' own by kubernetes-validate, strictly, for the release we name and the newest
that is known; other projects' by `tools/crds.json` (without their CEL rules). checkov reads the overlays last.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parent.parent
K8S = ROOT / "k8s"
CRDS = ROOT / "tools" / "crds.json"
CHECKOV = ROOT / ".venv-checkers" / "bin" / "checkov"
RELEASES = ("1.34.0", "1.37.0")
KUSTOMIZE_SINCE = (1, 27)
"""The release of kubectl that brought kustomize 5, whose `labels` and `replacements` do what is asked of them here."""
COMPONENTS = ("external-secrets", "gateway-api", "image-digests", "jaeger", "keda", "prometheus", "tls")
PINNED = "overlays/prod/images"
"""The component that names images by digest, which `image-digests` needs before it."""
CRD_FILES = {
    "sigs.k8s.io/gateway-api@v1.4.0": (
        "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
    ),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "github.com/external-secrets/external-secrets@v1.3.2": (
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
        "config/crds/bases/external-secrets.io_secretstores.yaml",
    ),
    "github.com/kedacore/keda/v2@v2.21.0": ("config/crd/bases/keda.sh_scaledobjects.yaml",),
    "github.com/cert-manager/cert-manager@v1.21.2": ("deploy/crds/cert-manager.io_certificates.yaml",),
}
"""Go modules, and the definitions in them; all are under the Apache License 2.0."""

Document = dict[str, Any]


def why_not() -> str:
    """Return why manifests cannot be rendered here, "" when they can."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return "kubectl is not installed (https://kubernetes.io/docs/tasks/tools)"
    told = subprocess.run([kubectl, "version", "--client", "-o", "json"], capture_output=True, text=True, check=True)
    version = json.loads(told.stdout)["clientVersion"]["gitVersion"]
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    since = ".".join(map(str, KUSTOMIZE_SINCE))
    return (
        ""
        if found >= KUSTOMIZE_SINCE
        else f"kubectl is {version}, and its kustomize is too old; {since} or newer is needed"
    )


def render(folder: Path) -> list[Document]:
    """Return the documents that a kustomization makes; exit with what kustomize says when it fails."""
    kubectl = shutil.which("kubectl") or "kubectl"
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:  # it warns of what will be an error
        raise SystemExit(f"{folder}: {done.stderr}")
    return [document for document in yaml.load_all(done.stdout, yaml.CSafeLoader) if document]


def copied(to: Path) -> Path:
    """Copy `k8s/` with stand-ins for the files of secrets, which no repository holds; return the copy."""
    copy = Path(shutil.copytree(K8S, to / "k8s", ignore=shutil.ignore_patterns("secrets")))
    overlay = copy / "overlays" / "dev"
    for secret in yaml.safe_load((overlay / "kustomization.yaml").read_text())["secretGenerator"]:
        for name in secret["files"]:
            (overlay / name).parent.mkdir(parents=True, exist_ok=True)
            (overlay / name).write_text("stand-in\n")
    return copy


def kustomizations(copy: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name, folder) of all that is rendered: overlays, bases, and the base with components."""
    for folder in sorted([*copy.glob("overlays/*"), *copy.glob("base/*"), copy / "base"]):
        file = folder / "kustomization.yaml"
        if file.exists() and "kind: Component" not in file.read_text():
            yield str(folder.relative_to(copy)), folder
    chosen = [*itertools.combinations(COMPONENTS, 1), *itertools.combinations(COMPONENTS, 2), COMPONENTS]
    for components in chosen:
        folder = copy / "combined" / "-".join(components)
        folder.mkdir(parents=True)
        paths = [f"components/{each}" for each in components]
        if "image-digests" in components:
            paths.insert(0, PINNED)
        made = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": ["../../base"],
            "components": [f"../../{path}" for path in paths],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(made))
        yield f"base with {', '.join(components)}", folder


def problems(document: Document, crds: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a document by the schema of its kind."""
    kind = f"{document['apiVersion']}/{document['kind']}"
    name = f"{kind} {document['metadata']['name']}"
    if kind in crds:
        for error in Draft202012Validator(crds[kind]["schema"]).iter_errors(document):
            yield f"{name}: {error.json_path}: {error.message}"
        return
    for release in RELEASES:
        try:
            kubernetes_validate.validate(document, release, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name}: Kubernetes {release}: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError:
            yield f"{name}: neither Kubernetes {release} nor tools/crds.json knows this kind"


def read_by_checkov(rendered: Mapping[str, Sequence[Document]], folder: Path) -> int:
    """Have checkov judge the overlays, but for what `k8s/checkov.yaml` leaves out; return its exit code."""
    for name, documents in rendered.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(documents))
    command = [str(CHECKOV), "--directory", str(folder), "--config-file", str(K8S / "checkov.yaml")]
    return subprocess.run(command, check=False).returncode


def fetch_crds() -> None:
    """Write `tools/crds.json` from the Go modules of the projects that define the kinds."""
    go = shutil.which("go") or "go"
    kinds: dict[str, Any] = {}
    for module, files in CRD_FILES.items():
        told = subprocess.run([go, "mod", "download", "-json", module], capture_output=True, text=True, check=True)
        for file in files:
            definition = yaml.safe_load((Path(json.loads(told.stdout)["Dir"]) / file).read_text())["spec"]
            served = next(version for version in definition["versions"] if version["storage"])
            kinds[f"{definition['group']}/{served['name']}/{definition['names']['kind']}"] = {
                "source": f"{module}/{file}",
                "licence": "Apache-2.0",
                "schema": strict(served["schema"]["openAPIV3Schema"]),
            }
    lines = ",\n".join(
        f"{json.dumps(kind)}: {json.dumps(found, separators=(',', ':'))}" for kind, found in kinds.items()
    )
    CRDS.write_text(f"{{\n{lines}\n}}\n")


def strict(schema: Any) -> Any:
    """Return a schema without its texts, and with no more fields than it names."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: {name: strict(each) for name, each in value.items()} if key == "properties" else strict(value)
        for key, value in schema.items()
        if key not in ("description", "x-kubernetes-validations")
    }
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and not free and schema.get("type") == "object":
        kept["additionalProperties"] = False
    return kept


def main() -> int:
    """Check everything; return 1 when something is wrong."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--crds", action="store_true", help="write tools/crds.json from the Go module proxy")
    if arguments.parse_args().crds:
        fetch_crds()
        return 0
    if reason := why_not():
        print(f"manifests: skipped: {reason}")
        return 0
    crds = json.loads(CRDS.read_text())
    # It reads two megabytes for each document anew.
    kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
    with tempfile.TemporaryDirectory() as folder:
        rendered = {name: render(each) for name, each in kustomizations(copied(Path(folder)))}
        seen = {json.dumps(document): document for documents in rendered.values() for document in documents}
        found = [problem for document in seen.values() for problem in problems(document, crds)]
        print(
            "\n".join(found)
            or f"manifests: {len(rendered)} kustomizations, {len(seen)} documents are as their schemas say"
        )
        if not CHECKOV.exists():
            print("manifests: skipped: checkov is not installed (make check sets it up)")
            return bool(found)
        overlays = {name.partition("/")[2]: each for name, each in rendered.items() if name.startswith("overlays/")}
        (judged := Path(folder) / "judged").mkdir()
        return read_by_checkov(overlays, judged) or bool(found)


if __name__ == "__main__":
    sys.exit(main())
