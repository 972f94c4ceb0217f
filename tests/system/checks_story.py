"""The part of the story in which recent records are described and a contract is drafted from them."""

from __future__ import annotations

from counterfoil.contracts.v1 import checks_pb2

from tests.system.installation import until
from tests.system.story import Step, World
from tests.system.tenant import ok


def _check(world: World) -> str:
    return str(world.answers["CheckService/CreateCheck"]["check_id"])


def _wait_for_check(world: World) -> None:
    def finished() -> bool | None:
        return True if ok(world.tenant.http.get(f"/v1/checks/{_check(world)}"))["state"] != "PENDING" else None

    until(finished, seconds=60, what="the check was not run")


CHECKS_STORY: dict[str, Step] = {
    "CheckService/CreateCheck": Step(
        lambda w: checks_pb2.CreateCheckRequest(
            profile=checks_pb2.ProfileSubject(dataset="visits"), records=500, request_id="profile"
        )
    ),
    "CheckService/GetCheck": Step(lambda w: checks_pb2.GetCheckRequest(check_id=_check(w)), before=_wait_for_check),
    "CheckService/ListChecks": Step(lambda w: checks_pb2.ListChecksRequest()),
    "CheckService/DraftContract": Step(
        lambda w: checks_pb2.DraftContractRequest(
            check_id=_check(w), contract_id="visits-drafted", owner="growth", dataset="visits_again"
        )
    ),
}
