"""What a contract promises of a dataset as a whole is compiled to what ingest can watch, or is a finding."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
import yaml
from counterfoil.contracts.v1 import contracts_pb2 as pb
from counterfoil_contracts.entities import DatasetMonitors, DatasetRule, LevelProperty, Operator
from counterfoil_contracts.odcs.check import check_document

from tests.contracts.calls import Contracts, document

PROPERTIES: list[dict[str, Any]] = [
    {"name": "order", "logicalType": "string"},
    {"name": 'the "total"', "logicalType": "number"},
    {"name": "paid", "logicalType": "boolean"},
    {"name": "at", "logicalType": "timestamp", "physicalName": "ts"},
    {
        "name": "context",
        "logicalType": "object",
        "properties": [
            {
                "name": "page/~",
                "logicalType": "object",
                "properties": [{"name": "url", "logicalType": "string"}],
            }
        ],
    },
]
ROWS = """
    ('a', 1.5, true, '{"page/~": {"url": "https://x"}}'),
    ('a', 1.5, false, '{"page/~": {"url": null}}'),
    ('', NULL, NULL, '{"page/~": {}}'),
    (NULL, -2, true, NULL),
    ('N/A', 7, true, '{"page/~": {"url": "ftp"}}')
"""


def checked(
    *, rules: dict[str, list[dict[str, Any]]] | None = None, levels: list[dict[str, Any]] | None = None, **extra: Any
) -> Any:
    """Check a contract with rules by property (`""` = the dataset), all of `orders`."""
    rules = dict(rules or {})
    properties = yaml.safe_load(yaml.safe_dump(PROPERTIES))
    for node in properties:
        node["quality"] = rules.pop(node["name"], [])
    properties[4]["properties"][0]["properties"][0]["quality"] = rules.pop("url", [])
    schema = [{"name": "orders", "properties": properties, "quality": rules.pop("", [])}]
    assert not rules, rules
    head = yaml.safe_load(document())
    return check_document(yaml.safe_dump({**head, "schema": schema, "slaProperties": levels or [], **extra}))


def monitors(**asked: Any) -> DatasetMonitors:
    found = checked(**asked)
    assert not found.findings, found.findings
    made: DatasetMonitors = found.compiled[0].monitors
    return made


def only_rule(place: str, rule: dict[str, Any]) -> DatasetRule:
    (made,) = monitors(rules={place: [rule]}).rules
    return made


def reasons(**asked: Any) -> set[str]:
    return {finding.reason for finding in checked(**asked).findings}


def measured(sql: str) -> Any:
    """Run SQL over the rows, as ingest's lake has them."""
    with duckdb.connect() as connection:
        connection.execute(
            f'CREATE VIEW orders("order", "the ""total""", paid, context) AS SELECT * FROM (VALUES {ROWS})'
        )
        return connection.execute(sql).fetchall()[0][0]


@pytest.mark.parametrize(
    ("place", "rule", "count"),
    [
        ("order", {"metric": "nullValues"}, 1),
        ('the "total"', {"metric": "nullValues"}, 1),
        ("context", {"metric": "nullValues"}, 1),
        ("url", {"metric": "nullValues"}, 3),
        ("order", {"metric": "missingValues"}, 1),
        ("order", {"metric": "missingValues", "arguments": {"missingValues": [None, "", "N/A"]}}, 3),
        ('the "total"', {"metric": "missingValues", "arguments": {"missingValues": [-2, "x"]}}, 1),
        ("order", {"metric": "invalidValues", "arguments": {"validValues": ["a"]}}, 2),
        ("order", {"metric": "invalidValues", "arguments": {"validValues": []}}, 4),
        ("order", {"metric": "invalidValues", "arguments": {"validValues": ["it's", "a", "", "N/A"]}}, 0),
        ("paid", {"metric": "invalidValues", "arguments": {"validValues": [True]}}, 1),
        ('the "total"', {"metric": "invalidValues", "arguments": {"validValues": [1.5, 7]}}, 1),
        ("order", {"metric": "invalidValues", "arguments": {"pattern": "^[a-z']$"}}, 2),
        ("url", {"metric": "invalidValues", "arguments": {"pattern": "^https?:"}}, 1),
        ("order", {"metric": "duplicateValues"}, 1),
        ("", {"metric": "duplicateValues", "arguments": {"properties": ["order", 'the "total"']}}, 1),
        ("", {"metric": "duplicateValues", "arguments": {"properties": ["paid"]}}, 2),
        ("", {"metric": "rowCount"}, 5),
    ],
)
def test_a_library_metric_counts_the_rows_that_it_means(place: str, rule: dict[str, Any], count: int) -> None:
    made = only_rule(place, {**rule, "mustBeLessThan": 100})
    assert measured(f"SELECT {made.measure} FROM orders") == count
    assert (made.metric, made.operator, made.bounds) == (rule["metric"], Operator.LESS, (100.0,))


