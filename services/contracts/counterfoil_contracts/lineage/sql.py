"""Which columns an SQL statement reads for each that it writes.

Parsing and finding the scopes is sqlglot's. The walk through them is ours, for two reasons: every column of a scope is
worked out once, so that a statement's cost follows from its size (a chain of common table expressions that double would
otherwise take for ever), and what filters, joins, groups and sorts decide is told as well, which sqlglot leaves out.
Subtypes are those of OpenLineage's facet `columnLineage`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, build_scope

from counterfoil_contracts.errors import SqlUnreadableError

MOST_STEPS: Final = 200_000
"""Origins that are looked at; a statement that asks for more is refused."""

_LONGEST_DESCRIPTION: Final = 200


@dataclass(frozen=True, order=True)
class Origin:
    """A column of a table that is read, and how; the table is written as in the statement, its parts joined by dots."""

    table: str
    column: str
    direct: bool
    subtype: str
    description: str = ""
    masking: bool = False


@dataclass(frozen=True)
class Analysis:
    """What a statement reads and writes; `columns` maps each that is written, in order, to its origins.

    `rows` are the origins that decide which rows there are, or in which order.
    """

    inputs: tuple[str, ...]
    output: str
    columns: Mapping[str, tuple[Origin, ...]]
    rows: tuple[Origin, ...]


def tables(sql: str, *, dialect: str) -> list[str]:
    """Return every name that stands for a table in a statement, also those of its own; raise SqlUnreadableError."""
    try:
        found = _read(sql, dialect).find_all(exp.Table)
        return list(dict.fromkeys(_table_name(table) for table in found))
    except RecursionError:
        raise _too_deep() from None


def analyze(sql: str, *, dialect: str, columns_of: Callable[[str], Sequence[str]]) -> Analysis:
    """Return what one statement reads and writes; `columns_of` gives a table's columns, none when they are unknown.

    Raises SqlUnreadableError. Statements that write nothing but a table of their own are the last one's business.
    """
    try:
        written, query, named = _parts(_read(sql, dialect))
        scope = _scope(query) if query is not None else None
        if scope is None:
            return Analysis((), written, {}, ())
        return _analysis(scope, written, named, columns_of)
    except RecursionError:
        raise _too_deep() from None


# sqlglot itself falls over some statements that no database would take.
_FALLS: Final = (SqlglotError, ValueError, AttributeError, KeyError, TypeError, IndexError)


def _read(sql: str, dialect: str) -> exp.Expr:
    try:
        statements = [each for each in sqlglot.parse(sql, read=dialect or None) if each is not None]
    except _FALLS as error:
        raise _unreadable(error) from None
    if not statements:
        raise SqlUnreadableError("There is no statement.")
    return statements[-1]


def _scope(query: exp.Expr) -> Scope | None:
    try:
        return build_scope(query)
    except _FALLS as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> SqlUnreadableError:
    first = str(error).partition("\n")[0][:_LONGEST_DESCRIPTION]
    return SqlUnreadableError(f"The statement cannot be read as SQL: {first}")


def _too_deep() -> SqlUnreadableError:
    return SqlUnreadableError("The statement is nested too deep to follow; split it.")


def _analysis(scope: Scope, written: str, named: Sequence[str], columns_of: Callable[[str], Sequence[str]]) -> Analysis:
    walk = _Walk(columns_of)
    columns = walk.columns(scope)
    if named:
        columns = dict(zip(named, columns.values(), strict=False))
    inputs = dict.fromkeys(
        _table_name(source)
        for each in scope.traverse()
        for source in each.sources.values()
        if isinstance(source, exp.Table)
    )
    return Analysis(
        tuple(inputs),
        written,
        {name: tuple(sorted(origins)) for name, origins in columns.items()},
        tuple(sorted(walk.rows(scope))),
    )


def _parts(statement: exp.Expr) -> tuple[str, exp.Expr | None, list[str]]:
    """Return the table that is written, the query that fills it, and the columns that are named for it."""
    if isinstance(statement, exp.Insert | exp.Create):
        target, query = statement.this, statement.expression
        named: list[str] = []
        if isinstance(target, exp.Schema):
            named = [each.name for each in target.expressions]
            target = target.this
        with_ = statement.args.get("with_") or statement.args.get("with")
        if with_ is not None and isinstance(query, exp.Query):
            query = query.copy()
            query.set("with_" if "with_" in query.arg_types else "with", with_.copy())
        if isinstance(query, exp.Subquery):
            query = query.unnest()
        return (_table_name(target), query if isinstance(query, exp.Query) else None, named)
    return "", statement if isinstance(statement, exp.Query) else None, []


def _table_name(table: Any) -> str:
    if not isinstance(table, exp.Table):
        return ""
    return ".".join(part.name for part in table.parts)


class _Walk:
    """Works every scope's columns out once."""

    def __init__(self, columns_of: Callable[[str], Sequence[str]]) -> None:
        self._columns_of = columns_of
        self._columns: dict[int, dict[str, frozenset[Origin]]] = {}
        self._rows: dict[int, frozenset[Origin]] = {}
        self._under_way: set[int] = set()
        self._subqueries: dict[int, dict[int, list[Scope]]] = {}
        self._steps = 0

    def columns(self, scope: Scope) -> dict[str, frozenset[Origin]]:
        """Return the origins of each column of a scope, in their order; a recursive one has none of itself."""
        known = self._columns.get(id(scope))
        if known is None:
            if id(scope) in self._under_way:
                return {}
            self._under_way.add(id(scope))
            known = self._union(scope) if scope.set_operation_scopes else self._select(scope)
            if scope.outer_columns:  # of `(SELECT ...) AS s(a, b)`
                known = dict(zip(scope.outer_columns, known.values(), strict=False))
            self._columns[id(scope)] = known
        return known

    def rows(self, scope: Scope) -> frozenset[Origin]:
        """Return what decides which rows a scope has, with what decides it in the scopes it reads."""
        known = self._rows.get(id(scope))
        if known is None:
            self._rows[id(scope)] = frozenset()  # of a scope that reads itself
            known = self._rows[id(scope)] = self._deciding(scope)
        return known

    def _union(self, scope: Scope) -> dict[str, frozenset[Origin]]:
        first, *others = (self.columns(each) for each in scope.set_operation_scopes)
        found = dict(first)
        for other in others:
            for name, origins in zip(list(found), other.values(), strict=False):
                found[name] = self._counted(found[name] | origins)
        return found

    def _select(self, scope: Scope) -> dict[str, frozenset[Origin]]:
        found: dict[str, frozenset[Origin]] = {}
        query = scope.expression
        if isinstance(query, exp.UDTF):
            return self._function(scope)
        if not isinstance(query, exp.Select):
            return found
        for position, each in enumerate(query.expressions):
            if isinstance(each, exp.Star) or (isinstance(each, exp.Column) and isinstance(each.this, exp.Star)):
                table = "" if isinstance(each, exp.Star) else each.table
                left_out = {
                    part.name for part in (each if isinstance(each, exp.Star) else each.this).args.get("except_") or ()
                }
                for name, origins in self._starred(scope, table).items():
                    if name not in left_out:
                        found.setdefault(name, origins)
                continue
            found[each.alias_or_name or f"_{position}"] = self._expression(scope, each)
        return found

    def _function(self, scope: Scope) -> dict[str, frozenset[Origin]]:
        """Return the columns of a function that makes rows, such as UNNEST, or of a lateral query."""
        for each in scope.subquery_scopes:
            return self.columns(each)
        origins = self._expression(scope, scope.expression, names=list(scope.sources))
        return dict.fromkeys(scope.outer_columns or ["*"], origins)

    def _starred(self, scope: Scope, table: str) -> dict[str, frozenset[Origin]]:
        """Return what `*` or `table.*` stands for; of a table of unknown columns it is the column `*`."""
        found: dict[str, frozenset[Origin]] = {}
        for alias in _selected(scope):
            if table and alias != table:
                continue
            source = scope.sources[alias]
            if isinstance(source, Scope):
                columns = self.columns(source)
            else:
                name = _table_name(source)
                columns = {
                    each: frozenset({Origin(name, each, direct=True, subtype="IDENTITY")})
                    for each in self._columns_of(name) or ("*",)
                }
            for each, origins in columns.items():
                # A column of USING appears once, with the origins of both sides.
                found[each] = self._counted(found.get(each, frozenset()) | origins)
        return found

    def _expression(
        self, scope: Scope, expression: exp.Expr, *, names: Sequence[str] | None = None
    ) -> frozenset[Origin]:
        """Return the origins of an expression: of its own columns, among `names`, and of its subqueries'."""
        value = expression.unalias()
        subtype, masking = _subtype(value)
        text = "" if subtype == "IDENTITY" else value.sql()[:_LONGEST_DESCRIPTION]
        found: set[Origin] = set()
        for column, how in _own_columns(value):
            for origin in self._column(scope, column, names=names):
                if how == "VALUE":
                    found.add(_through(origin, subtype, text, masking=masking))
                else:
                    found.add(Origin(origin.table, origin.column, direct=False, subtype=how, description=text))
        for inner in self._inside(scope, value):
            for origins in self.columns(inner).values():
                found.update(_through(origin, "TRANSFORMATION", text, masking=False) for origin in origins)
            found |= self.rows(inner)
        return self._counted(frozenset(found))

    def _column(self, scope: Scope, column: exp.Column, *, names: Sequence[str] | None = None) -> frozenset[Origin]:
        """Return where a column comes from: the source that its table names, or each that may have it."""
        found: set[Origin] = set()
        place: Scope | None = scope
        while place is not None and not found:
            read = _selected(place) if names is None or place is not scope else names
            for alias in [column.table] if column.table else read:
                source = place.sources.get(alias)
                if isinstance(source, Scope):
                    found |= self._of_scope(source, column.name)
                elif isinstance(source, exp.Table):
                    found |= self._of_table(source, column.name, alone=bool(column.table) or len(read) == 1)
            if not found:
                # A name that the same SELECT gave is meant where no source has it.
                found |= self._alias(place, column)
            place = place.parent if place.is_subquery else None
        return self._counted(frozenset(found))

    def _of_scope(self, source: Scope, name: str) -> frozenset[Origin]:
        columns = self.columns(source)
        if name in columns:
            return columns[name]
        return frozenset(
            Origin(origin.table, name, origin.direct, origin.subtype)
            for origin in columns.get("*", ())
            if origin.column == "*"
        )

    def _of_table(self, source: exp.Table, name: str, *, alone: bool) -> frozenset[Origin]:
        table = _table_name(source)
        columns = self._columns_of(table)
        if columns and name not in columns and not alone:
            return frozenset()
        return frozenset({Origin(table, name, direct=True, subtype="IDENTITY")})

    def _alias(self, scope: Scope, column: exp.Column) -> frozenset[Origin]:
        query = scope.expression
        if column.table or not isinstance(query, exp.Select):
            return frozenset()
        for each in query.expressions:
            if isinstance(each, exp.Alias) and each.alias == column.name and not _within(column, each):
                return self._expression(scope, each)
        return frozenset()

    def _deciding(self, scope: Scope) -> frozenset[Origin]:
        found: set[Origin] = set()
        for each in (*scope.set_operation_scopes, *(scope.subquery_scopes if scope.is_udtf else ())):
            found |= self.rows(each)
        query = scope.expression
        if isinstance(query, exp.Select):
            for part, subtype in _CLAUSES.items():
                clause = query.args.get(part)
                if isinstance(clause, exp.Expr):
                    found |= self._clause(scope, clause, subtype)
            for join in query.args.get("joins") or ():
                if (on := join.args.get("on")) is not None:
                    found |= self._clause(scope, on, "JOIN")
                for using in join.args.get("using") or ():
                    column = exp.column(using.name)
                    found |= {
                        _decides(origin, "JOIN", f"USING ({using.name})") for origin in self._column(scope, column)
                    }
        for alias in _selected(scope):
            source = scope.sources[alias]
            if isinstance(source, Scope):
                found |= self.rows(source)
        return self._counted(frozenset(found))

    def _clause(self, scope: Scope, clause: exp.Expr, subtype: str) -> frozenset[Origin]:
        text = clause.sql()[:_LONGEST_DESCRIPTION]
        found = {
            _decides(origin, subtype, text)
            for column, _ in _own_columns(clause)
            for origin in self._column(scope, column)
        }
        for inner in self._inside(scope, clause):
            for origins in self.columns(inner).values():
                found.update(_decides(origin, subtype, text) for origin in origins)
            found |= self.rows(inner)
        return self._counted(frozenset(found))

    def _inside(self, scope: Scope, expression: exp.Expr) -> Sequence[Scope]:
        """Return the subqueries of a scope that stand in an expression."""
        known = self._subqueries.get(id(scope))
        if known is None:
            known = self._subqueries[id(scope)] = {}
            for inner in scope.subquery_scopes:
                node: exp.Expr | None = inner.expression
                while node is not None and node is not scope.expression:
                    known.setdefault(id(node), []).append(inner)
                    node = node.parent
        return known.get(id(expression), ())

    def _counted(self, origins: frozenset[Origin]) -> frozenset[Origin]:
        self._steps += len(origins) + 1
        if self._steps > MOST_STEPS:
            raise SqlUnreadableError("The statement has more columns than can be followed; split it.")
        return origins


