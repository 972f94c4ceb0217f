"""Masked fields never leave their view, and a result with a receipt comes out the same again."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import duckdb
import orjson
import pytest
from counterfoil.ingest.v1.erasures_pb2 import EraseRecordsRequest
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.database import Database
from counterfoil_chassis.outbox import OutboxRelay
from counterfoil_ingest import sql_guard
from counterfoil_ingest.hold_errors import DatasetHeldError
from counterfoil_ingest.holds import Hold
from counterfoil_ingest.masking import Mask, MaskedField, steps
from counterfoil_ingest.queries import Asked, Result
from counterfoil_ingest.query_errors import NotReplayableError, ReceiptNotFoundError
from counterfoil_ingest.query_receipts import Question
from counterfoil_ingest.query_results import Form
from counterfoil_ingest.read_errors import SnapshotErasedError, SqlInvalidError
from counterfoil_ingest.registry import ColumnType
from counterfoil_ingest.servicers.erasures import ErasureServicer
from counterfoil_ingest.sql.query_receipts import RECEIPTS, SqlQueryReceipts

from tests.ingest.conftest import LogRig
from tests.ingest.read_rig import ReadSide, contract, read_side, record

VISITS = {
    "user_id": ColumnType.VARCHAR,
    "age": ColumnType.BIGINT,
    "traits": ColumnType.JSON,
    "page": ColumnType.VARCHAR,
}
CLASSIFIED = {
    "$.user_id": "restricted",
    "$.age": "restricted",
    "$.traits.email": "restricted",
    "$.traits.home.street": "restricted",
}


@pytest.fixture
async def side(rig: Any) -> Any:
    """Six visits of three people."""
    rig.contracts.put(replace(contract("visits", VISITS), classifications=CLASSIFIED))
    async with read_side(rig) as opened:
        await opened.append(*(visit(n) for n in range(6)))
        yield opened


def visit(n: int) -> Any:
    who = ("ada", "bob", "eve")[n % 3]
    traits = {"email": f"{who}@example.com", "home": {"street": "Long Lane", "city": "Oslo"}, "plan": "pro"}
    return record("visits", f"v{n}", {"user_id": who, "age": 30 + n, "traits": traits, "page": f"/{n}"})


def masks(mask: Mask) -> Any:
    async def of(dataset: str, classified: Mapping[str, str]) -> Sequence[MaskedField]:
        return [MaskedField(dataset, path, kind, mask) for path, kind in sorted(classified.items())]

    return of


async def ask(side: ReadSide, sql: str, **how: Any) -> tuple[Any, Result]:
    async with side.queries.opened("acme", Asked(sql, **how), within=30) as result:
        rows = b"".join([piece.data async for piece in result.pieces()])
    return orjson.loads(rows) if how.get("form", Form.JSON) is Form.JSON else rows, result


def test_reads_the_steps_of_a_json_path() -> None:
    assert steps("$.traits['e mail']") == ("traits", "e mail")
    assert steps(r"$['it\'s'].x") == ("it's", "x")
    assert steps("$.items[*].price") == ("items", None, "price")


async def test_masks_in_every_place_that_sql_can_look(side: ReadSide) -> None:
    plain, _ = await ask(side, "SELECT DISTINCT user_id FROM visits ORDER BY 1")
    assert plain == [["ada"], ["bob"], ["eve"]]
    nothing, result = await ask(side, "SELECT DISTINCT user_id, age FROM visits", masks=masks(Mask.NULL))
    assert nothing == [[None, None]]
    assert [field.path for field in result.cited["visits"].masked] == sorted(CLASSIFIED)
    for looking in (
        "SELECT count(*) FROM visits WHERE user_id = 'ada'",
        "SELECT count(*) FROM visits WHERE user_id LIKE 'a%' OR age > 0",
        "SELECT count(*) FROM visits v WHERE v::VARCHAR LIKE '%ada%'",
        "SELECT count(*) FROM visits WHERE traits LIKE '%example.com%' OR traits LIKE '%Lane%'",
        "SELECT count(*) FROM visits a JOIN (SELECT 'ada' AS user_id) b USING (user_id)",
        "WITH v AS (SELECT * FROM visits) SELECT count(*) FROM v WHERE user_id = 'ada'",
    ):
        for mask in Mask:
            assert (await ask(side, looking, masks=masks(mask)))[0] == [[0]], looking
    with pytest.raises(SqlInvalidError) as told:
        await ask(side, "SELECT error(coalesce(user_id, 'nobody')) FROM visits", masks=masks(Mask.NULL))
    assert "ada" not in told.value.message


async def test_pseudonyms_stay_equal_and_leave_the_rest_of_an_object(side: ReadSide) -> None:
    sql = "SELECT user_id, count(*), min(traits->>'$.plan'), min(traits) FROM visits GROUP BY 1"
    found, _ = await ask(side, sql, masks=masks(Mask.PSEUDONYM))
    assert [each[1:3] for each in found] == [[2, "pro"]] * 3
    assert {len(each[0]) for each in found} == {64}
    assert orjson.loads(found[0][3]) == {"home": {"city": "Oslo"}, "plan": "pro"}
    again, _ = await ask(side, sql, masks=masks(Mask.PSEUDONYM))
    assert sorted(again) == sorted(found)
    side.contracts.put(replace(contract("visits", VISITS, workspace="zeta"), classifications=CLASSIFIED))
    await side.append(visit(0), workspace="zeta")
    asked = Asked("SELECT user_id FROM visits", masks=masks(Mask.PSEUDONYM))
    async with side.queries.opened("zeta", asked, within=30) as result:
        (other,) = [piece.data async for piece in result.pieces()]
    assert orjson.loads(other)[0][0] not in {each[0] for each in found}


async def test_a_column_that_a_newer_contract_dropped_stays_masked(side: ReadSide) -> None:
    await side.flush()
    side.contracts.put(contract("visits", {"page": ColumnType.VARCHAR}, version="2.0.0"))
    found, _ = await ask(side, "SELECT DISTINCT user_id, age FROM visits", masks=masks(Mask.NULL))
    assert found == [[None, None]]


QUESTIONS = [
    "SELECT * FROM visits",
    "SELECT user_id, page FROM visits LIMIT 3",
    "SELECT user_id, count(*), first(page) FROM visits GROUP BY user_id",
    "SELECT DISTINCT user_id FROM visits",
    "SELECT page, row_number() OVER () FROM visits",
    "SELECT a.page FROM visits a JOIN visits b USING (user_id) LIMIT 4",
    "SELECT 12345678901234567::BIGINT, 'nan'::DOUBLE, sum(age) / 7 FROM visits",
]


async def test_makes_results_again_after_the_lake_was_rewritten_and_the_contract_grew(side: ReadSide) -> None:
    made = []
    for sql in QUESTIONS:
        _, result = await ask(side, sql, receipt=True, masks=masks(Mask.PSEUDONYM))
        made.append(result)
    assert made[0].versions == {"visits": {"1.0.0": 6}}
    assert len({result.sha256 for result in made}) == len(QUESTIONS)
    await side.flush()
    for n in range(6, 36):  # so many small files that the table is compacted, and rows beyond the snapshot
        await side.append(visit(n))
        await side.flush()
    grown = contract("visits", VISITS | {"more": ColumnType.VARCHAR}, version="1.1.0")
    side.contracts.put(replace(grown, classifications=CLASSIFIED))
    forms = itertools.cycle(Form)
    for sql, before in zip(QUESTIONS, made, strict=True):
        _, again = await ask(side, sql, receipt=True, cited=before.cited, form=next(forms))
        assert again.sha256 == before.sha256, sql
        assert again.versions == before.versions
    _, now = await ask(side, QUESTIONS[0], receipt=True, masks=masks(Mask.PSEUDONYM))
    assert now.sha256 != made[0].sha256


async def test_refuses_to_make_a_result_again_whose_records_were_erased(side: ReadSide) -> None:
    _, made = await ask(side, "SELECT count(*) FROM visits", receipt=True)
    await side.eraser.erase("acme", 0, [0], texts=())
    with pytest.raises(SnapshotErasedError):
        await ask(side, "SELECT count(*) FROM visits", receipt=True, cited=made.cited)


@pytest.mark.parametrize(
    "called",
    [
        "now()",
        "current_date",
        "CURRENT_TIMESTAMP",
        "random()",
        "uuid()",
        "gen_random_uuid()",
        "today()",
        "ago(INTERVAL 1 DAY)",
        "age(TIMESTAMP '2020-01-01')",
        "current_localtimestamp()",
        "(SELECT count(*) FROM visits TABLESAMPLE 50%)",
    ],
)
def test_finds_what_differs_each_time(called: str) -> None:
    with duckdb.connect(":memory:") as connection:
        steady = "SELECT age(day, sold_at), max(timestamp), lower(x) FROM sales"
        assert sql_guard.volatile_in(connection, sql_guard.parsed(connection, f"SELECT {called}"))
        assert not sql_guard.volatile_in(connection, sql_guard.parsed(connection, steady))


async def test_gives_no_receipt_for_what_differs_each_time(side: ReadSide) -> None:
    with pytest.raises(NotReplayableError):
        await ask(side, "SELECT random()", receipt=True)


@pytest.fixture
async def receipts(rig: LogRig) -> AsyncIterator[SqlQueryReceipts]:
    database, clock = Database(rig.url, lease=rig.lease), SystemClock()

    async def deliver(_: Sequence[bytes]) -> None:
        """Nobody is told."""

    yield SqlQueryReceipts(database, OutboxRelay(database, RECEIPTS, deliver, clock), clock)
    await database.close()


async def test_questions_that_name_the_erased_are_forgotten_and_others_kept(
    side: ReadSide, receipts: SqlQueryReceipts
) -> None:
    _, made = await ask(side, "SELECT count(*) FROM visits", receipt=True)
    ada = Question("SELECT 1 FROM visits WHERE user_id = 'ada@example.com'", b"", 10, "k", made.cited)
    by_parameter = Question("SELECT 1 FROM visits WHERE user_id = ?", b'["ada@example.com"]', 10, "k", made.cited)
    bob = Question("SELECT 1 FROM visits WHERE user_id = ?", b'["bob@example.com"]', 0, "k", made.cited)
    for number, question in enumerate((ada, by_parameter, bob)):
        await receipts.add("acme", f"ingest.{number}", b"bytes", question)
    assert await receipts.get("acme", "ingest.2") == (b"bytes", bob)
    with pytest.raises(ReceiptNotFoundError):
        await receipts.get("zeta", "ingest.2")
    assert await receipts.forget("zeta", ["ada@example.com"]) == 0
    assert await receipts.forget("acme", ["ADA@example.com"]) == 2
    assert [(await receipts.get("acme", f"ingest.{n}"))[1] for n in range(3)] == [None, None, bob]


async def test_an_erasure_that_a_hold_refuses_forgets_no_question(side: ReadSide, receipts: SqlQueryReceipts) -> None:
    question = Question("SELECT 1 FROM visits WHERE user_id = 'ada@example.com'", b"", 10, "k", {})
    await receipts.add("acme", "ingest.0", b"bytes", question)
    servicer = ErasureServicer(side.eraser, side.holds, receipts)
    request = EraseRecordsRequest(workspace="acme", offsets=[0], identifiers=["ada@example.com"])
    context: Any = None
    side.holds.put("acme/h1", Hold("acme", "h1", "visits", None))
    with pytest.raises(DatasetHeldError):
        await servicer.EraseRecords(request, context)
    assert await receipts.get("acme", "ingest.0") == (b"bytes", question)
    side.holds.delete("acme/h1")
    assert (await servicer.EraseRecords(request, context)).erased == 1
    assert await receipts.get("acme", "ingest.0") == (b"bytes", None)