@pytest.mark.parametrize(
    ("place", "query", "value"),
    [
        ("", "SELECT count(*) FROM {object}", 5),
        ("", "select sum(paid::int) from ${table};", 3),
        ('the "total"', "SELECT max({property}) FROM {object}", 7),
        ("url", "WITH x AS (SELECT ${column} AS u FROM ${object}) SELECT count(u) FROM x", 2),
    ],
)
def test_an_sql_rule_reads_its_dataset_and_property(place: str, query: str, value: float) -> None:
    made = only_rule(place, {"type": "sql", "query": query, "mustBe": 1})
    assert measured(made.query) == value
    assert made.metric == "sql"


@pytest.mark.parametrize(
    ("operator", "value", "meant"),
    [
        ("mustBe", 5, (Operator.EQUAL, (5.0,))),
        ("mustNotBe", 5, (Operator.NOT_EQUAL, (5.0,))),
        ("mustBeGreaterThan", 5, (Operator.GREATER, (5.0,))),
        ("mustBeGreaterOrEqualTo", 5, (Operator.AT_LEAST, (5.0,))),
        ("mustBeLessThan", 5, (Operator.LESS, (5.0,))),
        ("mustBeLessOrEqualTo", 5, (Operator.AT_MOST, (5.0,))),
        ("mustBeBetween", [5, 6], (Operator.BETWEEN, (5.0, 6.0))),
        ("mustNotBeBetween", [5, 6], (Operator.NOT_BETWEEN, (5.0, 6.0))),
    ],
)
def test_every_operator_is_understood(operator: str, value: Any, meant: Any) -> None:
    made = only_rule("", {"metric": "rowCount", operator: value})
    assert (made.operator, made.bounds) == meant


def test_a_rule_says_when_it_is_looked_at_and_what_its_breach_does() -> None:
    custom = [
        {"property": "dataBreaker", "value": True},
        {"property": "autoResume", "value": True},
        {"property": "window", "value": "36 h"},
    ]
    made = only_rule(
        "order",
        {
            "id": "orders-named",
            "metric": "nullValues",
            "mustBeLessThan": 5,
            "unit": "percent",
            "description": "Orders have names.",
            "severity": "error",
            "scheduler": "cron",
            "schedule": "0 6 * * *",
            "customProperties": custom,
        },
    )
    plan = made.plan
    assert (plan.name, plan.description, plan.severity) == ("orders-named", "Orders have names.", "error")
    assert (plan.schedule, plan.data_breaker, plan.auto_resume, plan.window_seconds) == (
        "0 6 * * *",
        True,
        True,
        129_600,
    )
    assert made.percent
    assert (
        only_rule("", {"metric": "rowCount", "mustBe": 1, "schedule": "@hourly", "scheduler": "airflow"}).plan.schedule
        == ""
    )


