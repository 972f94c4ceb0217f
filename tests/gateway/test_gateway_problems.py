"""What callers are told when a service behind the gateway cannot be reached."""

from __future__ import annotations

import grpc
import pytest
from counterfoil_chassis.call import connect
from counterfoil_chassis.dependency import Dependency
from counterfoil_gateway.problems import C, Problem, from_rpc


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


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        (C.RESOURCE_EXHAUSTED, "DISK_FULL", 429),
        (C.RESOURCE_EXHAUSTED, "FILE_TOO_LARGE", 413),
        (C.ABORTED, "ETAG_MISMATCH", 412),
    ],
)
def test_what_sending_again_does_not_mend_has_a_status_that_says_so(
    code: grpc.StatusCode, reason: str, status: int
) -> None:
    assert Problem(code, "It is refused.", reason).status == status
