"""What is read of schema subjects and deleted from them, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import orjson

from counterfoil_contracts.registry.content import LATEST
from counterfoil_contracts.schema_entities import (
    EVERY_SUBJECT,
    CompatibilityLevel,
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
    SchemaNotFoundError,
    SchemaReferencedError,
    SchemaVersionNotFoundError,
    SchemaVersionNotSoftDeletedError,
    SchemaVersionSoftDeletedError,
    SubjectConfigNotFoundError,
    SubjectModeInvalidError,
    SubjectModeNotFoundError,
    SubjectNotFoundError,
    SubjectNotSoftDeletedError,
    SubjectNotWritableError,
    SubjectSoftDeletedError,
)
from counterfoil_contracts.schema_store import SchemaStores

DEFAULTS = SubjectSettings(level=CompatibilityLevel.BACKWARD, policy=Policy.EXACT, normalize=False, mode=Mode.READWRITE)
"""What holds where nothing was said."""
_READ_ONLY = (Mode.READONLY, Mode.READONLY_OVERRIDE)


async def schema_by_id(stores: SchemaStores, *, workspace: str, schema_id: int) -> KeptSchema:
    """Return a schema by its number; raise SchemaNotFoundError."""
    found = await stores.schemas.find_schema(workspace, schema_id) if 0 < schema_id < 1 << 31 else None
    if found is None:
        raise SchemaNotFoundError(f"There is no schema {schema_id}.", metadata={"schema_id": str(schema_id)})
    return found


async def schema_by_guid(stores: SchemaStores, *, workspace: str, guid: str) -> KeptSchema:
    """Return a schema by its GUID; raise SchemaNotFoundError."""
    found = await stores.schemas.find_content(workspace, guid.lower())
    if found is None:
        raise SchemaNotFoundError(f"There is no schema with the GUID {guid!r}.", metadata={"guid": guid})
    return found


async def find(
    stores: SchemaStores, *, workspace: str, subject: str, content: SchemaContent, deleted: bool
) -> SchemaVersion:
    """Return the newest version under which a subject has a schema; raise SubjectNotFound- or SchemaNotFoundError."""
    versions = await _known(stores, workspace, subject, deleted=deleted)
    kept = await stores.schemas.find_content(workspace, content.guid)
    for each in reversed(versions):
        if kept is not None and each.schema_id == kept.schema_id:
            return await stores.schemas.get_version(workspace, subject, each.version)
    raise SchemaNotFoundError(f"The subject {subject!r} has no such schema.", metadata={"subject": subject})


async def version(
    stores: SchemaStores, *, workspace: str, subject: str, number: int | None, deleted: bool
) -> SchemaVersion:
    """Return one version, or the newest; raise SubjectNotFoundError or SchemaVersionNotFoundError."""
    found = await _one(stores, workspace, subject, number, deleted=deleted)
    return await stores.schemas.get_version(workspace, subject, found.version)


async def latest_with(
    stores: SchemaStores, *, workspace: str, subject: str, properties: Mapping[str, str], deleted: bool
) -> SchemaVersion:
    """Return the newest version whose metadata has these properties; raise SubjectNotFound- or SchemaNotFoundError."""
    versions = await _known(stores, workspace, subject, deleted=deleted)
    for each in reversed(versions):
        found = await stores.schemas.get_version(workspace, subject, each.version)
        if properties.items() <= properties_of(found.schema.content).items():
            return found
    raise SchemaNotFoundError(
        f"The subject {subject!r} has no version with these properties.", metadata={"subject": subject}
    )


def properties_of(content: SchemaContent) -> Mapping[str, str]:
    """Return the properties of a schema's metadata."""
    metadata = orjson.loads(content.metadata) if content.metadata else {}
    properties: Mapping[str, str] = metadata.get("properties", {})
    return properties


async def numbers(
    stores: SchemaStores, *, workspace: str, subject: str, deleted: bool, deleted_only: bool
) -> Sequence[int]:
    """Return the numbers of a subject's versions in ascending order; raise SubjectNotFoundError when there are none."""
    versions = await _known(stores, workspace, subject, deleted=deleted or deleted_only)
    found = [each.version for each in versions if each.deleted or not deleted_only]
    if not found:
        raise _no_subject(subject)
    return found


async def referring(
    stores: SchemaStores, *, workspace: str, subject: str, number: int | None, offset: int, limit: int
) -> Sequence[int]:
    """Return the numbers of the schemas that refer to a version; raise SubjectNotFound- or VersionNotFoundError."""
    found = await _one(stores, workspace, subject, number, deleted=True)
    place = Reference("", subject, found.version)
    return await stores.schemas.referring(workspace, place, with_deleted=False, offset=offset, limit=limit)