def test_names_are_stable_unique_and_fit_into_a_path() -> None:
    rule = {"metric": "rowCount", "mustBe": 1}
    made = monitors(
        rules={
            "": [rule, rule, {**rule, "name": "Räume & more/?#"}, {**rule, "name": "ROWCOUNT"}],
            "url": [{**rule, "metric": "nullValues"}],
        },
        levels=[{"property": "latency", "value": 1, "unit": "d"}],
    )
    names = [each.plan.name for each in (*made.rules, *made.levels)]
    assert names == ["rowCount", "rowCount-2", "R-ume-more", "ROWCOUNT-3", "context.page-.url.nullValues", "latency"]


def test_what_each_record_must_keep_is_not_watched_as_well() -> None:
    made = monitors(
        rules={
            "order": [
                {"metric": "nullValues", "mustBe": 0},
                {"metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": ["a"]}},
                {"metric": "duplicateValues", "mustBe": 0},
                {"type": "text", "description": "Orders are nice."},
                {"type": "custom", "engine": "soda", "implementation": "x"},
            ]
        }
    )
    assert [each.metric for each in made.rules] == ["duplicateValues"]


@pytest.mark.parametrize(
    ("place", "rule", "reason"),
    [
        ("", {"metric": "nullValues", "mustBe": 1}, "QUALITY_PLACE"),
        ("", {"metric": "rowCount", "mustBe": "many"}, "QUALITY_BOUND"),
        ("", {"metric": "rowCount", "mustBe": True}, "QUALITY_BOUND"),
        ("", {"metric": "rowCount", "mustBeBetween": [6, 5]}, "QUALITY_BOUND"),
        ("", {"metric": "rowCount", "mustBeLessThan": 5, "unit": "percent"}, "QUALITY_UNIT"),
        ("", {"metric": "duplicateValues", "mustBe": 1}, "QUALITY_ARGUMENT"),
        ("", {"metric": "duplicateValues", "mustBe": 1, "arguments": {"properties": [1]}}, "QUALITY_ARGUMENT"),
        ("order", {"metric": "invalidValues", "mustBe": 1}, "QUALITY_ARGUMENT"),
        ("order", {"metric": "missingValues", "mustBe": 1, "arguments": {"missingValues": [[]]}}, "QUALITY_ARGUMENT"),
        ("paid", {"metric": "invalidValues", "mustBe": 1, "arguments": {"pattern": "x"}}, "QUALITY_ARGUMENT"),
        ("order", {"metric": "invalidValues", "mustBe": 1, "arguments": {"pattern": "(?=x)"}}, "PATTERN_INVALID"),
        ("order", {"metric": "invalidValues", "mustBe": 1, "arguments": {"pattern": "("}}, "PATTERN_INVALID"),
        ("", {"metric": "rowCount", "mustBe": 1, "schedule": "whenever"}, "SCHEDULE_INVALID"),
        ("", {"metric": "rowCount", "mustBe": 1, "schedule": "0 0 30 2 *"}, "SCHEDULE_INVALID"),
        ("", {"metric": "rowCount", "mustBe": 1, "schedule": "* * * * * *"}, "SCHEDULE_INVALID"),
        ("", {"type": "sql", "query": "DROP TABLE orders", "mustBe": 1}, "QUALITY_QUERY"),
        ("", {"type": "sql", "query": "SELECT 1; SELECT 2", "mustBe": 1}, "QUALITY_QUERY"),
        ("", {"type": "sql", "query": "SELECT (", "mustBe": 1}, "QUALITY_QUERY"),
        ("", {"type": "sql", "query": "SELECT max({property}) FROM {object}", "mustBe": 1}, "QUALITY_QUERY"),
        ("", {"type": "sql", "query": "SELECT " + "(" * 9_000 + "1" + ")" * 9_000, "mustBe": 1}, "QUALITY_QUERY"),
        ("", {"type": "sql", "query": "SELECT 1 --" + "x" * 20_000, "mustBe": 1}, "QUALITY_QUERY"),
    ],
)
def test_what_cannot_be_run_is_a_finding(place: str, rule: dict[str, Any], reason: str) -> None:
    assert reasons(rules={place: [rule]}) == {reason}


