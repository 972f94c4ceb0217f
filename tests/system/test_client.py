"""The Python client against a whole installation: an afternoon's work by each, and the notebook that shows it."""

import asyncio
import zipfile
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from counterfoil_client import AsyncCounterfoil, Counterfoil, Problem
from nbclient import NotebookClient

from tests.system.installation import until
from tests.system.tenant import DAY_SALES, SALES_MODEL, Tenant, sales_csv

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook" / "a_number_and_its_receipt.ipynb"


def test_the_client_goes_from_a_contract_to_a_replayed_receipt(tenant: Tenant):
    with Counterfoil(tenant.installation.url, api_key=tenant.key) as client:
        assert (
            client.contracts.submit_contract(document=DAY_SALES.format(version="1.0.0"), activate=True)["state"]
            == "ACTIVE"
        )
        begun = client.imports.upload_import(content=BytesIO(sales_csv(100)), dataset="sales", format="csv")
        until(
            lambda: True if client.imports.get_import(begun["import_id"])["state"] == "SUCCEEDED" else None,
            seconds=60,
            what="the import has not ended",
        )
        [verdict] = client.records.append_records(
            "sales", body=[{"sold_at": "2025-04-11T12:00:00Z", "shop": "north", "amount": 1.5, "message_id": "m1"}]
        )["verdicts"]
        assert verdict["outcome"] == "ACCEPTED"
        assert client.queries.run_query(sql="SELECT count(*) FROM sales")["rows"] == [[201]]
        assert {"events", "sales"} <= {each["dataset"] for each in client.records.list_datasets(page_size=1)}
        tail = client.records.tail_records(dataset="sales", from_offset=0)
        assert next(each["record"] for each in tail if "record" in each)["data"]["shop"] == "north"
        tail.close()
        client.models.create_model(model_id="sales", purpose="stocking", **SALES_MODEL)
        tenant.train("sales")
        forecast = client.forecasts.create_forecast(model_id="sales")
        assert client.receipts.replay_receipt(forecast["receipt_id"])["outcome"] == "MATCH"
        with pytest.raises(Problem, match="MODEL_EXISTS"):
            client.models.create_model(model_id="sales", purpose="stocking", **SALES_MODEL)
        assert zipfile.ZipFile(BytesIO(client.audit.export_audit())).testzip() is None


def test_the_asynchronous_client_does_many_things_at_once(tenant: Tenant):
    async def work() -> None:
        async with AsyncCounterfoil(tenant.installation.url, api_key=tenant.key) as client:
            await asyncio.gather(*(client.sources.create_source(display_name=f"Shop {n}") for n in range(7)))
            names = [each["display_name"] async for each in client.sources.list_sources(page_size=3)]
            assert {f"Shop {n}" for n in range(7)} <= set(names)
            consent = {
                "subject": {"type": "email", "value": "ada@example.com"},
                "purpose": "advertising",
                "state": "GRANTED",
                "basis": "CONSENT",
                "happened_at": datetime(2025, 1, 1, tzinfo=UTC).isoformat(),
            }
            assert (await client.consents.record_consents(consents=[consent]))["recorded"] == 1

    asyncio.run(work())


@pytest.mark.filterwarnings("ignore::RuntimeWarning:platformdirs")  # about a variable of the desktop, not about us
def test_the_notebook_runs_and_its_forecast_replays(tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COUNTERFOIL_URL", tenant.installation.url)
    monkeypatch.setenv("COUNTERFOIL_API_KEY", tenant.key)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120).execute()
    results = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert "('SUCCEEDED', 1462, 1)" in results
    assert results[-1] == "'MATCH'"
