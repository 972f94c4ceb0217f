"""What callers are told when a service behind the gateway cannot be reached."""

from __future__ import annotations

import grpc
import pytest
from counterfoil_chassis.call import connect
from counterfoil_chassis.dependency import Dependency
from counterfoil_gateway.problems import from_rpc


async def unreached() -> grpc.aio.AioRpcError:
    """Call a port where nobody listens, for real."""
    async with connect("127.0.0.1:1", to=Dependency("models")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/counterfoil.models.v1.ModelService/GetModel")(b"", timeout=5)
    return failure.value


async def test_a_service_that_does_not_answer_is_told_by_its_name_and_without_its_address() -> None:
    problem = from_rpc(await unreached())
    assert (problem.status, problem.headers["retry-after"]) == (503, "1")
    assert (problem.reason, problem.metadata) == ("DEPENDENCY_UNAVAILABLE", {"dependency": "models"})
    assert problem.detail == "models does not answer; try again"
    assert b"127.0.0.1" not in problem.json()