@pytest.mark.parametrize(
    ("name", "value"),
    [("dataBreaker", "yes"), ("autoResume", 1), ("window", "often"), ("window", -1), ("window", "5 m")],
)
def test_an_option_that_is_not_understood_is_a_finding(name: str, value: Any) -> None:
    rule = {"metric": "rowCount", "mustBe": 1, "customProperties": [{"property": name, "value": value}]}
    assert reasons(rules={"": [rule]}) == {"MONITOR_OPTION"}


def test_service_levels_are_times_and_shares_of_their_elements() -> None:
    made = monitors(
        levels=[
            {"property": "latency", "value": 4, "unit": "d", "element": "orders.at"},
            {"property": "Frequency", "value": "1", "unit": "h", "element": "orders"},
            {"property": "retention", "value": 3, "unit": "y", "element": "tab1.ts"},
            {"property": "availability", "value": 99.5, "unit": "%"},
            {"property": "errorRate", "value": 1},
            {"property": "generalAvailability", "value": "2022-05-12"},
            {"property": "frequency", "value": "never"},
            {"property": "timeToRepair", "value": 4, "unit": "h"},
        ]
    )
    assert [(each.property, each.column, each.seconds, each.percent) for each in made.levels] == [
        (LevelProperty.LATENCY, "at", 4 * 86_400.0, 0.0),
        (LevelProperty.FREQUENCY, "", 3_600.0, 0.0),
        (LevelProperty.RETENTION, "at", 3 * 365 * 86_400.0, 0.0),
        (LevelProperty.AVAILABILITY, "", 0.0, 99.5),
        (LevelProperty.ERROR_RATE, "", 0.0, 1.0),
    ]


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        ({"property": "latency", "value": 4, "unit": "fortnights"}, "SLA_VALUE"),
        ({"property": "latency", "value": 4}, "SLA_VALUE"),
        ({"property": "latency", "value": 5, "unit": "m"}, "SLA_VALUE"),  # minutes or months?
        ({"property": "latency", "value": -4, "unit": "d"}, "SLA_VALUE"),
        ({"property": "retention", "value": 1e300, "unit": "y"}, "SLA_VALUE"),
        ({"property": "availability", "value": 101}, "SLA_VALUE"),
        ({"property": "errorRate", "value": 1, "unit": "rows"}, "SLA_VALUE"),
        ({"property": "latency", "value": 4, "unit": "d", "element": "orders.nothing"}, "ELEMENT_UNKNOWN"),
        ({"property": "latency", "value": 4, "unit": "d", "element": "orders.order"}, "ELEMENT_TYPE"),
        ({"property": "latency", "value": 4, "unit": "d", "scheduler": "cron", "schedule": "0"}, "SCHEDULE_INVALID"),
        (
            {"property": "timeToRepair", "value": 4, "customProperties": [{"property": "dataBreaker", "value": True}]},
            "SLA_NOT_RUN",
        ),
    ],
)
def test_a_service_level_that_cannot_be_watched_is_a_finding(level: dict[str, Any], reason: str) -> None:
    assert reasons(levels=[level]) == {reason}


@pytest.mark.parametrize(
    ("team", "owner"),
    [
        ({"name": "Web", "members": [{"username": "ada"}]}, "Web"),
        ({"members": [{"username": "ada"}, {"username": "bob", "role": "Data Owner"}]}, "bob"),
        ([{"username": "ada", "dateOut": "2020-01-01"}, {"username": "bob"}], "bob"),
    ],
)
def test_the_team_is_responsible(team: Any, owner: str) -> None:
    assert monitors(team=team).owner == owner


def test_more_rules_than_can_be_watched_are_refused() -> None:
    rule = {"metric": "rowCount", "mustBe": 1}
    assert reasons(rules={"": [rule] * 201}) == {"TOO_MANY_RULES"}


