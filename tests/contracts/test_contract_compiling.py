"""What ODCS says of a property is what its compiled schema accepts and refuses."""

from __future__ import annotations

import hashlib
from typing import Any

import duckdb
import jsonschema_rs
import orjson
import pytest
import yaml
from counterfoil_contracts.entities import CheckedDocument, ColumnType, CompiledDataset
from counterfoil_contracts.odcs.check import check_document
from counterfoil_contracts.odcs.keywords import SQL_KEYWORDS
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts.calls import STRING, document
from tests.contracts.generated import PROPERTIES, Sample


def compiled(*properties: dict[str, Any], **dataset: Any) -> CompiledDataset:
    schema = [{"name": "orders", "properties": list(properties), **dataset}]
    checked = check_document(_with_schema(schema))
    assert not checked.findings, checked.findings
    return checked.compiled[0]


def _with_schema(schema: list[dict[str, Any]]) -> str:
    text: dict[str, Any] = yaml.safe_load(document())
    return yaml.safe_dump({**text, "schema": schema}, sort_keys=False, allow_unicode=True)


def validator(dataset: CompiledDataset) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(orjson.loads(dataset.json_schema), validate_formats=True)


def accepts(properties: list[dict[str, Any]], record: Any, **dataset: Any) -> bool:
    return bool(validator(compiled(*properties, **dataset)).is_valid(record))


def findings(*properties: dict[str, Any], **dataset: Any) -> set[tuple[str, str]]:
    checked: CheckedDocument = check_document(
        _with_schema([{"name": "orders", "properties": list(properties), **dataset}])
    )
    return {(finding.reason, finding.path.removeprefix("$.schema[0]")) for finding in checked.findings}


@settings(max_examples=150, deadline=None)
@given(sample=PROPERTIES, required=st.booleans(), data=st.data())
def test_the_schema_accepts_what_is_meant_and_refuses_the_rest(
    sample: Sample, required: bool, data: st.DataObject
) -> None:
    check = validator(compiled({**sample.node, "name": "p", "required": required}))
    valid = data.draw(sample.valid)
    assert check.is_valid({"p": valid}), (sample.node, valid)
    invalid = data.draw(sample.invalid)
    assert not check.is_valid({"p": invalid}), (sample.node, invalid)
    assert check.is_valid({"p": None}) is check.is_valid({}) is not required


@settings(max_examples=40, deadline=None)
@given(samples=st.lists(PROPERTIES, min_size=2, max_size=4), data=st.data())
def test_the_bytes_depend_on_neither_order_nor_prose(samples: list[Sample], data: st.DataObject) -> None:
    properties = [{**sample.node, "name": f"p{index}"} for index, sample in enumerate(samples)]
    shuffled = data.draw(st.permutations(properties))
    told = [{"description": "In other words.", "tags": ["x"], **dict(reversed(node.items()))} for node in shuffled]
    first, second = compiled(*properties), compiled(*told)
    assert first.json_schema == second.json_schema
    assert first.sha256 == second.sha256 == hashlib.sha256(first.json_schema).hexdigest()
    assert [column.name for column in second.columns] == [node["name"] for node in shuffled]


@pytest.mark.parametrize(
    ("logical_type", "extra", "column"),
    [
        ("string", {}, ColumnType.VARCHAR),
        ("time", {}, ColumnType.VARCHAR),
        ("integer", {}, ColumnType.BIGINT),
        ("number", {"logicalTypeOptions": {"multipleOf": 0.01}}, ColumnType.DOUBLE),
        ("boolean", {}, ColumnType.BOOLEAN),
        ("date", {}, ColumnType.DATE),
        ("timestamp", {}, ColumnType.TIMESTAMPTZ),
        ("object", {}, ColumnType.JSON),
        ("array", {}, ColumnType.JSON),
        ("map", {"map": {"key": {"logicalType": "string"}, "value": {"logicalType": "string"}}}, ColumnType.JSON),
        ("vector", {"logicalTypeOptions": {"dimensions": 3}}, ColumnType.JSON),
    ],
)
def test_each_logical_type_has_its_column(logical_type: str, extra: dict[str, Any], column: ColumnType) -> None:
    node = {"name": "p", "logicalType": logical_type, "required": True, "classification": "restricted", **extra}
    (only,) = compiled(node).columns
    assert (only.name, only.type, only.required, only.classification) == ("p", column, True, "restricted")


def test_the_classification_stands_in_the_schema() -> None:
    schema = orjson.loads(compiled({**STRING, "classification": "restricted"}).json_schema)
    assert schema["properties"]["name"]["x-classification"] == "restricted"


@pytest.mark.parametrize(
    ("model", "undeclared", "extension"), [("closed", False, False), ("open", True, True), ("reserved", False, True)]
)
def test_the_content_model_says_what_may_stand_beside_the_declared(
    model: str, undeclared: bool, extension: bool
) -> None:
    custom = [{"property": "contentModel", "value": model}]
    nested = {"name": "o", "logicalType": "object", "properties": [STRING], "customProperties": custom}
    assert accepts([STRING], {"other": 1}, customProperties=custom) is undeclared
    assert accepts([STRING], {"x_other": 1}, customProperties=custom) is extension
    assert accepts([nested], {"o": {"other": 1}}) is undeclared
    assert accepts([nested], {"o": {"x_other": 1}}) is extension


