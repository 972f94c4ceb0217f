from __future__ import annotations

import base64
import json
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.identity import (
    Caller,
    ExpiredTokenError,
    InvalidTokenError,
    ScopeMissingError,
    TokenSigner,
    TokenVerifier,
    load_private_key,
    load_trusted_keys,
    require_scope,
    write_key_pair,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.chassis.probe import HandClock, signer

KEY = Ed25519PrivateKey.generate()
MODELS_KEY = Ed25519PrivateKey.generate()
TRUSTED = {"gateway": KEY.public_key(), "models": MODELS_KEY.public_key()}


def verifier(clock: HandClock) -> TokenVerifier:
    return TokenVerifier(TRUSTED, clock)


def forged(clock: HandClock, key: Any = KEY, algorithm: str = "EdDSA", **changes: Any) -> str:
    now = int(clock.now().timestamp())
    claims = {
        "iss": "gateway",
        "aud": "counterfoil",
        "sub": "ada",
        "workspace": "acme",
        "scope": "ingest.read",
        "iat": now,
        "exp": now + 300,
    } | changes
    payload = json.dumps({name: value for name, value in claims.items() if value is not None}).encode()
    return jwt.PyJWS().encode(payload, key, algorithm=algorithm)  # signs any payload, also what PyJWT would refuse


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=40)


@given(names, names, st.sets(st.from_regex(r"[a-z]+\.[a-z]+", fullmatch=True), max_size=5), st.sets(names, max_size=5))
def test_a_principals_token_returns_exactly_what_was_signed(
    workspace: str, principal: str, scopes: set[str], roles: set[str]
) -> None:
    clock = HandClock()
    signed = TokenSigner("gateway", KEY, clock)
    token = signed.mint(workspace=workspace, principal=principal, scopes=scopes, roles=roles)
    assert verifier(clock).verify(token) == Caller(workspace, principal, frozenset(scopes), "", frozenset(roles))


def test_a_token_without_roles_is_what_it_was_before_there_were_roles() -> None:
    token = TokenSigner("gateway", KEY, HandClock()).mint(workspace="acme", principal="ada", scopes=["ingest.read"])
    assert "roles" not in jwt.decode(token, options={"verify_signature": False})


def test_a_service_token_speaks_for_the_service_in_no_workspace() -> None:
    clock = HandClock()
    for name, key in (("models", MODELS_KEY), ("gateway", KEY)):
        caller = verifier(clock).verify(TokenSigner(name, key, clock).mint_service())
        assert caller == Caller("", f"service:{name}", frozenset(), name)


def test_a_service_token_is_kept_until_a_minute_before_its_end() -> None:
    clock = HandClock()
    models = TokenSigner("models", MODELS_KEY, clock)
    first = models.mint_service()
    clock.forward(timedelta(minutes=3, seconds=59))
    assert models.mint_service() == first
    clock.forward(timedelta(seconds=1))
    assert models.mint_service() != first


def test_a_token_is_refused_after_its_end_also_when_it_was_accepted_before() -> None:
    clock = HandClock()
    tokens = verifier(clock)
    token = forged(clock)
    clock.forward(timedelta(seconds=304))
    assert tokens.verify(token).principal == "ada"
    clock.forward(timedelta(seconds=1))
    for check in (tokens, verifier(clock)):
        with pytest.raises(ExpiredTokenError) as failure:
            check.verify(token)
        assert failure.value.reason == "TOKEN_EXPIRED"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "somebody-else"},
        {"aud": None},
        {"iss": "stranger"},
        {"iss": None},
        {"iss": ["gateway"]},
        {"sub": None},
        {"sub": ""},
        {"exp": None},
        {"iat": None},
        {"exp": 4102444800},
        {"exp": "soon"},
        {"iat": 4102444800, "exp": 4102444900},
        {"workspace": ""},
        {"workspace": None},
        {"workspace": 7},
        {"scope": None},
        {"scope": ["ingest.read"]},
        {"iss": "models"},
        {"roles": "viewer"},
        {"roles": []},
        {"roles": ["viewer", ""]},
        {"roles": ["viewer", 7]},
        {"roles": {"viewer": True}},
    ],
    ids=str,
)
def test_a_token_with_wrong_claims_is_refused(changes: dict[str, Any]) -> None:
    clock = HandClock()
    with pytest.raises(InvalidTokenError) as failure:
        verifier(clock).verify(forged(clock, **changes))
    assert failure.value.reason == "TOKEN_INVALID"


