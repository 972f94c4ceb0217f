"""Mappings in force: the shipped one, new versions, and when one of them makes the graph be built anew."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from counterfoil_chassis.canonical import sha256_hex
from counterfoil_chassis.errors import FieldViolation

from counterfoil_graph import mapping as language
from counterfoil_graph.entities import MappingVersion
from counterfoil_graph.errors import MappingInvalidError, MappingNotFoundError
from counterfoil_graph.mapping import Finding, GraphMapping, InForce, combine, conflicts, read_mapping
from counterfoil_graph.store import MappingStore

PLATFORM: Final = "platform"


@dataclass(frozen=True, slots=True)
class Created:
    """A mapping that was put in force, and whether the graph has to be built anew for it."""

    version: MappingVersion
    rebuild: bool


async def current(store: MappingStore, workspace: str, *, now: datetime) -> InForce:
    """Return what is in force; a workspace without mappings first gets the shipped one.

    Another release reads the same mappings otherwise: then the graph is built anew.
    """
    versions = await store.in_force()
    if not versions:
        versions = [_version(workspace, language.shipped_document(), number=1, created_by=PLATFORM, now=now)]
        await store.add(versions[0])
    found = combine([(_read(each), each.sha256) for each in versions])
    applied = await store.applied()
    if applied != found.sha256:
        await store.apply(found.sha256, rebuild=applied is not None)
    return found


async def get(store: MappingStore, mapping_id: str) -> MappingVersion:
    """Return a mapping as it is in force; raise MappingNotFoundError."""
    for version in await store.in_force():
        if version.mapping_id == mapping_id:
            return version
    raise MappingNotFoundError(
        f"There is no mapping {mapping_id!r}. List the mappings to find it.", metadata={"mapping_id": mapping_id}
    )


async def create(store: MappingStore, workspace: str, document: str, *, created_by: str, now: datetime) -> Created:
    """Put a mapping in force as the next version of its id; the same document again changes nothing.

    The graph is built anew unless none of the datasets concerned was seen yet. Raises MappingInvalidError with every
    fault as a violation.
    """
    before = {each.mapping_id: each for each in await store.in_force()}
    mapping, findings = read_mapping(document)
    if mapping is not None:
        findings = tuple(conflicts(mapping, [_read(each) for each in before.values()]))
    if mapping is None or findings:
        raise _invalid(findings)
    older = before.get(mapping.mapping_id)
    version = _version(workspace, document, number=older.version + 1 if older else 1, created_by=created_by, now=now)
    if older is not None and older.sha256 == version.sha256:
        return Created(older, rebuild=False)
    was = combine([(_read(each), each.sha256) for each in before.values()])
    after = combine([(_read(each), each.sha256) for each in {**before, mapping.mapping_id: version}.values()])
    seen = await store.datasets_seen()
    concerned = set(version.datasets) | (set(older.datasets) if older else set())
    types_changed = any(after.identifier_types.get(name) != each for name, each in was.identifier_types.items())
    rebuild = bool(seen.keys() & concerned) or (types_changed and bool(seen.keys() & was.datasets.keys()))
    await store.add(version)
    await store.apply(after.sha256, rebuild=rebuild)
    return Created(version, rebuild)


async def journey_datasets(store: MappingStore, *, at: int) -> list[str]:
    """Return, by name, the datasets that touchpoints and conversions are read from and that a state knows."""
    seen = await store.datasets_seen()
    found: set[str] = set()
    for version in await store.in_force():
        for dataset, rules in _read(version).datasets.items():
            if (rules.touchpoints or rules.conversions) and seen.get(dataset, at) < at:
                found.add(dataset)
    return sorted(found)


def check(document: str) -> tuple[Finding, ...]:
    """Return every fault of a document."""
    return read_mapping(document)[1]


def require_valid(document: str) -> None:
    """Raise MappingInvalidError with every fault of a document as a violation."""
    if findings := check(document):
        raise _invalid(findings)


def _version(workspace: str, document: str, *, number: int, created_by: str, now: datetime) -> MappingVersion:
    mapping, findings = read_mapping(document)
    if mapping is None:
        raise _invalid(findings)
    return MappingVersion(
        workspace=workspace,
        mapping_id=mapping.mapping_id,
        version=number,
        document=document,
        sha256=sha256_hex(document.encode()),
        datasets=language.mapping_datasets(mapping),
        created_by=created_by,
        created_at=now,
    )


def _read(version: MappingVersion) -> GraphMapping:
    mapping, findings = read_mapping(version.document)
    if mapping is None:
        raise _invalid(findings)
    return mapping


def _invalid(findings: tuple[Finding, ...]) -> MappingInvalidError:
    count = len(findings)
    faults = "one fault" if count == 1 else f"{count} faults"
    return MappingInvalidError(
        f"The mapping has {faults}; nothing was kept. Mend what the violations name and submit it again.",
        violations=[FieldViolation(each.path, each.reason, each.detail) for each in findings],
    )