_CLAUSES: Final = {
    "where": "FILTER",
    "group": "GROUP_BY",
    "having": "FILTER",
    "qualify": "FILTER",
    "order": "SORT",
    "distinct": "GROUP_BY",
}
_MASKING: Final = (exp.Count, exp.MD5, exp.SHA, exp.SHA2)


def _selected(scope: Scope) -> list[str]:
    """Return the names of what a scope's own FROM and JOIN read, in their order."""
    return list(dict.fromkeys(name for name, _ in scope.references if name in scope.sources))


def _own_columns(expression: exp.Expr) -> Iterable[tuple[exp.Column, str]]:
    """Yield the columns of an expression outside its subqueries, each with how it is used there."""
    waiting: list[tuple[exp.Expr, str]] = [(expression, "VALUE")]
    while waiting:
        node, how = waiting.pop()
        if isinstance(node, exp.Column):
            if not isinstance(node.this, exp.Star):
                yield node, how
            continue
        if isinstance(node, exp.Query) or (isinstance(node, exp.Subquery) and isinstance(node.this, exp.Query)):
            continue
        for key, child in _children(node):
            waiting.append((child, _how(node, key, how)))


def _children(node: exp.Expr) -> Iterable[tuple[str, exp.Expr]]:
    for key, value in node.args.items():
        for child in value if isinstance(value, list) else (value,):
            if isinstance(child, exp.Expr):
                yield key, child