def test_a_rule_about_items_of_an_array_is_a_finding_and_not_forgotten() -> None:
    quality = [{"metric": "nullValues", "mustBeLessThan": 5, "unit": "percent"}]
    items = {"logicalType": "object", "properties": [{"name": "sku", "logicalType": "string", "quality": quality}]}
    schema = [{"name": "orders", "properties": [{"name": "lines", "logicalType": "array", "items": items}]}]
    found = check_document(yaml.safe_dump({**yaml.safe_load(document()), "schema": schema}))
    assert [(each.reason, each.path) for each in found.findings] == [
        ("QUALITY_PLACE", "$.schema[0].properties[0].items.properties[0].quality[0]")
    ]


@pytest.mark.parametrize("what", ["rules", "levels of many datasets", "elements", "queries"])
def test_a_document_full_of_promises_is_refused_in_bounded_time(what: str) -> None:
    properties = [{"name": "at", "logicalType": "date"}]
    datasets = [{"name": f"d{number}", "properties": properties} for number in range(2_000)]
    level = {"property": "latency", "value": 1, "unit": "d"}
    long = "SELECT " + "a," * 9_000 + "a"
    documents: dict[str, dict[str, Any]] = {
        "rules": {"schema": [{**datasets[0], "quality": [{"metric": "rowCount", "mustBe": 1}] * 9_000}]},
        "levels of many datasets": {"schema": datasets, "slaProperties": [level] * 1_000},
        "elements": {"schema": datasets, "slaProperties": [{**level, "element": ",".join(map(str, range(90_000)))}]},
        "queries": {"schema": [{**datasets[0], "quality": [{"type": "sql", "query": long, "mustBe": 1}] * 50}]},
    }
    text = orjson.dumps(yaml.safe_load(document()) | documents[what]).decode()
    assert len(text) < 1 << 20
    begin = time.process_time()
    reasons = {finding.reason for finding in check_document(text).findings}
    assert reasons == {{"elements": "ELEMENT_UNKNOWN", "queries": "QUALITY_QUERY"}.get(what, "TOO_MANY_RULES")}
    assert time.process_time() - begin < 20


async def test_a_version_keeps_what_it_promises(contracts: Contracts) -> None:
    text = document(
        properties=[{"name": "at", "logicalType": "date"}],
        slaProperties=[{"property": "latency", "value": 1.5, "unit": "h", "element": "at"}],
        team={"name": "Web"},
    )
    text = text.replace(
        "- name: orders\n", "- name: orders\n  quality: [{metric: rowCount, mustBeBetween: [1, 9]}]\n", 1
    )
    caller = contracts.as_principal()
    await contracts.stub.SubmitContract(pb.SubmitContractRequest(document=text), **caller)
    request = pb.GetContractVersionRequest(contract_id="shop", version="1.0.0")
    (compiled,) = (await contracts.stub.GetContractVersion(request, **caller)).compiled
    assert compiled.owner == "Web"
    (rule,), (level,) = compiled.dataset_rules, compiled.service_levels
    assert (rule.plan.name, rule.measure, list(rule.bounds)) == ("rowCount", "count(*)", [1, 9])
    assert rule.operator == pb.DatasetRule.BETWEEN
    assert (level.property, level.column, level.limit.seconds) == (pb.ServiceLevel.LATENCY, "at", 5_400)


def test_the_examples_of_the_standard_that_compile_have_monitors() -> None:
    text = (Path(__file__).parent / "odcs-examples" / "full-example.odcs.yaml").read_text("utf-8")
    found = check_document(text)
    assert not found.findings
    monitored = {each.dataset: each.monitors for each in found.compiled}
    assert [each.metric for each in monitored["tbl"].rules] == ["rowCount"]
    assert [each.property.value for each in monitored["tbl"].levels] == ["latency", "retention", "frequency"]
    assert monitored["tbl"].owner == "my-team"
