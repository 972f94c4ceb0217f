"""Records that broke their contract are counted, repaired, replayed and set aside."""

from counterfoil.ingest.v1 import quarantine_pb2

from tests.system.story import SALE, Step, World
from tests.system.tenant import ok


def _break_two(world: World) -> None:
    """Append a sale whose amount is none, and one without an amount."""
    broken = [{**SALE, "amount": "none"}, {"sold_at": SALE["sold_at"], "shop": "south"}]
    verdicts = ok(world.tenant.http.post("/v1/datasets/sales/records", json=broken))["verdicts"]
    world.answers["broken"] = {"quarantine_ids": [each["quarantine_id"] for each in verdicts]}


def _broken(world: World, index: int) -> list[str]:
    return [world.answers["broken"]["quarantine_ids"][index]]


QUARANTINE_STORY: dict[str, Step] = {
    "QuarantineService/ListQuarantineGroups": Step(
        lambda w: quarantine_pb2.ListQuarantineGroupsRequest(dataset="sales"), before=_break_two
    ),
    "QuarantineService/RepairQuarantinedRecords": Step(
        lambda w: quarantine_pb2.RepairQuarantinedRecordsRequest(
            quarantine_ids=_broken(w, 1), fixes=[quarantine_pb2.Fix(path="$.amount", default=b"7.5")]
        )
    ),
    "QuarantineService/ReplayQuarantinedRecords": Step(
        lambda w: quarantine_pb2.ReplayQuarantinedRecordsRequest(quarantine_ids=_broken(w, 1), request_id="replay")
    ),
    "QuarantineService/DiscardQuarantinedRecords": Step(
        lambda w: quarantine_pb2.DiscardQuarantinedRecordsRequest(
            quarantine_ids=_broken(w, 0), reason="a till's test", request_id="discard"
        )
    ),
}
"""`Service/Method` to its question, in order."""