def _how(node: exp.Expr, key: str, how: str) -> str:
    """Say how a part of an expression is used: a condition and a window decide, they are not the value."""
    if how != "VALUE":
        return how
    if isinstance(node, exp.If) and key == "this":
        return "CONDITIONAL"
    if isinstance(node, exp.Case) and key == "this":
        return "CONDITIONAL"
    if isinstance(node, exp.Window) and key in ("partition_by", "order"):
        return "WINDOW"
    if isinstance(node, exp.Filter) and key == "expression":
        return "FILTER"
    return how


def _subtype(value: exp.Expr) -> tuple[str, bool]:
    if isinstance(value, exp.Column):
        return "IDENTITY", False
    masking = value.find(*_MASKING) is not None
    return ("AGGREGATION" if value.find(exp.AggFunc) is not None else "TRANSFORMATION"), masking


def _through(origin: Origin, subtype: str, text: str, *, masking: bool) -> Origin:
    """Return an origin as it is after one more expression: the strongest change counts, and a mask stays one."""
    if not origin.direct:
        return origin
    strength = ("IDENTITY", "TRANSFORMATION", "AGGREGATION")
    if strength.index(subtype) <= strength.index(origin.subtype):
        subtype, text = origin.subtype, origin.description
    return Origin(origin.table, origin.column, True, subtype, text, masking or origin.masking)


def _decides(origin: Origin, subtype: str, text: str) -> Origin:
    return Origin(origin.table, origin.column, direct=False, subtype=subtype, description=text)


def _within(inner: exp.Expr, outer: exp.Expr) -> bool:
    node: exp.Expr | None = inner
    while node is not None:
        if node is outer:
            return True
        node = node.parent
    return False