def test_a_service_may_not_claim_a_workspace() -> None:
    clock = HandClock()
    none = {"sub": "models", "scope": None, "workspace": None}
    for changes in (
        {},
        {"sub": "models"},
        none | {"workspace": "w"},
        none | {"scope": ""},
        none | {"roles": ["admin"]},
    ):
        with pytest.raises(InvalidTokenError, match="gateway"):
            verifier(clock).verify(forged(clock, MODELS_KEY, iss="models", **changes))


def test_a_token_signed_by_another_services_key_is_refused() -> None:
    clock = HandClock()
    with pytest.raises(InvalidTokenError):
        verifier(clock).verify(forged(clock, MODELS_KEY))


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_token_of_another_algorithm_is_refused(algorithm: str) -> None:
    clock = HandClock()
    key = None if algorithm == "none" else "a shared secret of thirty-two bytes!"
    with pytest.raises(InvalidTokenError):
        verifier(clock).verify(forged(clock, key, algorithm))


@given(st.data())
def test_a_token_with_one_character_changed_is_refused(data: st.DataObject) -> None:
    clock = HandClock()
    token = forged(clock)
    # The last character of the signature carries two unused bits, so it is left alone.
    place = data.draw(st.integers(0, len(token) - 2))
    letter = data.draw(st.sampled_from("ABCDEFXYZabcxyz0189-_.=\x00é").filter(lambda each: each != token[place]))
    with pytest.raises(InvalidTokenError):
        verifier(clock).verify(token[:place] + letter + token[place + 1 :])


@given(st.text(max_size=200))
def test_any_text_is_refused_without_a_crash(text: str) -> None:
    with pytest.raises(InvalidTokenError):
        verifier(HandClock()).verify(text)


def test_a_token_with_other_claims_and_the_old_signature_is_refused() -> None:
    clock = HandClock()
    head, body, signature = forged(clock).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["workspace"] = "somebody-else"
    other = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with pytest.raises(InvalidTokenError):
        verifier(clock).verify(f"{head}.{other}.{signature}")


def test_a_missing_scope_names_the_policy() -> None:
    caller = Caller("acme", "ada", frozenset({"ingest.read"}), "")
    require_scope(caller, "ingest.read")
    with pytest.raises(ScopeMissingError) as failure:
        require_scope(caller, "ingest.write")
    assert failure.value.metadata == {"policy_id": "scope:ingest.write"}


def test_a_key_pair_is_private_and_kept(tmp_path: Path) -> None:
    private, trusted = tmp_path / "keys" / "models.pem", tmp_path / "keys" / "trusted"
    write_key_pair(private, trusted, "models")
    before = private.read_bytes()
    write_key_pair(private, trusted, "models")
    assert private.read_bytes() == before
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PRIVATE" not in (trusted / "models.pem").read_bytes()
    clock = HandClock()
    caller = TokenVerifier(load_trusted_keys(trusted), clock).verify(signer(tmp_path, "models", clock).mint_service())
    assert caller.service == "models"


def test_unreadable_keys_say_what_to_do(tmp_path: Path) -> None:
    broken = tmp_path / "trusted"
    broken.mkdir()
    (broken / "models.pem").write_text("no key")
    with pytest.raises(StartError, match="does not exist"):
        load_private_key(tmp_path / "none.pem")
    with pytest.raises(StartError, match="cannot be read"):
        load_private_key(broken / "models.pem")
    with pytest.raises(StartError, match="cannot be read"):
        load_trusted_keys(broken)
    with pytest.raises(StartError, match="does not exist"):
        load_trusted_keys(tmp_path / "none")