def test_an_object_without_properties_is_open_and_a_dataset_is_closed() -> None:
    assert accepts([{"name": "o", "logicalType": "object"}], {"o": {"any": 1}})
    assert not accepts([{"name": "o", "logicalType": "object"}], {"p": 1})
    assert ("NO_PROPERTY", "") in findings()


@pytest.mark.parametrize(
    ("rule", "accepted", "refused"),
    [
        ({"metric": "nullValues", "mustBe": 0}, ["a"], [None]),
        ({"metric": "missingValues", "mustBe": 0, "arguments": {"missingValues": [None, "n/a"]}}, ["a"], [None, "n/a"]),
        ({"metric": "missingValues", "mustBe": 0, "arguments": {"missingValues": ["n/a"]}}, ["a", None], ["n/a"]),
        ({"metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": ["a", "b"]}}, ["a", None], ["c"]),
        ({"metric": "invalidValues", "mustBeLessOrEqualTo": 0, "arguments": {"pattern": "^a"}}, ["ab", None], ["ba"]),
        ({"metric": "nullValues", "mustBeLessThan": 5, "unit": "percent"}, ["a", None], []),
        ({"metric": "duplicateValues", "mustBe": 0}, ["a", None], []),
        ({"type": "sql", "query": "SELECT 0", "mustBe": 0}, ["a", None], []),
        ({"type": "custom", "engine": "soda", "implementation": "checks"}, ["a", None], []),
        ({"type": "text", "description": "must be nice"}, ["a", None], []),
    ],
)
def test_quality_rules_that_hold_per_record_are_compiled(
    rule: dict[str, Any], accepted: list[Any], refused: list[Any]
) -> None:
    node = {**STRING, "quality": [rule]}
    assert all(accepts([node], {"name": value}) for value in accepted)
    assert not any(accepts([node], {"name": value}) for value in refused)


def test_a_nullable_enumeration_takes_null() -> None:
    node = {**STRING, "enum": [{"value": "a"}]}
    assert accepts([node], {"name": None})
    assert accepts([node], {})
    assert not accepts([{**node, "required": True}], {"name": None})


def options(logical_type: str, **values: Any) -> dict[str, Any]:
    return {"name": "p", "logicalType": logical_type, "logicalTypeOptions": values}


OPTION = ".properties[0].logicalTypeOptions"


@pytest.mark.parametrize(
    ("node", "reason", "path"),
    [
        (options("string", pattern="("), "PATTERN_INVALID", f"{OPTION}.pattern"),
        (options("string", pattern="(a{1000}){1000}"), "PATTERN_INVALID", f"{OPTION}.pattern"),
        (options("string", format="iban"), "FORMAT_UNSUPPORTED", f"{OPTION}.format"),
        (options("string", minLength=5, maxLength=4), "OPTIONS_CONTRADICT", OPTION),
        (options("integer", minimum=5, exclusiveMaximum=4), "OPTIONS_CONTRADICT", OPTION),
        (options("integer", format="u64"), "INTEGER_TOO_WIDE", f"{OPTION}.format"),
        (options("integer", format="i128", minimum=0), "INTEGER_TOO_WIDE", f"{OPTION}.format"),
        (options("boolean", format="i8"), "OPTION_UNSUPPORTED", f"{OPTION}.format"),
        (options("date", format="dd.MM.yyyy"), "FORMAT_UNSUPPORTED", f"{OPTION}.format"),
        (options("date", minimum="2020-02-30"), "BOUND_INVALID", f"{OPTION}.minimum"),
        (options("time", minimum="10:00:00"), "BOUND_UNSUPPORTED", f"{OPTION}.minimum"),
        (options("timestamp", defaultTimezone="Mars"), "TIMEZONE_UNKNOWN", f"{OPTION}.defaultTimezone"),
        (options("timestamp", timezone=False), "TIMEZONE_NEEDED", OPTION),
        (options("timestamp", format="yyyy-MM-dd HH:mm:ss"), "TIMEZONE_NEEDED", f"{OPTION}.format"),
        (options("timestamp", minimum="2020-01-01T00:00:00Z"), "BOUND_UNSUPPORTED", f"{OPTION}.minimum"),
        (options("array", minItems=3, maxItems=1), "OPTIONS_CONTRADICT", OPTION),
        (options("object", minProperties=3, maxProperties=1), "OPTIONS_CONTRADICT", OPTION),
        ({"name": "p", "logicalType": "vector"}, "VECTOR_DIMENSIONS", ".properties[0]"),
        ({"name": "p", "physicalType": "text"}, "LOGICAL_TYPE", ".properties[0]"),
        (
            {"name": "p", "logicalType": "map", "map": {"key": {"logicalType": "integer"}, "value": STRING}},
            "MAP_KEY",
            ".properties[0].map.key",
        ),
        ({**STRING, "enum": [{"value": 1}]}, "ENUM_TYPE", ".properties[0].enum[0].value"),
        (
            {**STRING, "customProperties": [{"property": "contentModel", "value": "ajar"}], "logicalType": "object"},
            "CONTENT_MODEL",
            ".properties[0].customProperties[0].value",
        ),
        (
            {**options("object", required=["b"]), "properties": [{"name": "a", "logicalType": "string"}]},
            "REQUIRED_UNDECLARED",
            f"{OPTION}.required",
        ),
        (
            {**STRING, "quality": [{"metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": [1]}}]},
            "QUALITY_ARGUMENT",
            ".properties[0].quality[0].arguments.validValues",
        ),
        ({"name": "_p", "logicalType": "string"}, "PROPERTY_NAME", ".properties[0].name"),
        ({"name": "p" * 201, "logicalType": "string"}, "PROPERTY_NAME", ".properties[0].name"),
        ({"name": "", "logicalType": "string"}, "PROPERTY_NAME", ".properties[0].name"),
        ({"name": "a\nb", "logicalType": "string"}, "PROPERTY_NAME", ".properties[0].name"),
    ],
)
def test_every_fault_of_a_property_is_a_finding_at_its_path(node: dict[str, Any], reason: str, path: str) -> None:
    assert (reason, path) in findings(node)


