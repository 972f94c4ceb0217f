"""`counterfoil status`."""

import sys
from itertools import islice
from typing import Any

import click

from counterfoil_cli.client import ApiProblem, Client
from counterfoil_cli.commands.calling import with_client
from counterfoil_cli.commands.tables import show_table

SHOWN = 10  # newest imports


@click.command()
@with_client
def status(client: Client) -> None:
    """Show what is there: datasets, sources, imports, models."""
    ready = _readiness(client)
    click.echo(f"{client.url}: {ready}")
    _show_datasets(client)
    _show_sources(client)
    _show_imports(client)
    _show_models(client)
    if ready != "ready":
        sys.exit(1)


def _show_datasets(client: Client) -> None:
    rows = [
        (d["dataset"], _contract(d), _count(d, "records"), _count(d, "quarantined"), _when(d, "last_received_at"))
        for d in client.pages("/v1/datasets", "datasets")
    ]
    columns = ("dataset", "contract", "records", "quarantined", "last received")
    show_table("Datasets", columns, rows, numbers=(2, 3))


def _show_sources(client: Client) -> None:
    rows = [
        (s["source_id"], s.get("display_name", ""), s.get("protocol", ""), f"…{s.get('write_key_last_four', '')}")
        for s in client.pages("/v1/sources", "sources")
    ]
    show_table("Sources", ("source", "name", "protocol", "write key"), rows)


def _show_imports(client: Client) -> None:
    rows = [
        (
            i["import_id"],
            *(i.get(name, "") for name in ("dataset", "file_name", "state")),
            *(_count(i, f"rows_{name}") for name in ("accepted", "duplicate", "quarantined")),
        )
        for i in islice(client.pages("/v1/imports", "imports"), SHOWN)
    ]
    columns = ("import", "dataset", "file", "state", "accepted", "duplicate", "quarantined")
    show_table("Imports", columns, rows, numbers=(4, 5, 6))


def _show_models(client: Client) -> None:
    rows = [
        (m["model_id"], m.get("display_name", ""), m.get("purpose", ""), _champion(m))
        for m in client.pages("/v1/models", "models")
    ]
    show_table("Models", ("model", "name", "purpose", "champion"), rows)


def _readiness(client: Client) -> str:
    try:
        client.send("GET", "/readyz")
    except ApiProblem as problem:
        return f"not ready: {problem.detail}"
    return "ready"


def _contract(dataset: dict[str, Any]) -> str:
    return f"{dataset.get('contract_id', '')} {dataset.get('contract_version', '')}".strip() or "none"


def _champion(model: dict[str, Any]) -> str:
    version = model.get("champion_version", 0)
    return f"version {version}" if version else "none"


def _count(item: dict[str, Any], field: str) -> str:
    return f"{int(item.get(field, 0)):,}"


def _when(item: dict[str, Any], field: str) -> str:
    return str(item.get(field) or "never")[:19].replace("T", " ")
