"""What an SQL statement of a job says of its outputs' fields, by the names that lineage knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from counterfoil_contracts.errors import SqlUnreadableError
from counterfoil_contracts.lineage.entities import OURS, ColumnLink, Name, Told, ToldDataset
from counterfoil_contracts.lineage.events import MOST_LINKS, schema_fields
from counterfoil_contracts.lineage.sql import Analysis, Origin, analyze
from counterfoil_contracts.lineage.store import LineageStores

LONGEST_SQL = 65_536


@dataclass(frozen=True)
class Statement:
    """A statement, its dialect, and which datasets its tables are."""

    sql: str
    dialect: str
    namespace: str
    datasets: Sequence[Name]

    def name_of(self, table: str) -> Name:
        """Return the dataset that a table is: the one whose name ends like it, or one of the same namespace."""
        parts = table.casefold().split(".")
        for name in self.datasets:
            if name.name.casefold().split(".")[-len(parts) :] == parts:
                return name
        return Name(self.namespace, table)


def statement_of(told: Told) -> Statement | None:
    """Return the statement of a job whose outputs' fields the event says nothing of, or None."""
    facet = told.job_facets.get("sql") or {}
    sql = facet.get("query")
    if not sql or len(sql.encode()) > LONGEST_SQL or not told.outputs or told.job is None:
        return None
    if any(output.columns is not None for output in told.outputs):
        return None
    datasets = [each.name for each in (*told.inputs, *told.outputs)]
    return Statement(sql, facet.get("dialect") or "", datasets[0].namespace, datasets)


async def known_columns(
    stores: LineageStores, statement: Statement, tables: Iterable[str], told: Iterable[ToldDataset] = ()
) -> dict[Name, Sequence[str]]:
    """Return what columns the tables of a statement have: by the event, by what is known, by the contracts in force."""
    said = {each.name: [field.name for field in schema_fields(each.facets)] for each in told}
    names = [statement.name_of(table) for table in tables]
    nodes = await stores.nodes.get([name.dataset for name in names])
    found: dict[Name, Sequence[str]] = {}
    for name in names:
        columns: Sequence[str] = said.get(name, ())
        if not columns and (node := nodes.get(name.dataset)) is not None:
            columns = [field.name for field in node.fields]
        if not columns and name.namespace == OURS:
            columns = await stores.columns.columns(name.name)
        found[name] = [column for column in columns if "." not in column]
    return found


def analyze_statement(statement: Statement, known: Mapping[Name, Sequence[str]]) -> Analysis:
    """Return what a statement reads and writes; raise SqlUnreadableError."""
    return analyze(
        statement.sql,
        dialect=statement.dialect,
        columns_of=lambda table: known.get(statement.name_of(table), ()),
    )


def with_links(told: Told, statement: Statement, known: Mapping[Name, Sequence[str]]) -> Told:
    """Return an event with what its statement says of its output's fields; one that cannot be read says nothing."""
    try:
        analysis = analyze_statement(statement, known)
    except SqlUnreadableError:
        return told
    written = statement.name_of(analysis.output) if analysis.output else told.outputs[0].name
    links = links_of_analysis(analysis, statement)
    if not links or len(links) > MOST_LINKS:
        return told
    outputs = [replace(each, columns=links) if each.name == written else each for each in told.outputs]
    return replace(told, outputs=tuple(outputs))


def links_of_analysis(analysis: Analysis, statement: Statement) -> tuple[ColumnLink, ...]:
    """Return the links from the tables that are read into what is written."""
    found = [_link(origin, column, statement) for column, origins in analysis.columns.items() for origin in origins]
    return tuple(dict.fromkeys([*found, *(_link(origin, "", statement) for origin in analysis.rows)]))


def _link(origin: Origin, target_field: str, statement: Statement) -> ColumnLink:
    return ColumnLink(
        source=statement.name_of(origin.table),
        source_field="" if origin.column == "*" else origin.column,
        target_field="" if target_field == "*" else target_field,
        direct=origin.direct,
        subtype=origin.subtype,
        description=origin.description,
        masking=origin.masking,
    )
