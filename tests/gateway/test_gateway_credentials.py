"""Which keys are accepted, and when: watched, looked up, expired, revoked."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil_chassis.call import budget, enter_deadline
from counterfoil_chassis.clock import to_timestamp
from counterfoil_chassis.identity import TokenSigner, TokenVerifier, load_private_key, load_trusted_keys
from counterfoil_gateway.credentials import Keyring
from counterfoil_gateway.limits import Limiter, Rate
from counterfoil_gateway.problems import Problem

from tests.gateway.conftest import REVOKED, SCOPES, Doors

KEY = "cfk_" + "k" * 43
UNLIMITED = Limiter("failed sign-ins", Rate(0, 1), time.monotonic)
DIGEST = hashlib.sha256(KEY.encode()).digest()


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def pass_(self, **by: float) -> None:
        self.time += timedelta(**by)


class Owner:
    """The service that owns the keys."""

    def __init__(self) -> None:
        self.known: dict[bytes, Credential] = {}
        self.asked = 0
        self.failing: grpc.StatusCode | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def look_up(self, digest: bytes) -> Credential:
        self.asked += 1
        await self.gate.wait()
        if self.failing or digest not in self.known:
            none = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(self.failing or grpc.StatusCode.NOT_FOUND, none, none)
        return self.known[digest]


def credential(**more: object) -> Credential:
    return Credential(secret_sha256=DIGEST, workspace="w", principal="ada", scopes=["a.read"], **more)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def owner() -> Owner:
    return Owner()


@pytest.fixture
def keyring(owner: Owner, clock: Clock, keys_dir: Path) -> Keyring:
    signer = TokenSigner("gateway", load_private_key(keys_dir / "keys" / "gateway.pem"), clock)
    return Keyring("cfk_", owner.look_up, signer=signer, clock=clock, attempts=UNLIMITED)


async def refused(keyring: Keyring, key: str = KEY) -> str:
    with pytest.raises(Problem) as problem:
        await keyring.sign_in(key, address="")
    return problem.value.reason


async def test_a_watched_key_signs_in_without_a_question(keyring: Keyring, owner: Owner, clock: Clock, keys_dir: Path):
    keyring.put(credential())
    signed_in = await keyring.sign_in(KEY, address="")
    assert (signed_in.workspace, signed_in.principal, signed_in.scopes) == ("w", "ada", {"a.read"})
    verifier = TokenVerifier(load_trusted_keys(keys_dir / "keys" / "trusted"), clock)
    assert verifier.verify(signed_in.token).scopes == {"a.read"}
    assert owner.asked == 0


async def test_a_token_is_kept_for_half_its_life(keyring: Keyring, clock: Clock):
    keyring.put(credential())
    first = await keyring.sign_in(KEY, address="")
    clock.pass_(seconds=149)
    assert await keyring.sign_in(KEY, address="") is first
    clock.pass_(seconds=2)
    assert (await keyring.sign_in(KEY, address="")).token != first.token


async def test_a_changed_key_gets_another_token(keyring: Keyring):
    keyring.put(credential())
    await keyring.sign_in(KEY, address="")
    changed = credential()
    changed.scopes.append("a.write")
    keyring.put(changed)
    assert (await keyring.sign_in(KEY, address="")).scopes == {"a.read", "a.write"}


async def test_a_deleted_key_is_refused_at_once(keyring: Keyring):
    keyring.put(credential())
    await keyring.sign_in(KEY, address="")
    keyring.delete(DIGEST)
    assert await refused(keyring) == "CREDENTIAL_INVALID"


async def test_a_key_expires_without_a_word_from_its_owner(
    keyring: Keyring, clock: Clock, owner: Owner, keys_dir: Path
):
    keyring.put(credential(expires_at=to_timestamp(clock.now() + timedelta(seconds=60))))
    signed_in = await keyring.sign_in(KEY, address="")
    clock.pass_(seconds=59)
    await keyring.sign_in(KEY, address="")
    clock.pass_(seconds=1)
    assert await refused(keyring) == "CREDENTIAL_EXPIRED"
    clock.pass_(seconds=10)
    with pytest.raises(Exception, match="expired"):
        TokenVerifier(load_trusted_keys(keys_dir / "keys" / "trusted"), clock).verify(signed_in.token)


async def test_an_unknown_key_costs_one_question_a_second(keyring: Keyring, owner: Owner, clock: Clock):
    for _ in range(5):
        assert await refused(keyring) == "CREDENTIAL_INVALID"
    assert owner.asked == 1
    clock.pass_(seconds=1.5)
    await refused(keyring)
    assert owner.asked == 2


async def test_a_key_that_was_refused_is_accepted_as_soon_as_the_watch_brings_it(keyring: Keyring):
    await refused(keyring)
    keyring.put(credential())
    await keyring.sign_in(KEY, address="")


async def test_many_who_present_one_new_key_share_one_question(keyring: Keyring, owner: Owner):
    owner.known[DIGEST] = credential()
    owner.gate.clear()
    asking = [asyncio.create_task(keyring.sign_in(KEY, address="")) for _ in range(20)]
    await asyncio.sleep(0)
    owner.gate.set()
    assert {s.principal for s in await asyncio.gather(*asking)} == {"ada"}
    assert owner.asked == 1


async def test_one_who_gives_up_leaves_the_question_to_the_others(keyring: Keyring, owner: Owner):
    owner.known[DIGEST] = credential()
    owner.gate.clear()
    first, second = (asyncio.create_task(keyring.sign_in(KEY, address="")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    owner.gate.set()
    assert (await second).principal == "ada"


async def test_a_key_known_by_lookup_only_is_asked_for_again(keyring: Keyring, owner: Owner, clock: Clock):
    owner.known[DIGEST] = credential()
    await keyring.sign_in(KEY, address="")
    clock.pass_(seconds=6)
    del owner.known[DIGEST]
    assert await refused(keyring) == "CREDENTIAL_INVALID"


async def test_a_key_revoked_while_it_is_looked_up_is_refused(keyring: Keyring, owner: Owner):
    owner.known[DIGEST] = credential()
    owner.gate.clear()
    asking = asyncio.create_task(keyring.sign_in(KEY, address=""))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert owner.asked == 1
    keyring.delete(DIGEST)
    owner.gate.set()
    with pytest.raises(Problem):
        await asking


async def test_an_owner_that_cannot_answer_is_not_a_refusal(keyring: Keyring, owner: Owner):
    owner.failing = grpc.StatusCode.UNAVAILABLE
    assert await refused(keyring) == "CREDENTIALS_UNAVAILABLE"
    owner.failing = None
    owner.known[DIGEST] = credential()
    await keyring.sign_in(KEY, address="")


async def test_a_lookup_has_the_time_of_nobody_who_waits_for_it(clock: Clock, keys_dir: Path, owner: Owner):
    owner.known[DIGEST] = credential()

    async def look_up(digest: bytes) -> Credential:
        assert budget(2.0) == 2.0
        return await owner.look_up(digest)

    signer = TokenSigner("gateway", load_private_key(keys_dir / "keys" / "gateway.pem"), clock)
    keyring = Keyring("cfk_", look_up, signer=signer, clock=clock, attempts=UNLIMITED)
    enter_deadline(0.01)
    assert (await keyring.sign_in(KEY, address="")).principal == "ada"


async def test_what_cannot_be_a_key_is_never_asked_for(keyring: Keyring, owner: Owner):
    for key in ("", "cfw_x", "let me in", "cfk_" + "x" * 500, "\udcff"):
        assert await refused(keyring, key) == "CREDENTIAL_INVALID"
    assert owner.asked == 0


async def test_refusals_do_not_fill_the_memory(keyring: Keyring):
    for n in range(10_050):
        await refused(keyring, f"cfk_{n}")
    assert len(keyring._refused) == 10_000


@pytest.mark.asyncio(loop_scope="session")
async def test_a_revoked_key_stops_working_through_the_whole_door(doors: Doors):
    headers = {"x-api-key": REVOKED}
    accepted = Credential(scopes=SCOPES, workspace="w", principal="ada")
    doors.backend.api_keys.put(REVOKED, accepted, watched=False)
    assert (await doors.http.get("/v1/workspaces/mine", headers=headers)).status_code == 200, "by lookup, at once"
    doors.backend.api_keys.put(REVOKED, accepted)
    doors.backend.api_keys.delete(REVOKED)

    async def until_refused() -> None:
        while (await doors.http.get("/v1/workspaces/mine", headers=headers)).status_code != 401:
            pass

    await asyncio.wait_for(until_refused(), 60)
