"""The examples' contracts and mappings pass the platform's own checks, and the synthetic ones say that they are."""

from pathlib import Path

import pytest
import yaml
from counterfoil_contracts.odcs.check import check_document
from counterfoil_graph.mapping import conflicts, read_mapping, shipped_document
from harbour_store.generate import make_store

EXAMPLES = Path(__file__).parents[2] / "examples"
CONTRACTS = sorted(EXAMPLES.glob("*/contracts/*.odcs.yaml"))
SYNTHETIC = sorted((EXAMPLES / "harbour_store" / "contracts").glob("*.odcs.yaml"))
MAPPINGS = sorted(EXAMPLES.glob("*/mapping.yaml"))


@pytest.mark.parametrize("file", CONTRACTS, ids=lambda file: file.name)
def test_contracts_have_no_finding(file: Path):
    checked = check_document(file.read_text())
    assert checked.findings == ()
    assert len(checked.compiled) == len(yaml.safe_load(file.read_text())["schema"])


@pytest.mark.parametrize("file", CONTRACTS, ids=lambda file: file.name)
def test_contracts_have_an_owner_and_every_property_a_meaning_and_a_class(file: Path):
    document = yaml.safe_load(file.read_text())
    assert any(member["role"] == "owner" for member in document["team"]["members"])
    for found in document["schema"][0]["properties"]:
        assert found["description"].strip()
        assert found["classification"] in ("public", "internal", "restricted"), found["name"]


@pytest.mark.parametrize("file", CONTRACTS, ids=lambda file: file.name)
def test_what_names_a_person_is_restricted(file: Path):
    for found in yaml.safe_load(file.read_text())["schema"][0]["properties"]:
        if found["name"] in ("household_id", "contact_id", "user_id", "anonymous_id", "email", "phone", "traits"):
            assert found["classification"] == "restricted", found["name"]


@pytest.mark.parametrize("file", SYNTHETIC, ids=lambda file: file.name)
def test_synthetic_contracts_say_so_wherever_they_are_seen(file: Path):
    document = yaml.safe_load(file.read_text())
    [dataset] = document["schema"]
    assert file.name == f"{dataset['name']}.odcs.yaml"
    assert dataset["name"].startswith("harbour_")
    assert "synthetic" in document["tags"]
    assert "synthetic" in dataset["tags"]
    assert document["name"].endswith("(synthetic)")
    assert dataset["businessName"].endswith("(synthetic)")
    assert "Synthetic" in document["description"]["limitations"]


def test_every_generated_dataset_has_a_contract_with_its_columns():
    store = make_store(seed=1, people=60)
    by_name = {file.name.partition(".")[0]: yaml.safe_load(file.read_text()) for file in SYNTHETIC}
    assert set(by_name) == {*store.tables, "harbour_events"}
    for dataset, rows in store.tables.items():
        described = [found["name"] for found in by_name[dataset]["schema"][0]["properties"]]
        assert described == list(rows[0])


@pytest.mark.parametrize("file", MAPPINGS, ids=lambda file: file.parent.name)
def test_mappings_have_no_finding(file: Path):
    mapping, findings = read_mapping(file.read_text())
    assert findings == ()
    assert mapping is not None


def test_mappings_go_together_and_with_the_shipped_one():
    mappings = [read_mapping(text)[0] for text in (shipped_document(), *(file.read_text() for file in MAPPINGS))]
    for mapping in mappings:
        assert conflicts(mapping, mappings) == []


@pytest.mark.parametrize("file", MAPPINGS, ids=lambda file: file.parent.name)
def test_mappings_read_datasets_and_fields_that_contracts_have(file: Path):
    mapping = yaml.safe_load(file.read_text())
    contracts = {path.name.partition(".")[0]: path for path in (file.parent / "contracts").glob("*.odcs.yaml")}
    for dataset, reading in mapping["datasets"].items():
        if dataset == "events":
            continue
        properties = {
            found["name"] for found in yaml.safe_load(contracts[dataset].read_text())["schema"][0]["properties"]
        }
        fields = {each["field"].partition(".")[0] for each in reading.get("identifiers", ())}
        fields |= {reading["time"]} if "time" in reading else set()
        for node in reading.get("nodes", ()):
            fields |= {node[key] for key in ("key", "name", "valid_from", "valid_to") if key in node}
        assert fields <= properties, dataset