async def delete_version(
    stores: SchemaStores, *, workspace: str, subject: str, number: int | None, permanent: bool
) -> int:
    """Delete a version; return its number. Raises what says why it has to stay."""
    await require_writable(stores, workspace, subject)
    found = await _one(stores, workspace, subject, number, deleted=True, latest_deleted=permanent)
    names = {"subject": subject, "version": str(found.version)}
    if permanent and not found.deleted:
        raise SchemaVersionNotSoftDeletedError(
            f"Version {found.version} of {subject!r} is not deleted. Delete it first, then for good.", metadata=names
        )
    if not permanent and found.deleted:
        raise SchemaVersionSoftDeletedError(
            f"Version {found.version} of {subject!r} was deleted. Set permanent=true to delete it for good.",
            metadata=names,
        )
    await _delete(stores, workspace, subject, [found.version], permanent=permanent)
    return found.version


async def delete_subject(stores: SchemaStores, *, workspace: str, subject: str, permanent: bool) -> Sequence[int]:
    """Delete every version of a subject; return their numbers. Raises what says why they have to stay.

    For good means also what was said of the subject.
    """
    await require_writable(stores, workspace, subject)
    versions = await _known(stores, workspace, subject, deleted=True)
    left = [each.version for each in versions if not each.deleted]
    if permanent and left:
        raise SubjectNotSoftDeletedError(
            f"The subject {subject!r} is not deleted. Delete it first, then for good.", metadata={"subject": subject}
        )
    if not permanent and not left:
        raise SubjectSoftDeletedError(
            f"The subject {subject!r} was deleted. Set permanent=true to delete it for good.",
            metadata={"subject": subject},
        )
    gone = [each.version for each in versions] if permanent else left
    await _delete(stores, workspace, subject, gone, permanent=permanent)
    if permanent:
        await stores.schemas.put_settings(workspace, subject, SubjectSettings())
    return gone


async def _delete(
    stores: SchemaStores, workspace: str, subject: str, versions: Sequence[int], *, permanent: bool
) -> None:
    """Delete versions that nothing refers to; for good, nothing that could be taken back either."""
    for each in versions:
        place = Reference("", subject, each)
        found = await stores.schemas.referring(workspace, place, with_deleted=permanent, offset=0, limit=10)
        if found:
            raise SchemaReferencedError(
                f"Version {each} of {subject!r} is referred to by the schemas {', '.join(map(str, found))}. Delete "
                f"the versions that are those {'for good ' if permanent else ''}first.",
                metadata={"subject": subject, "version": str(each)},
            )
    if permanent:
        await stores.schemas.delete(workspace, subject, versions)
    else:
        await stores.schemas.delete_softly(workspace, subject, versions)


async def effective(stores: SchemaStores, workspace: str, subject: str) -> SubjectSettings:
    """Return what holds for a subject: what was said of it, else of every subject, else the defaults."""
    own = await stores.schemas.settings(workspace, subject)
    common = own if subject == EVERY_SUBJECT else await stores.schemas.settings(workspace, EVERY_SUBJECT)
    mode = own.mode or common.mode or DEFAULTS.mode
    normalize = own.normalize if own.normalize is not None else common.normalize
    return SubjectSettings(
        level=own.level or common.level or DEFAULTS.level,
        policy=own.policy or common.policy or DEFAULTS.policy,
        normalize=DEFAULTS.normalize if normalize is None else normalize,
        compatibility_group=own.compatibility_group or common.compatibility_group,
        mode=common.mode if common.mode is Mode.READONLY_OVERRIDE else mode,
    )


async def config_of(stores: SchemaStores, *, workspace: str, subject: str, default_to_global: bool) -> SubjectSettings:
    """Return how a subject takes new versions; raise SubjectConfigNotFoundError when it says nothing itself."""
    own = await stores.schemas.settings(workspace, subject)
    if not own.says_config and subject != EVERY_SUBJECT and not default_to_global:
        raise _no_config(subject)
    return await effective(stores, workspace, subject)


async def set_config(stores: SchemaStores, *, workspace: str, subject: str, said: SubjectSettings) -> SubjectSettings:
    """Say how a subject takes new versions, as far as something is said; None = as before."""
    own = await stores.schemas.settings(workspace, subject)
    changed = replace(
        own,
        level=said.level or own.level,
        policy=said.policy or own.policy,
        normalize=own.normalize if said.normalize is None else said.normalize,
        compatibility_group=own.compatibility_group if said.compatibility_group is None else said.compatibility_group,
    )
    await stores.schemas.put_settings(workspace, subject, changed)
    return changed


