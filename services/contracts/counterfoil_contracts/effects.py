"""What a contract version does to those who send and to those who read, compared with the version in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from counterfoil_chassis.jsonpath import json_path

from counterfoil_contracts import versions
from counterfoil_contracts.compatibility.comparing import Rules, compare
from counterfoil_contracts.compatibility.fields import (
    FieldPath,
    Reading,
    as_read,
    declared_fields,
    no_longer_there,
    own_rules,
    read_path,
)
from counterfoil_contracts.compatibility.readers import for_readers
from counterfoil_contracts.entities import (
    Break,
    Comparison,
    CompiledDataset,
    ContractVersion,
    DatasetComparison,
    RecordRule,
    Verdict,
)
from counterfoil_contracts.evolution import (
    BrokenConsumer,
    Consumer,
    FieldChange,
    FieldFate,
    Level,
    Situation,
    VersionComparison,
)
from counterfoil_contracts.odcs.expressions import holds, literals

_MOST_READINGS: Final = 100
"""Different sets of fields that are compared one by one; whoever reads a further one counts as unproven."""
_COMPATIBLE: Final = Comparison(Verdict.PROVEN_COMPATIBLE)


@dataclass(frozen=True)
class Compared:
    """A version against what is in force: each of its datasets that is governed, and the whole."""

    datasets: tuple[DatasetComparison, ...]
    whole: VersionComparison


def compare_version(situation: Situation) -> Compared:
    """Compare a version with the one in force; it may take seconds: run it in a thread.

    Consumers are compared by what they read: a change elsewhere does not concern them. One whose version range leaves
    out the version in force does not read it.
    """
    version, before = situation.version, situation.in_force
    after = {each.dataset: each for each in version.compiled}
    datasets = tuple(
        DatasetComparison(each, *_both_ways(each.compiled, after[each.compiled.dataset])) for each in situation.governed
    )
    if before is None or before == version:
        return Compared(datasets, VersionComparison(in_force_version="" if before is None else before.version))
    dropped = tuple(name for name in before.datasets if name not in after)
    pairs = [
        _Pair(old, after[old.dataset], next(each for each in datasets if each.in_force.compiled == old))
        for old in before.compiled
        if old.dataset in after
    ]
    changes = tuple(_changes(before, version))
    level = _level(pairs, dropped=dropped, added=any(each.fate is FieldFate.ADDED for each in changes))
    lowest = "" if version.activated_at is not None else versions.needed(before.version, level)
    whole = VersionComparison(
        in_force_version=before.version,
        level=level,
        needed_version=lowest,
        version_suffices=not lowest or versions.suffices(version.version, lowest),
        broken=tuple(_broken(situation, {pair.old.dataset: pair for pair in pairs})),
        fields=changes,
        dropped_datasets=dropped,
    )
    return Compared(datasets, whole)


def _both_ways(old: CompiledDataset, new: CompiledDataset) -> tuple[Comparison, Comparison]:
    ended, begun = changed_rules(old, new)
    if old.sha256 == new.sha256 and not ended and not begun:
        return _COMPATIBLE, _COMPATIBLE
    before, after = orjson.loads(old.json_schema), orjson.loads(new.json_schema)
    examples = [orjson.loads(each) for each in (*old.golden_records, *new.golden_records)]
    return (
        compare(before, after, examples=examples, rules=_rules(old, begun)),
        compare(after, for_readers(before), examples=examples, rules=_rules(new, ended)),
    )


@dataclass(frozen=True)
class _BrokenRule:
    """A rule that a record does not keep, told as a fault of a schema is."""

    message: str
    schema_path: tuple[str | int, ...]
    instance_path: tuple[str | int, ...] = ()


def _rules(writer: CompiledDataset, demanded: Sequence[RecordRule]) -> Rules:
    """Return what the rules say of a change: those that hold before it, and those that are new with it."""

    def kept(record: Any) -> bool:
        return all(holds(rule.expression, record) for rule in writer.record_rules)

    def broken(record: Any) -> Iterator[_BrokenRule]:
        for index, rule in enumerate(demanded):
            if not holds(rule.expression, record):
                yield _BrokenRule(f"the rule {rule.rule_id} does not hold", (index, "quality"))

    values = [value for rule in demanded for value in literals(rule.expression)]
    telling = [{"const": value} if isinstance(value, str) else {"minimum": value} for value in values]
    return Rules(kept, broken, demanding=bool(demanded), telling=telling)


class _Pair:
    """A dataset in both versions; what one reads who reads certain fields is compared once."""

    def __init__(self, old: CompiledDataset, new: CompiledDataset, compared: DatasetComparison) -> None:
        self.old = old
        self._compared = compared
        self._before: Any = orjson.loads(old.json_schema)
        self._after: Any = orjson.loads(new.json_schema)
        self._ended, self._begun = changed_rules(old, new)
        self._known: dict[frozenset[FieldPath], tuple[Verdict, tuple[Break, ...]]] = {}

    @property
    def sends(self) -> bool:
        """Tell whether whoever sends is proven to go on as before; of a new rule over records nobody knows that."""
        return self._compared.backward.verdict is Verdict.PROVEN_COMPATIBLE and not self._begun

    @property
    def same(self) -> bool:
        """Tell whether the same records are proven to be valid."""
        return self.sends and self._compared.forward.verdict is Verdict.PROVEN_COMPATIBLE and not self._ended

    def reads(self, fields: Sequence[str] = ()) -> tuple[Verdict, tuple[Break, ...]]:
        """Return what becomes of one who reads these fields, and why."""
        paths = frozenset(read_path(each) for each in fields)
        if paths not in self._known:
            if len(self._known) == _MOST_READINGS:
                detail = "More sets of fields are read than are compared one by one."
                return Verdict.UNPROVEN, (Break("$", "", detail, b""),)
            self._known[paths] = self._compare(paths)
        return self._known[paths]

    def _compare(self, paths: frozenset[FieldPath]) -> tuple[Verdict, tuple[Break, ...]]:
        found = self._compared.forward
        if found.verdict is not Verdict.PROVEN_COMPATIBLE:
            found = compare(self._after, as_read(self._before, Reading.of(paths)))
        left = {(each.path, each.keyword, each.detail): each for each in found.breaks}
        gone = []
        for path in no_longer_there(self._before, self._after, paths):
            # that a required field is missing is the same break, and has a record to show
            missing = left.pop((json_path(path[:-1]), "required", f'"{path[-1]}" is a required property'), None)
            witness = b"" if missing is None else missing.witness
            gone.append(Break(json_path(path), "properties", "is read, and not declared any more", witness))
        missed = tuple(
            Break(rule.path, "quality", f"the rule {rule.rule_id} does not hold any more", b"")
            for rule in self._ended
            if _concerns(read_path(rule.path), paths)
        )
        verdict = Verdict.PROVEN_BREAKING if gone else found.verdict
        if missed and verdict is Verdict.PROVEN_COMPATIBLE:
            verdict = Verdict.UNPROVEN
        return verdict, (*gone, *left.values(), *missed)


def _concerns(rule: FieldPath, read: frozenset[FieldPath]) -> bool:
    """Tell whether a rule is about something that is read: the field itself, one above it, or one below."""
    return not read or any(path[: len(rule)] == rule[: len(path)] for path in read)


def changed_rules(old: CompiledDataset, new: CompiledDataset) -> tuple[tuple[RecordRule, ...], tuple[RecordRule, ...]]:
    """Return the rules over records that end, and those that begin; another expression is another rule."""
    had, has = ({rule.expression for rule in each.record_rules} for each in (old, new))
    return (
        tuple(rule for rule in old.record_rules if rule.expression not in has),
        tuple(rule for rule in new.record_rules if rule.expression not in had),
    )


def _level(pairs: Sequence[_Pair], *, dropped: Sequence[str], added: bool) -> Level:
    everything_read = all(pair.reads()[0] is Verdict.PROVEN_COMPATIBLE for pair in pairs)
    if dropped or not everything_read or not all(pair.sends for pair in pairs):
        return Level.MAJOR
    return Level.MINOR if added or not all(pair.same for pair in pairs) else Level.PATCH


def _broken(situation: Situation, pairs: Mapping[str, _Pair]) -> Iterator[BrokenConsumer]:
    before = situation.in_force
    for consumer in situation.consumers:
        if before is None or not reads_version(consumer, before.version):
            continue
        verdict, breaks = _effect(consumer, situation.version, pairs)
        if verdict is not Verdict.PROVEN_COMPATIBLE:
            yield BrokenConsumer(consumer, verdict, breaks)


def _effect(
    consumer: Consumer, version: ContractVersion, pairs: Mapping[str, _Pair]
) -> tuple[Verdict, tuple[Break, ...]]:
    if consumer.dataset not in pairs:
        return Verdict.PROVEN_BREAKING, (Break("$", "", "the dataset is not governed any more", b""),)
    if not reads_version(consumer, version.version):
        detail = f"it reads {consumer.version_range}, which leaves out {version.version}"
        return Verdict.PROVEN_BREAKING, (Break("$", "", detail, b""),)
    return pairs[consumer.dataset].reads(consumer.fields)


def reads_version(consumer: Consumer, version: str) -> bool:
    """Tell whether a consumer reads records under a version, going by its range."""
    return not consumer.version_range or versions.read_range(consumer.version_range)(version)


def _changes(before: ContractVersion, after: ContractVersion) -> Iterator[FieldChange]:
    """Yield what becomes of every declared field, and of whole datasets, whose path is `$`."""
    old, new = ({each.dataset: each for each in version.compiled} for version in (before, after))
    for dataset in {**old, **new}:
        if dataset not in new:
            yield FieldChange(dataset, "$", FieldFate.REMOVED)
        elif dataset not in old:
            yield FieldChange(dataset, "$", FieldFate.ADDED)
        else:
            yield from _field_changes(old[dataset], new[dataset])


def _field_changes(old: CompiledDataset, new: CompiledDataset) -> Iterator[FieldChange]:
    before, after = orjson.loads(old.json_schema), orjson.loads(new.json_schema)
    had, has = declared_fields(before), declared_fields(after)
    ruled = {rule.path for rules in changed_rules(old, new) for rule in rules}
    for path in {**had, **has}:
        shown, fate = json_path(path), FieldFate.CHANGED
        if path not in has:
            fate = FieldFate.REMOVED
        elif path not in had:
            fate = FieldFate.ADDED
        elif shown not in ruled and own_rules(had, before, path) == own_rules(has, after, path):
            continue
        yield FieldChange(old.dataset, shown, fate)
