"""MappingService: mapping files checked, put in force, and shown."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
from counterfoil.graph.v1 import mappings_pb2, mappings_pb2_grpc
from counterfoil_chassis.identity import Caller

from counterfoil_graph import mappings
from counterfoil_graph.servicers.messages import finding_message, mapping_message
from counterfoil_graph.servicers.services import GraphServices

Context = grpc.aio.ServicerContext[Any, Any]


class MappingServicer(mappings_pb2_grpc.MappingServiceServicer):
    """See mappings.proto."""

    def __init__(self, services: GraphServices) -> None:
        self._services = services

    async def CreateMapping(self, request: mappings_pb2.CreateMappingRequest, context: Context) -> mappings_pb2.Mapping:
        """Put a mapping in force as the next version of its id."""
        caller = await self._services.caller()
        # before the consumer is stopped for it
        await self._services.worker.run(mappings.require_valid, request.document)
        made: list[mappings_pb2.Mapping] = []

        async def put() -> None:
            made.append(await self._put(request, caller))

        await self._services.followers.change(caller.workspace, put)
        return made[0]

    async def _put(self, request: mappings_pb2.CreateMappingRequest, caller: Caller) -> mappings_pb2.Mapping:
        async with self._services.stores.begin() as transaction:

            async def make() -> mappings_pb2.Mapping:
                created = await mappings.create(
                    transaction.mappings(caller.workspace),
                    caller.workspace,
                    request.document,
                    created_by=caller.principal,
                    now=self._services.clock.now(),
                )
                version = created.version
                details = {"version": version.version, "sha256": version.sha256, "rebuild": created.rebuild}
                await self._services.tell(
                    transaction, caller, "mapping.create", f"mappings/{version.mapping_id}", details
                )
                transaction.after_commit(partial(self._services.reads_changed, caller.workspace))
                return mapping_message(version)

            return await self._services.idempotency.once(
                transaction.connection,
                request,
                method="CreateMapping",
                workspace=caller.workspace,
                answer=mappings_pb2.Mapping,
                make=make,
            )

    async def CheckMapping(
        self, request: mappings_pb2.CheckMappingRequest, context: Context
    ) -> mappings_pb2.CheckMappingResponse:
        """Check a mapping without keeping it."""
        findings = await self._services.worker.run(mappings.check, request.document)
        return mappings_pb2.CheckMappingResponse(
            valid=not findings, findings=[finding_message(each) for each in findings]
        )

    async def GetMapping(self, request: mappings_pb2.GetMappingRequest, context: Context) -> mappings_pb2.Mapping:
        """Return a mapping as it is in force."""
        caller = await self._services.caller()
        async with self._services.stores.read() as transaction:
            return mapping_message(await mappings.get(transaction.mappings(caller.workspace), request.mapping_id))

    async def ListMappings(
        self, request: mappings_pb2.ListMappingsRequest, context: Context
    ) -> mappings_pb2.ListMappingsResponse:
        """List the mappings in force, by id."""
        caller = await self._services.caller()
        place = {"method": "ListMappings", "workspace": caller.workspace}
        page = self._services.pager.open(request, **place)
        after = page.after[0] if page.after else ""
        async with self._services.stores.read() as transaction:
            found = await transaction.mappings(caller.workspace).in_force()
        left = [each for each in found if each.mapping_id > after]
        kept = left[: page.limit]
        token = (
            self._services.pager.token(request, **place, after=[kept[-1].mapping_id]) if len(left) > len(kept) else ""
        )
        return mappings_pb2.ListMappingsResponse(
            mappings=[mapping_message(each) for each in kept], next_page_token=token
        )
