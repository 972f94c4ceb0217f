from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from counterfoil.governance.v1.keys_pb2 import CreateKeyRequest, CreateKeyResponse
from counterfoil_chassis.database import Database
from counterfoil_chassis.idempotency import Idempotency, RequestIdReusedError
from cryptography.exceptions import InvalidTag
from sqlalchemy import text

from tests.chassis.probe import HandClock

pytestmark = pytest.mark.both_engines

API_KEY = "cfk_" + "sEcReT" * 7 + "s"
SECRET = b"s" * 32


class Maker:
    """Counts how often it was asked to make an answer."""

    def __init__(self) -> None:
        self.made = 0

    async def make(self) -> CreateKeyResponse:
        self.made += 1
        return CreateKeyResponse(api_key=f"{API_KEY}{self.made}")


async def ask(
    database: Database,
    clock: HandClock,
    make: Callable[[], Awaitable[CreateKeyResponse]],
    *,
    request: CreateKeyRequest,
    workspace: str = "acme",
    secret: bytes = SECRET,
) -> CreateKeyResponse:
    async with database.begin() as connection:
        return await Idempotency(secret, clock).once(
            connection, request, method="CreateKey", workspace=workspace, answer=CreateKeyResponse, make=make
        )


def request(principal: str = "ada", request_id: str = "r1") -> CreateKeyRequest:
    return CreateKeyRequest(principal_id=principal, request_id=request_id)


async def test_the_same_request_gets_the_first_answer_and_no_second_effect(database: Database) -> None:
    clock, maker = HandClock(), Maker()
    first = await ask(database, clock, maker.make, request=request())
    clock.forward(timedelta(hours=23, minutes=59))
    again = await ask(database, clock, maker.make, request=request())
    assert first == again
    assert maker.made == 1


async def test_the_same_id_with_another_body_is_refused(database: Database) -> None:
    clock, maker = HandClock(), Maker()
    await ask(database, clock, maker.make, request=request())
    with pytest.raises(RequestIdReusedError) as failure:
        await ask(database, clock, maker.make, request=request(principal="grace"))
    assert (failure.value.code.name, failure.value.reason) == ("ABORTED", "REQUEST_ID_REUSED")


async def test_the_same_id_in_another_workspace_is_another_request(database: Database) -> None:
    clock, maker = HandClock(), Maker()
    for workspace in ("acme", "other"):
        await ask(database, clock, maker.make, request=request(), workspace=workspace)
    assert maker.made == 2


async def test_without_an_id_every_request_is_made(database: Database) -> None:
    clock, maker = HandClock(), Maker()
    for _ in range(2):
        await ask(database, clock, maker.make, request=request(request_id=""))
    assert maker.made == 2


async def test_after_a_day_the_id_is_free_again(database: Database) -> None:
    clock, maker = HandClock(), Maker()
    await ask(database, clock, maker.make, request=request())
    clock.forward(timedelta(hours=24, seconds=1))
    await ask(database, clock, maker.make, request=request(principal="grace"))
    assert maker.made == 2
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM idempotency"))).scalar_one() == 1


async def test_an_effect_that_failed_keeps_no_answer(database: Database) -> None:
    clock, maker = HandClock(), Maker()

    async def fails() -> CreateKeyResponse:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask(database, clock, fails, request=request())
    await ask(database, clock, maker.make, request=request())
    assert maker.made == 1


def bytes_beside(url: str) -> bytes:
    return b"".join(path.read_bytes() for path in Path(url.split("///")[1]).parent.iterdir())


@pytest.mark.sqlite
async def test_an_answer_is_sealed_where_it_lies(database: Database, url: str) -> None:
    await ask(database, HandClock(), Maker().make, request=request())
    await database.close()
    stored = bytes_beside(url)
    assert b"idempotency" in stored
    assert b"r1" in stored
    assert API_KEY.encode() not in stored
    assert b"ada" not in stored


async def test_a_sealed_answer_moved_to_another_workspace_does_not_open(database: Database) -> None:
    clock, maker = HandClock(), Maker()
    await ask(database, clock, maker.make, request=request())
    async with database.begin() as connection:
        await connection.execute(text("UPDATE idempotency SET workspace = 'other'"))
    with pytest.raises(InvalidTag):
        await ask(database, clock, maker.make, request=request(), workspace="other")
