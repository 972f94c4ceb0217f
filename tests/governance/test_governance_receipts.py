"""The ledger of receipts: the same bytes for ever."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from counterfoil.common.v1 import receipts_pb2 as common
from counterfoil.governance.v1 import receipts_pb2 as pb
from counterfoil_chassis.clock import SystemIds

from tests.governance.calls import Governance, refused

pytestmark = pytest.mark.both_engines("governance")


@pytest.fixture
def ids(governance: Governance) -> SystemIds:
    return SystemIds(governance.clock)


def receipt(ids: SystemIds, *, workspace: str = "default", **fields: str) -> common.Receipt:
    made = common.Receipt(receipt_id=f"models.{ids.new()}", producer="models", workspace=workspace, purpose="test")
    made.MergeFrom(common.Receipt(**fields))
    return made


async def put(governance: Governance, *receipts: common.Receipt | bytes) -> int:
    bodies = [each if isinstance(each, bytes) else each.SerializeToString() for each in receipts]
    answer = await governance.receipts.PutReceipts(
        pb.PutReceiptsRequest(receipts=bodies), **governance.as_service("models")
    )
    return int(answer.added)


async def test_returns_the_receipt_that_was_put(governance: Governance, ids: SystemIds) -> None:
    made = receipt(ids)
    assert await put(governance, made) == 1
    found = await governance.receipts.GetReceipt(
        pb.GetReceiptRequest(receipt_id=made.receipt_id), **governance.as_principal()
    )
    assert found == made


@pytest.mark.sqlite
async def test_keeps_the_bytes_it_was_given(governance: Governance, ids: SystemIds, tmp_path: Path) -> None:
    body = receipt(ids).SerializeToString() + b"\xfa\x3f\x03new"  # field 1023, of a later release
    await put(governance, body)
    with closing(sqlite3.connect(tmp_path / "governance.db")) as database, database:
        assert database.execute("SELECT body FROM receipts").fetchall() == [(body,)]
    database.close()


async def test_putting_the_same_bytes_again_adds_nothing(governance: Governance, ids: SystemIds) -> None:
    first, second = receipt(ids), receipt(ids)
    assert await put(governance, first, first) == 1
    assert await put(governance, first, second) == 1


async def test_other_bytes_under_a_known_id_cost_the_whole_call(governance: Governance, ids: SystemIds) -> None:
    known, new = receipt(ids), receipt(ids)
    await put(governance, known)
    known.purpose = "another"
    with refused("RECEIPT_DIFFERS") as refusal:
        await put(governance, new, known)
    assert refusal.failure is not None
    assert refusal.failure.metadata["receipt_id"] == known.receipt_id
    with refused("RECEIPT_NOT_FOUND"):
        await governance.receipts.GetReceipt(
            pb.GetReceiptRequest(receipt_id=new.receipt_id), **governance.as_principal()
        )


async def test_the_same_id_in_two_workspaces_is_two_receipts(governance: Governance, ids: SystemIds) -> None:
    here = receipt(ids)
    there = receipt(ids, workspace="acme", receipt_id=here.receipt_id, purpose="there")
    assert await put(governance, here, there) == 2
    found = await governance.receipts.GetReceipt(
        pb.GetReceiptRequest(receipt_id=here.receipt_id), **governance.as_principal(workspace="acme")
    )
    assert found.purpose == "there"


async def test_a_receipt_of_another_workspace_is_not_found(governance: Governance, ids: SystemIds) -> None:
    made = receipt(ids, workspace="acme")
    await put(governance, made)
    with refused("RECEIPT_NOT_FOUND"):
        await governance.receipts.GetReceipt(
            pb.GetReceiptRequest(receipt_id=made.receipt_id), **governance.as_principal()
        )
    listed = await governance.receipts.ListReceipts(pb.ListReceiptsRequest(), **governance.as_principal())
    assert not listed.receipts


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"producer": "graph"}, "RECEIPT_PRODUCER"),
        ({"receipt_id": "graph.0197aaaa-0000-7000-8000-000000000000"}, "RECEIPT_PRODUCER"),
        ({"receipt_id": "models.1"}, "RECEIPT_MALFORMED"),
        ({"receipt_id": "models.0197aaaa-0000-4000-8000-000000000000"}, "RECEIPT_MALFORMED"),
    ],
)
async def test_refuses_receipts_that_do_not_name_their_producer(
    governance: Governance, ids: SystemIds, fields: dict[str, str], reason: str
) -> None:
    with refused(reason):
        await put(governance, receipt(ids, **fields))


async def test_refuses_receipts_without_a_workspace_and_bytes_that_are_none(
    governance: Governance, ids: SystemIds
) -> None:
    homeless = receipt(ids)
    homeless.workspace = ""
    for bad in (homeless, b"\xff\xff", b""):
        with refused("RECEIPT_MALFORMED"):
            await put(governance, bad)


async def test_principals_put_no_receipts(governance: Governance, ids: SystemIds) -> None:
    request = pb.PutReceiptsRequest(receipts=[receipt(ids).SerializeToString()])
    with pytest.raises(Exception, match="PERMISSION_DENIED"):
        await governance.receipts.PutReceipts(request, **governance.as_principal())


async def test_lists_newest_first_page_by_page(governance: Governance, ids: SystemIds) -> None:
    made = [receipt(ids) for _ in range(7)]
    await put(governance, *made[3:])
    await put(governance, *made[:3])
    seen, request = [], pb.ListReceiptsRequest(page_size=3, producer="models")
    while True:
        page = await governance.receipts.ListReceipts(request, **governance.as_principal())
        seen += [each.receipt_id for each in page.receipts]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [each.receipt_id for each in reversed(made)]
    others = await governance.receipts.ListReceipts(
        pb.ListReceiptsRequest(producer="graph"), **governance.as_principal()
    )
    assert not others.receipts


async def test_a_page_of_large_receipts_stays_below_the_largest_message(governance: Governance, ids: SystemIds) -> None:
    made = [receipt(ids, parameters="x" * 1_500_000) for _ in range(6)]
    for each in made:
        await put(governance, each)
    seen, request = 0, pb.ListReceiptsRequest(page_size=1000)
    while True:
        page = await governance.receipts.ListReceipts(request, **governance.as_principal())
        seen += len(page.receipts)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == 6


async def test_replays_are_the_gateways(governance: Governance, ids: SystemIds) -> None:
    with refused("UNIMPLEMENTED") as refusal:
        await governance.receipts.ReplayReceipt(
            pb.ReplayReceiptRequest(receipt_id=f"models.{ids.new()}"), **governance.as_principal()
        )
    assert refusal.failure is not None
    assert "gateway" in refusal.failure.detail


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE receipts SET body = x'00'",
        "DELETE FROM receipts",
        "INSERT OR REPLACE INTO receipts SELECT workspace, receipt_id, unique_id, producer, x'00', 0 FROM receipts",
    ],
)
async def test_the_database_itself_refuses_any_change(
    governance: Governance, ids: SystemIds, tmp_path: Path, change: str
) -> None:
    await put(governance, receipt(ids))
    database = sqlite3.connect(tmp_path / "governance.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute(change)
    database.close()
