"""gRPC reflection at the gRPC door: for whoever is signed in, and of the public methods alone."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from counterfoil_gateway import api as apis
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha import reflection_pb2_grpc

from tests.gateway.conftest import ADMIN, UNKNOWN, Doors, gateway_and_backend

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def ask(channel: grpc.aio.Channel, key: str, **question: object) -> pb.ServerReflectionResponse:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    metadata = (("x-api-key", key),) if key else ()
    call = stub.ServerReflectionInfo(iter([pb.ServerReflectionRequest(**question)]), metadata=metadata, timeout=10)
    [answer] = [each async for each in call]
    return answer


async def services(channel: grpc.aio.Channel, key: str) -> set[str]:
    answer = await ask(channel, key, list_services="")
    return {each.name for each in answer.list_services_response.service}


async def test_whoever_is_signed_in_sees_every_public_service_and_no_other(doors: Doors, api: apis.Api) -> None:
    public = {method.name.split("/")[1] for method in api.methods}
    assert await services(doors.rpc, ADMIN) == public | {"grpc.health.v1.Health"}
    assert "counterfoil.ingest.v1.AppendService" not in public


async def test_of_a_service_only_the_public_methods_are_told_with_what_they_need(doors: Doors, api: apis.Api) -> None:
    answer = await ask(doors.rpc, ADMIN, file_containing_symbol="counterfoil.ingest.v1.SourceService")
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(each)
        for each in answer.file_descriptor_response.file_descriptor_proto
    ]
    told = {method.name for file in files for service in file.service for method in service.method}
    assert told == {method.rpc for method in api.methods if method.service == "SourceService"}
    assert "WatchCredentials" not in told


@pytest.mark.parametrize("key", ["", UNKNOWN])
async def test_nobody_else_learns_anything(doors: Doors, key: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await services(doors.rpc, key)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(("setting", "outcome"), [("everybody", "OK"), ("off", "UNIMPLEMENTED")])
async def test_a_setting_opens_it_to_everybody_or_shuts_it(keys_dir: Path, setting: str, outcome: str) -> None:
    async for other in gateway_and_backend(keys_dir, reflection=setting):
        try:
            found = "OK" if await services(other.rpc, "") else "nothing"
        except grpc.aio.AioRpcError as error:
            found = error.code().name
    assert found == outcome
