"""How a schema becomes a version of a subject: what it refers to is found, it is compared, and only then kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from weakref import WeakValueDictionary

import orjson
from counterfoil_chassis.clock import Clock
from counterfoil_chassis.errors import FieldViolation

from counterfoil_contracts.registry.bundling import Linked, bundled
from counterfoil_contracts.registry.content import LARGEST, normalised, with_references
from counterfoil_contracts.registry.judging import Judge
from counterfoil_contracts.registry.subjects import effective, properties_of, require_writable
from counterfoil_contracts.registry.subjects import version as version_of_subject
from counterfoil_contracts.schema_entities import (
    CompatibilityLevel,
    Incompatibility,
    KeptSchema,
    Mode,
    Policy,
    Reference,
    SchemaContent,
    SchemaVersion,
    SubjectSettings,
    VersionOfSubject,
)
from counterfoil_contracts.schema_errors import (
    SchemaIdTakenError,
    SchemaIncompatibleError,
    SchemaInvalidError,
    SchemaTooLargeError,
    SchemaVersionNotFoundError,
    SubjectChangedError,
    SubjectNotFoundError,
    SubjectNotWritableError,
)
from counterfoil_contracts.schema_store import SchemaStores, SchemaTransactions

_MOST_LINKED: Final = 200
"""Schemas that one refers to, near and far."""
_LARGEST_WHOLE: Final = 4 * LARGEST
_ATTEMPTS: Final = 5
_MOST_TOLD: Final = 20


@dataclass(frozen=True)
class Submission:
    """What is to be registered; 0 = the next number."""

    workspace: str
    subject: str
    content: SchemaContent
    normalize: bool
    principal: str
    schema_id: int = 0
    version: int = 0


@dataclass(frozen=True)
class _State:
    """What a subject was like when a schema was compared; nothing of it may have changed when it is kept."""

    versions: tuple[VersionOfSubject, ...]
    settings: SubjectSettings


@dataclass(frozen=True)
class _Plan:
    """What there is to compare, with which versions, the newest first."""

    content: SchemaContent
    document: Any
    older: tuple[VersionOfSubject, ...]
    state: _State


class Registrar:
    """Registers and checks schemas. Comparing happens between transactions, not in one.

    A workspace's schemas are judged one after the other: hard ones keep others of their own workspace waiting.
    """

    def __init__(self, transactions: SchemaTransactions, judge: Judge, clock: Clock) -> None:
        self._transactions = transactions
        self._judge = judge
        self._clock = clock
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def register(self, asked: Submission) -> SchemaVersion:
        """Keep a schema as its subject's newest version, or return the version that it is already.

        Raises SchemaInvalidError, SchemaIncompatibleError with a violation for each place, SubjectNotWritableError,
        SchemaIdTakenError, SubjectChangedError, and what reading references raises.
        """
        for _ in range(_ATTEMPTS):
            async with self._transactions.read() as stores:
                known = await _known(stores, asked)
                if known is not None:
                    return known
                await _require_writable(stores, asked)
                plan = await _plan(stores, asked)
            async with self._turn(asked.workspace):
                await self._require_schema(plan.document)
                await self._require_compatible(plan, asked)
            async with self._transactions.begin() as stores:
                if await _state(stores, asked) == plan.state:
                    return await self._keep(stores, asked, plan)
        raise SubjectChangedError(
            f"Others register under {asked.subject!r}, faster than this can be compared. Try again."
        )

    async def check(self, asked: Submission, *, against: int | None, only_one: bool) -> Sequence[Incompatibility]:
        """Return what registering would find incompatible, or with `only_one` what is with one version, None = latest.

        Raises SchemaInvalidError and what reading versions raises.
        """
        async with self._transactions.read() as stores:
            plan = await _plan(stores, asked)
            if only_one:
                plan = await _narrowed(stores, asked, plan, against)
        async with self._turn(asked.workspace):
            await self._require_schema(plan.document)
            return await self._incompatibilities(plan, asked.workspace)

    def _turn(self, workspace: str) -> asyncio.Lock:
        """Return what one request of a workspace holds at a time; it is forgotten when none does."""
        return self._turns.setdefault(workspace, asyncio.Lock())

    async def _require_schema(self, document: Any) -> None:
        fault = await self._judge.fault_of(document)
        if fault:
            raise SchemaInvalidError(f"This is no JSON Schema: {fault}.")

    async def _require_compatible(self, plan: _Plan, asked: Submission) -> None:
        found, subject = await self._incompatibilities(plan, asked.workspace), asked.subject
        if found:
            raise SchemaIncompatibleError(
                f"The schema is incompatible with version {found[0].version} of {subject!r}; the level is "
                f"{_level(plan).value}, the policy {_policy(plan).value}. Mend what the violations name.",
                metadata={"subject": subject, "level": _level(plan).value, "policy": _policy(plan).value},
                violations=[
                    FieldViolation(each.path, each.rule, f"version {each.version}: {_with_witness(each)}")
                    for each in found
                ],
            )

    async def _incompatibilities(self, plan: _Plan, workspace: str) -> Sequence[Incompatibility]:
        """Return what is incompatible with the first version that breaks; the versions are read one by one."""
        level = _level(plan)
        for version in plan.older:
            async with self._transactions.read() as stores:
                kept = (await stores.schemas.schemas(workspace, [version.schema_id])).get(version.schema_id)
                if kept is None or not _same_group(kept.content, plan):
                    continue
                document = await _whole(stores, workspace, kept.content)
            found = await self._compared(plan, version.version, document)
            if found or not level.is_transitive:
                return found[:_MOST_TOLD]
        return []

    async def _compared(self, plan: _Plan, version: int, document: Any) -> Sequence[Incompatibility]:
        level, policy = _level(plan), _policy(plan)
        found: list[Incompatibility] = []
        if level.is_backward:
            for each in await self._judge.breaks(document, plan.document, policy):
                text = f"{each.detail}; version {version} allows it"
                found.append(Incompatibility(version, each.path, each.rule, text, each.witness.encode()))
        if level.is_forward:
            for each in await self._judge.breaks(plan.document, document, policy):
                text = f"{each.detail} in version {version}; the new schema allows it"
                found.append(Incompatibility(version, each.path, each.rule, text, each.witness.encode()))
        return found

    async def _keep(self, stores: SchemaStores, asked: Submission, plan: _Plan) -> SchemaVersion:
        now = self._clock.now()
        await _require_references(stores, asked.workspace, plan.content)
        kept = await _numbered(stores, asked, plan.content)
        if kept is None:
            kept = await stores.schemas.add_schema(asked.workspace, plan.content, schema_id=asked.schema_id, at=now)
        number = asked.version or 1 + max((each.version for each in plan.state.versions), default=0)
        made = VersionOfSubject(asked.subject, number, kept.schema_id, deleted=False)
        await stores.schemas.put_version(asked.workspace, made, created_by=asked.principal, at=now)
        await stores.audit.record(
            workspace=asked.workspace,
            principal=asked.principal,
            action="schema.register",
            resource=f"subjects/{asked.subject}/versions/{number}",
            details={"schema_id": kept.schema_id, "guid": kept.content.guid, "level": _level(plan).value},
        )
        return await stores.schemas.get_version(asked.workspace, asked.subject, number)


def _level(plan: _Plan) -> CompatibilityLevel:
    return plan.state.settings.level or CompatibilityLevel.BACKWARD


def _policy(plan: _Plan) -> Policy:
    return plan.state.settings.policy or Policy.EXACT


def _with_witness(found: Incompatibility) -> str:
    return f"{found.detail}, such as {found.witness.decode()}" if found.witness else found.detail


def sentence(found: Incompatibility) -> str:
    """Return an incompatibility as one sentence."""
    return f"{found.rule} at {found.path}: {_with_witness(found)}"


async def identified(stores: SchemaStores, asked: Submission) -> Submission:
    """Return the submission as its content is told apart: references numbered, text normalised where it is to be."""
    numbered = []
    for each in asked.content.references:
        number = each.version
        if number == -1:
            newest = await version_of_subject(
                stores, workspace=asked.workspace, subject=each.subject, number=None, deleted=False
            )
            number = newest.version
        numbered.append(replace(each, version=number))
    content = asked.content
    if numbered != list(content.references):
        content = with_references(content, numbered)
    settings = await effective(stores, asked.workspace, asked.subject)
    if asked.normalize or settings.normalize:
        content = normalised(content)
    return replace(asked, content=content)


async def _known(stores: SchemaStores, asked: Submission) -> SchemaVersion | None:
    """Return the version that a schema is already, unless a number is asked for that is not its own."""
    asked = await identified(stores, asked)
    kept = await stores.schemas.find_content(asked.workspace, asked.content.guid)
    if kept is None or (asked.schema_id and asked.schema_id != kept.schema_id):
        return None
    versions = await stores.schemas.versions_of(asked.workspace, asked.subject)
    for each in reversed(versions):
        is_it = each.schema_id == kept.schema_id and not each.deleted
        if is_it and (not asked.version or asked.version == each.version):
            return await stores.schemas.get_version(asked.workspace, asked.subject, each.version)
    return None


async def _require_writable(stores: SchemaStores, asked: Submission) -> None:
    mode = await require_writable(stores, asked.workspace, asked.subject)
    if (asked.schema_id or asked.version) and mode is not Mode.IMPORT:
        raise SubjectNotWritableError(
            f"The subject {asked.subject!r} is not in the mode IMPORT, in which ids and versions can be given. Set it, "
            "or leave them out.",
            metadata={"subject": asked.subject, "mode": mode.value},
        )


async def _state(stores: SchemaStores, asked: Submission) -> _State:
    versions = await stores.schemas.versions_of(asked.workspace, asked.subject)
    return _State(tuple(versions), await effective(stores, asked.workspace, asked.subject))


async def _plan(stores: SchemaStores, asked: Submission) -> _Plan:
    asked = await identified(stores, asked)
    state = await _state(stores, asked)
    await _require_references(stores, asked.workspace, asked.content)
    document = await _whole(stores, asked.workspace, asked.content)
    unchecked = state.settings.level is CompatibilityLevel.NONE or state.settings.mode is Mode.IMPORT
    live = tuple(each for each in reversed(state.versions) if not each.deleted)
    return _Plan(asked.content, document, () if unchecked else live, state)


async def _narrowed(stores: SchemaStores, asked: Submission, plan: _Plan, against: int | None) -> _Plan:
    """Return the plan with one version to compare with; a subject without any is compatible with its newest."""
    try:
        found = await version_of_subject(
            stores, workspace=asked.workspace, subject=asked.subject, number=against, deleted=False
        )
    except SubjectNotFoundError:
        if against is not None:
            raise
        return replace(plan, older=())
    one = VersionOfSubject(asked.subject, found.version, found.schema.schema_id, found.deleted)
    return replace(plan, older=(one,) if plan.older else ())


def _same_group(content: SchemaContent, plan: _Plan) -> bool:
    group = plan.state.settings.compatibility_group
    return not group or properties_of(content).get(group) == properties_of(plan.content).get(group)


async def _whole(stores: SchemaStores, workspace: str, content: SchemaContent) -> Any:
    """Return a schema with all that it refers to as one document; raise SchemaInvalid- or SchemaTooLargeError."""
    known: dict[tuple[str, int], Linked] = {}
    size = 0

    async def linked(inner: SchemaContent) -> Linked:
        nonlocal size
        size += len(inner.text)
        if len(known) > _MOST_LINKED or size > _LARGEST_WHOLE:
            raise SchemaTooLargeError(
                f"The schema refers to more than {_MOST_LINKED} others, or is over {_LARGEST_WHOLE} bytes with them."
            )
        names: dict[str, Linked] = {}
        for reference in inner.references:
            place = (reference.subject, reference.version)
            if place not in known:
                kept = await _referred(stores, workspace, reference)
                known[place] = await linked(kept.content)
            names[reference.name] = known[place]
        document = inner.document if inner.document is not None else orjson.loads(inner.text)
        return Linked(document, names)

    return bundled(await linked(content))


async def _require_references(stores: SchemaStores, workspace: str, content: SchemaContent) -> None:
    """Raise SchemaInvalidError unless all that a schema refers to is there."""
    for each in content.references:
        await _referred(stores, workspace, each, deleted=False)


async def _referred(stores: SchemaStores, workspace: str, reference: Reference, *, deleted: bool = True) -> KeptSchema:
    try:
        found = await version_of_subject(
            stores, workspace=workspace, subject=reference.subject, number=reference.version, deleted=deleted
        )
    except (SubjectNotFoundError, SchemaVersionNotFoundError):
        raise SchemaInvalidError(
            f"The reference {reference.name!r} names version {reference.version} of {reference.subject!r}, which is "
            "not there. Register it first.",
            metadata={"subject": reference.subject, "version": str(reference.version)},
        ) from None
    return found.schema


async def _numbered(stores: SchemaStores, asked: Submission, content: SchemaContent) -> KeptSchema | None:
    """Return the schema if it is kept already; raise SchemaIdTakenError when a number stands for something else."""
    same = await stores.schemas.find_content(asked.workspace, content.guid)
    if asked.schema_id:
        other = await stores.schemas.find_schema(asked.workspace, asked.schema_id)
        if (same is not None and same.schema_id != asked.schema_id) or (other is not None and same is None):
            has = f"this schema has the id {same.schema_id}" if same else "another schema has it"
            raise SchemaIdTakenError(
                f"The id {asked.schema_id} cannot be given: {has}.", metadata={"schema_id": str(asked.schema_id)}
            )
    for each in await stores.schemas.versions_of(asked.workspace, asked.subject):
        if each.version == asked.version and (same is None or each.schema_id != same.schema_id):
            raise SchemaIdTakenError(
                f"Version {asked.version} of {asked.subject!r} is another schema.",
                metadata={"subject": asked.subject, "version": str(asked.version)},
            )
    return same
