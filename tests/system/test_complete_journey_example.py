"""The example's contracts and files are what its pages say; no process runs here."""

import importlib.util
import json
from decimal import Decimal
from importlib import resources
from pathlib import Path
from types import ModuleType

import jsonschema_rs
import pyarrow.parquet as pq
import pytest
import yaml

EXAMPLE = Path(__file__).parents[2] / "examples" / "complete_journey"
CONTRACTS = sorted((EXAMPLE / "contracts").glob("*.odcs.yaml"))
LOGICAL = {"int64": "integer", "double": "number", "string": "string", "timestamp[ns]": "timestamp"}


@pytest.fixture(scope="module")
def journey() -> ModuleType:
    """The module that reads the example's files."""
    spec = importlib.util.spec_from_file_location("journey", EXAMPLE / "journey.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", CONTRACTS, ids=lambda file: file.name)
def test_contracts_are_valid_odcs(file: Path):
    schema = json.loads(resources.files("open_data_contract_standard").joinpath("schema.json").read_text())
    faults = jsonschema_rs.validator_for(schema).iter_errors(yaml.safe_load(file.read_text()))
    assert [fault.message for fault in faults] == []


@pytest.mark.parametrize("file", CONTRACTS, ids=lambda file: file.name)
def test_contracts_say_the_types_and_gaps_of_the_files(file: Path, journey: ModuleType):
    [dataset] = yaml.safe_load(file.read_text())["schema"]
    table = pq.read_table(journey.data_file(dataset["name"]))
    described = {found["name"]: (found["logicalType"], found["required"]) for found in dataset["properties"]}
    assert described == {
        column: (LOGICAL[str(table.schema.field(column).type)], table.column(column).null_count == 0)
        for column in table.column_names
    }


def test_files_hold_what_the_pages_say(journey: ModuleType):
    assert journey.count_totals() == journey.Totals(
        products=92_331,
        transactions=1_469_307,
        sales=Decimal("4596039.58"),
        unmatched=4_836,
        unmatched_sales=Decimal("172.57"),
    )


def test_orders_are_the_same_every_time_and_add_up(journey: ModuleType):
    first, second = list(journey.latest_orders(200)), list(journey.latest_orders(200))
    assert first == second
    assert len({order.message_id for order in first}) == 200
    for order in first:
        lines = order.properties["products"]
        value = sum(Decimal(str(line["price"])) * max(line["quantity"], 1) for line in lines)
        assert abs(value - order.total) < Decimal("0.0001") * sum(line["quantity"] + 1 for line in lines)


def test_products_file_is_the_same_every_time(journey: ModuleType, tmp_path: Path):
    for name in ("first.csv", "second.csv"):
        journey.write_products_csv(tmp_path / name)
    content = (tmp_path / "first.csv").read_bytes()
    assert content == (tmp_path / "second.csv").read_bytes()
    assert content.count(b"\n") == 92_331 + 1
