"""What callers are told when a service behind the gateway cannot be reached."""

from __future__ import annotations

import grpc
import pytest
from counterfoil_gateway.problems import from_rpc, told


async def unreached() -> grpc.aio.AioRpcError:
    """Call a port where nobody listens, for real."""
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/counterfoil.models.v1.ModelService/GetModel")(b"", timeout=5)
    return failure.value


async def test_a_service_that_does_not_answer_is_told_without_its_address() -> None:
    error = await unreached()
    assert "127.0.0.1" in (error.details() or "")
    problem = from_rpc(error)
    assert (problem.status, problem.headers["retry-after"]) == (503, "1")
    assert problem.detail == told(error) == "a service behind the gateway does not answer; try again"
    assert b"127.0.0.1" not in problem.json()