def test_columns_are_told_apart_without_regard_to_case() -> None:
    assert ("PROPERTY_TWICE", ".properties[1].name") in findings(STRING, {**STRING, "name": "Name"})


def test_unsigned_64_bit_integers_pass_when_their_bounds_fit_a_column() -> None:
    node = options("integer", format="u64", maximum=2**63 - 1)
    assert accepts([node], {"p": 2**63 - 1})
    assert not accepts([node], {"p": -1})


def test_every_word_that_duckdb_refuses_as_a_table_name_is_refused() -> None:
    connection = duckdb.connect()
    words = {row[0] for row in connection.execute("SELECT keyword_name FROM duckdb_keywords()").fetchall()}
    refused = set()
    for word in words:
        try:
            connection.execute(f"CREATE OR REPLACE TABLE {word} (a INTEGER)")
            connection.execute(f"SELECT {word}.a FROM {word}")
        except duckdb.Error:
            refused.add(word)
    connection.close()
    assert refused <= SQL_KEYWORDS
    checked = check_document(document(datasets=("select",)))
    assert [(finding.reason, finding.path) for finding in checked.findings] == [("DATASET_NAME", "$.schema[0].name")]


@pytest.mark.parametrize(
    ("head", "reason", "path"),
    [
        ({"version": "1.0"}, "CONTRACT_VERSION", "$.version"),
        ({"version": "01.0.0"}, "CONTRACT_VERSION", "$.version"),
        ({"version": "1.0.0-" + "a" * 60}, "CONTRACT_VERSION", "$.version"),
        ({"contract_id": "a/b"}, "CONTRACT_ID", "$.id"),
        ({"contract_id": "x" * 201}, "CONTRACT_ID", "$.id"),
        ({"apiVersion": "v2.2.2"}, "API_VERSION", "$.apiVersion"),
        ({"apiVersion": "v9.0.0"}, "ODCS_ENUM", "$.apiVersion"),
        ({"kind": "Contract"}, "ODCS_ENUM", "$.kind"),
        ({"datasets": ()}, "NO_DATASET", "$.schema"),
        ({"datasets": ("a", "a")}, "DATASET_TWICE", "$.schema[1].name"),
        ({"datasets": ("Orders",)}, "DATASET_NAME", "$.schema[0].name"),
        ({"datasets": ("o" * 64,)}, "DATASET_NAME", "$.schema[0].name"),
        ({"nonsense": 1}, "ODCS_ADDITIONAL_PROPERTIES", "$"),
    ],
)
def test_every_fault_of_the_head_is_a_finding_at_its_path(head: dict[str, Any], reason: str, path: str) -> None:
    checked = check_document(document(**head))
    assert (reason, path) in {(finding.reason, finding.path) for finding in checked.findings}


def test_a_misspelt_key_is_one_finding_where_it_stands() -> None:
    assert findings({**STRING, "requird": True}) == {("ODCS_UNEVALUATED_PROPERTIES", ".properties[0]")}


def test_a_wrong_value_is_one_finding_and_not_shown() -> None:
    checked = check_document(document(properties=[{**STRING, "required": "secret-ish"}]))
    assert [finding.path for finding in checked.findings] == ["$.schema[0].properties[0].required"]
    assert "secret-ish" not in checked.findings[0].detail


def test_findings_beyond_two_hundred_are_counted() -> None:
    checked = check_document(
        document(properties=[{"name": f"_{number}", "logicalType": "string"} for number in range(999)])
    )
    assert len(checked.findings) == 201
    assert checked.findings[-1].detail.startswith("799 more")