async def delete_config(stores: SchemaStores, *, workspace: str, subject: str) -> SubjectSettings:
    """Forget how a subject takes new versions; return what was said. Raises SubjectConfigNotFoundError."""
    own = await stores.schemas.settings(workspace, subject)
    if not own.says_config and subject != EVERY_SUBJECT:
        raise _no_config(subject)
    before = await effective(stores, workspace, subject) if subject == EVERY_SUBJECT else own
    await stores.schemas.put_settings(workspace, subject, SubjectSettings(mode=own.mode))
    return before


async def mode_of(stores: SchemaStores, *, workspace: str, subject: str, default_to_global: bool) -> Mode:
    """Return whether a subject can be written; raise SubjectModeNotFoundError when it says nothing itself."""
    own = await stores.schemas.settings(workspace, subject)
    if subject == EVERY_SUBJECT or default_to_global:
        return (await effective(stores, workspace, subject)).mode or Mode.READWRITE
    if own.mode is None:
        raise _no_mode(subject)
    return own.mode


async def set_mode(stores: SchemaStores, *, workspace: str, subject: str, mode: Mode, force: bool) -> None:
    """Say whether a subject can be written; raise SubjectModeInvalidError.

    What is there when an import begins could have the ids that are to come, so there must be nothing, or the caller
    knows better.
    """
    if mode is Mode.READONLY_OVERRIDE and subject != EVERY_SUBJECT:
        raise SubjectModeInvalidError("READONLY_OVERRIDE is for every subject at once. Set READONLY for one.")
    if mode is Mode.IMPORT and not force and await stores.schemas.has_schemas(workspace, subject):
        raise SubjectModeInvalidError(
            "There are schemas already, which an import could contradict. Delete them, or set force=true."
        )
    own = await stores.schemas.settings(workspace, subject)
    await stores.schemas.put_settings(workspace, subject, replace(own, mode=mode))


async def delete_mode(stores: SchemaStores, *, workspace: str, subject: str) -> Mode:
    """Forget whether a subject can be written; return what was said. Raises SubjectModeNotFoundError."""
    own = await stores.schemas.settings(workspace, subject)
    if own.mode is None and subject != EVERY_SUBJECT:
        raise _no_mode(subject)
    await stores.schemas.put_settings(workspace, subject, replace(own, mode=None))
    return own.mode or Mode.READWRITE


async def require_writable(stores: SchemaStores, workspace: str, subject: str) -> Mode:
    """Return a subject's mode; raise SubjectNotWritableError when nothing may be written."""
    mode = (await effective(stores, workspace, subject)).mode or Mode.READWRITE
    if mode in _READ_ONLY:
        raise SubjectNotWritableError(
            f"The subject {subject!r} is in the mode {mode.value}. Set another mode to write.",
            metadata={"subject": subject, "mode": mode.value},
        )
    return mode


async def _known(stores: SchemaStores, workspace: str, subject: str, *, deleted: bool) -> Sequence[VersionOfSubject]:
    """Return a subject's versions in ascending order; raise SubjectNotFoundError when there are none."""
    versions = await stores.schemas.versions_of(workspace, subject)
    found = [each for each in versions if deleted or not each.deleted]
    if not found:
        raise _no_subject(subject)
    return found


async def _one(
    stores: SchemaStores,
    workspace: str,
    subject: str,
    number: int | None,
    *,
    deleted: bool,
    latest_deleted: bool | None = None,
) -> VersionOfSubject:
    """Return one version, or for None the newest; that is one which is not deleted unless `latest_deleted` says so."""
    versions = await _known(stores, workspace, subject, deleted=deleted)
    if number is None:
        wanted = deleted if latest_deleted is None else latest_deleted
        left = [each for each in versions if wanted or not each.deleted]
        if left:
            return left[-1]
    for each in versions:
        if each.version == number:
            return each
    named = LATEST if number is None else str(number)
    raise SchemaVersionNotFoundError(
        f"The subject {subject!r} has no version {named}.", metadata={"subject": subject, "version": named}
    )


def _no_subject(subject: str) -> SubjectNotFoundError:
    return SubjectNotFoundError(f"There is no subject {subject!r}.", metadata={"subject": subject})


def _no_config(subject: str) -> SubjectConfigNotFoundError:
    text = (
        f"The subject {subject!r} has no compatibility level of its own; set defaultToGlobal=true to see which holds."
    )
    return SubjectConfigNotFoundError(text, metadata={"subject": subject})


def _no_mode(subject: str) -> SubjectModeNotFoundError:
    text = f"The subject {subject!r} has no mode of its own; set defaultToGlobal=true to see which holds."
    return SubjectModeNotFoundError(text, metadata={"subject": subject})
