"""SchemaService: translate, open the transaction, delegate, translate back."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
from counterfoil.contracts.v1 import schemas_pb2 as pb
from counterfoil.contracts.v1.schemas_pb2_grpc import SchemaServiceServicer
from counterfoil_chassis.calls import Answers
from counterfoil_chassis.identity import current_caller
from google.protobuf.message import Message

from counterfoil_contracts.registry import subjects
from counterfoil_contracts.registry.content import subject_of, version_of
from counterfoil_contracts.registry.registering import Registrar, Submission, identified, sentence
from counterfoil_contracts.schema_store import SchemaStores, SchemaTransactions
from counterfoil_contracts.servicers.schema_translation import (
    from_config,
    from_mode,
    from_new,
    subject_or_every,
    to_config,
    to_mode,
    to_schema,
    to_version,
)

GET_SCHEMA: Final = "/counterfoil.contracts.v1.SchemaService/GetSchema"
Context = grpc.aio.ServicerContext[Message, Message]


class SchemaServicer(SchemaServiceServicer):
    """Serves the schema subjects of the caller's workspace."""

    def __init__(self, transactions: SchemaTransactions, registrar: Registrar, *, kept: Answers) -> None:
        """Take the answers to GetSchema that are kept: deletions for good clear them."""
        self._transactions = transactions
        self._registrar = registrar
        self._kept = kept

    async def RegisterSchemaVersion(
        self, request: pb.RegisterSchemaVersionRequest, context: Context
    ) -> pb.SchemaVersion:
        """Keep a schema as the newest version of a subject."""
        asked = await _submission(request, schema_id=request.schema_id, version=request.version)
        return to_version(await self._registrar.register(asked))

    async def FindSchemaVersion(self, request: pb.FindSchemaVersionRequest, context: Context) -> pb.SchemaVersion:
        """Return the version under which a subject has a schema."""
        asked = await _submission(request)
        async with self._transactions.read() as stores:
            asked = await identified(stores, asked)
            return to_version(
                await subjects.find(
                    stores,
                    workspace=asked.workspace,
                    subject=asked.subject,
                    content=asked.content,
                    deleted=request.deleted,
                )
            )

    async def GetSchemaVersion(self, request: pb.GetSchemaVersionRequest, context: Context) -> pb.SchemaVersion:
        """Return one version of a subject."""
        async with self._transactions.read() as stores:
            return to_version(
                await subjects.version(
                    stores,
                    workspace=current_caller().workspace,
                    subject=subject_of(request.subject),
                    number=version_of(request.version),
                    deleted=request.deleted,
                )
            )

    async def FindLatestSchemaVersion(
        self, request: pb.FindLatestSchemaVersionRequest, context: Context
    ) -> pb.SchemaVersion:
        """Return the newest version of a subject whose metadata has certain properties."""
        async with self._transactions.read() as stores:
            return to_version(
                await subjects.latest_with(
                    stores,
                    workspace=current_caller().workspace,
                    subject=subject_of(request.subject),
                    properties=dict(request.properties),
                    deleted=request.deleted,
                )
            )

    async def ListSchemaVersions(
        self, request: pb.ListSchemaVersionsRequest, context: Context
    ) -> pb.ListSchemaVersionsResponse:
        """List the numbers of a subject's versions."""
        async with self._transactions.read() as stores:
            found = await subjects.numbers(
                stores,
                workspace=current_caller().workspace,
                subject=subject_of(request.subject),
                deleted=request.deleted,
                deleted_only=request.deleted_only,
            )
        return pb.ListSchemaVersionsResponse(versions=found[request.offset :][: request.limit])

    async def ListSchemaSubjects(
        self, request: pb.ListSchemaSubjectsRequest, context: Context
    ) -> pb.ListSchemaSubjectsResponse:
        """List the workspace's subjects."""
        async with self._transactions.read() as stores:
            found = await stores.schemas.subjects(
                current_caller().workspace,
                prefix=request.prefix.removeprefix(":.:"),
                with_deleted=request.deleted,
                only_deleted=request.deleted_only,
                offset=request.offset,
                limit=request.limit,
            )
        return pb.ListSchemaSubjectsResponse(subjects=found)

    async def DeleteSchemaVersion(
        self, request: pb.DeleteSchemaVersionRequest, context: Context
    ) -> pb.DeleteSchemaVersionResponse:
        """Delete a version."""
        workspace, subject = current_caller().workspace, subject_of(request.subject)
        number = version_of(request.version)
        async with self._transactions.begin() as stores:
            gone = await subjects.delete_version(
                stores, workspace=workspace, subject=subject, number=number, permanent=request.permanent
            )
            details = {"versions": [gone], "permanent": request.permanent}
            await _record(stores, "schema.delete", f"subjects/{subject}/versions/{gone}", details)
        if request.permanent:
            self._kept.clear()
        return pb.DeleteSchemaVersionResponse(version=gone)

    async def DeleteSchemaSubject(
        self, request: pb.DeleteSchemaSubjectRequest, context: Context
    ) -> pb.DeleteSchemaSubjectResponse:
        """Delete every version of a subject."""
        workspace, subject = current_caller().workspace, subject_of(request.subject)
        async with self._transactions.begin() as stores:
            gone = await subjects.delete_subject(
                stores, workspace=workspace, subject=subject, permanent=request.permanent
            )
            details = {"versions": list(gone), "permanent": request.permanent}
            await _record(stores, "schema.delete", f"subjects/{subject}", details)
        if request.permanent:
            self._kept.clear()
        return pb.DeleteSchemaSubjectResponse(versions=gone)

    async def GetSchema(self, request: pb.GetSchemaRequest, context: Context) -> pb.Schema:
        """Return a schema by its id."""
        workspace = current_caller().workspace
        async with self._transactions.read() as stores:
            return to_schema(await subjects.schema_by_id(stores, workspace=workspace, schema_id=request.schema_id))

    async def GetSchemaByGuid(self, request: pb.GetSchemaByGuidRequest, context: Context) -> pb.Schema:
        """Return a schema by its GUID."""
        async with self._transactions.read() as stores:
            return to_schema(
                await subjects.schema_by_guid(stores, workspace=current_caller().workspace, guid=request.guid)
            )

    async def ListVersionsOfSchema(
        self, request: pb.ListVersionsOfSchemaRequest, context: Context
    ) -> pb.ListVersionsOfSchemaResponse:
        """List the versions that are a schema."""
        workspace = current_caller().workspace
        async with self._transactions.read() as stores:
            await subjects.schema_by_id(stores, workspace=workspace, schema_id=request.schema_id)
            found = await stores.schemas.versions_with(
                workspace,
                request.schema_id,
                subject=subject_of(request.subject) if request.subject else "",
                with_deleted=request.deleted,
                offset=request.offset,
                limit=request.limit,
            )
        versions = [pb.SubjectVersion(subject=each.subject, version=each.version) for each in found]
        return pb.ListVersionsOfSchemaResponse(versions=versions)

    async def ListReferringSchemas(
        self, request: pb.ListReferringSchemasRequest, context: Context
    ) -> pb.ListReferringSchemasResponse:
        """List the ids of the schemas that refer to a version."""
        async with self._transactions.read() as stores:
            found = await subjects.referring(
                stores,
                workspace=current_caller().workspace,
                subject=subject_of(request.subject),
                number=version_of(request.version),
                offset=request.offset,
                limit=request.limit,
            )
        return pb.ListReferringSchemasResponse(schema_ids=found)

    async def CheckSchema(self, request: pb.CheckSchemaRequest, context: Context) -> pb.CheckSchemaResponse:
        """Say whether a schema is compatible with a subject's versions."""
        asked = await _submission(request)
        only_one = bool(request.version)
        against = version_of(request.version) if only_one else None
        found = await self._registrar.check(asked, against=against, only_one=only_one)
        return pb.CheckSchemaResponse(compatible=not found, messages=[sentence(each) for each in found])

    async def GetSubjectConfig(self, request: pb.GetSubjectConfigRequest, context: Context) -> pb.SubjectConfig:
        """Return how a subject, or every subject, takes new versions."""
        async with self._transactions.read() as stores:
            return to_config(
                await subjects.config_of(
                    stores,
                    workspace=current_caller().workspace,
                    subject=subject_or_every(request.subject),
                    default_to_global=request.default_to_global,
                )
            )

    async def SetSubjectConfig(self, request: pb.SetSubjectConfigRequest, context: Context) -> pb.SubjectConfig:
        """Say how a subject, or every subject, takes new versions."""
        workspace, subject = current_caller().workspace, subject_or_every(request.subject)
        async with self._transactions.begin() as stores:
            said = await subjects.set_config(stores, workspace=workspace, subject=subject, said=from_config(request))
            details = {
                "level": said.level.value if said.level else "",
                "policy": said.policy.value if said.policy else "",
            }
            await _record(stores, "schema.set_config", f"subjects/{subject}", details)
        return to_config(said)

    async def DeleteSubjectConfig(self, request: pb.DeleteSubjectConfigRequest, context: Context) -> pb.SubjectConfig:
        """Forget what was said of a subject, or of every subject."""
        workspace, subject = current_caller().workspace, subject_or_every(request.subject)
        async with self._transactions.begin() as stores:
            before = await subjects.delete_config(stores, workspace=workspace, subject=subject)
            await _record(stores, "schema.delete_config", f"subjects/{subject}", {})
        return to_config(before)

    async def GetSubjectMode(self, request: pb.GetSubjectModeRequest, context: Context) -> pb.SubjectMode:
        """Return whether a subject, or every subject, can be written."""
        async with self._transactions.read() as stores:
            return to_mode(
                await subjects.mode_of(
                    stores,
                    workspace=current_caller().workspace,
                    subject=subject_or_every(request.subject),
                    default_to_global=request.default_to_global,
                )
            )

    async def SetSubjectMode(self, request: pb.SetSubjectModeRequest, context: Context) -> pb.SubjectMode:
        """Say whether a subject, or every subject, can be written."""
        workspace, subject = current_caller().workspace, subject_or_every(request.subject)
        mode = from_mode(request.mode)
        async with self._transactions.begin() as stores:
            await subjects.set_mode(stores, workspace=workspace, subject=subject, mode=mode, force=request.force)
            await _record(stores, "schema.set_mode", f"subjects/{subject}", {"mode": mode.value})
        return to_mode(mode)

    async def DeleteSubjectMode(self, request: pb.DeleteSubjectModeRequest, context: Context) -> pb.SubjectMode:
        """Forget what was said of a subject, or of every subject."""
        workspace, subject = current_caller().workspace, subject_or_every(request.subject)
        async with self._transactions.begin() as stores:
            before = await subjects.delete_mode(stores, workspace=workspace, subject=subject)
            await _record(stores, "schema.delete_mode", f"subjects/{subject}", {})
        return to_mode(before)


async def _submission(
    request: pb.RegisterSchemaVersionRequest | pb.FindSchemaVersionRequest | pb.CheckSchemaRequest,
    *,
    schema_id: int = 0,
    version: int = 0,
) -> Submission:
    caller = current_caller()
    return Submission(
        workspace=caller.workspace,
        subject=subject_of(request.subject),
        content=await asyncio.to_thread(from_new, request.schema),
        normalize=request.normalize,
        principal=caller.principal,
        schema_id=schema_id,
        version=version,
    )


async def _record(stores: SchemaStores, action: str, resource: str, details: dict[str, Any]) -> None:
    caller = current_caller()
    await stores.audit.record(
        workspace=caller.workspace, principal=caller.principal, action=action, resource=resource, details=details
    )
