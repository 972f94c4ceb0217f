"""The verifier's own parts: Ed25519 by RFC 8032, signed notes by C2SP, and the Pythons it has to run on."""

from __future__ import annotations

import ast
import base64
import inspect
import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from counterfoil_chassis import audit_verify
from counterfoil_chassis.audit_verify import (
    NotACheckpointError,
    SignedCheckpoint,
    VerifierKey,
    checkpoint_body,
    signed_note,
    verifies,
)
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe246"
            "55141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
            "b00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc"
            "027beceea1ec40a"
        ),
    ),
]
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
VERIFIER = VerifierKey.of("counterfoil/acme", PUBLIC)
BODY = checkpoint_body("counterfoil/acme", size=3, root=b"r" * 32, signed_at="2026-11-23T12:00:00.000000Z")
NOTE = signed_note(BODY, VERIFIER, KEY.sign(BODY.encode()))
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_the_published_signatures_are_good(secret: str, public: str, message: str, signature: str) -> None:
    key, said, signed = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)
    assert Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)).sign(said) == signed
    assert verifies(key, said, signed)
    assert not verifies(key, said + b"x", signed)


def known_good(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@settings(max_examples=80, deadline=None)
@given(
    seed=st.binary(min_size=32, max_size=32),
    message=st.binary(max_size=200),
    spoilt=st.sampled_from(["nothing", "key", "message", "signature"]),
    at=st.integers(0, 63),
    flip=st.integers(1, 255),
)
def test_it_says_what_an_audited_library_says(seed: bytes, message: bytes, spoilt: str, at: int, flip: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    parts = {"key": key.public_key().public_bytes_raw(), "message": message, "signature": key.sign(message)}
    if spoilt != "nothing":
        data = bytearray(parts[spoilt] or b"\0")
        data[at % len(data)] ^= flip
        parts[spoilt] = bytes(data)
    said = verifies(parts["key"], parts["message"], parts["signature"])
    assert said == (spoilt == "nothing")
    assert said == known_good(parts["key"], parts["message"], parts["signature"])


def test_a_signature_has_one_form_only() -> None:
    signature = KEY.sign(b"x")
    scalar = int.from_bytes(signature[32:], "little")
    assert verifies(PUBLIC, b"x", signature)
    assert not verifies(PUBLIC, b"x", signature[:32] + (scalar + ORDER).to_bytes(32, "little"))
    assert not verifies(PUBLIC, b"x", signature + b"\0")
    assert not verifies(PUBLIC[:31], b"x", signature)
    assert not verifies(b"\xff" * 32, b"x", signature)  # y >= p
    assert not verifies((2).to_bytes(32, "little"), b"x", signature)  # no point has this y
    assert not verifies((1 | 1 << 255).to_bytes(32, "little"), b"x", signature)  # x = 0 has no sign


def test_a_note_is_read_as_it_was_signed() -> None:
    signed = SignedCheckpoint.parse(NOTE)
    assert (signed.origin, signed.size, signed.root) == ("counterfoil/acme", 3, b"r" * 32)
    assert (signed.signed_at, signed.body) == ("2026-11-23T12:00:00.000000Z", BODY)
    assert signed.signed_by(VERIFIER)
    assert not signed.signed_by(VerifierKey.of("counterfoil/zenith", PUBLIC))
    assert NOTE.splitlines()[:3] == ["counterfoil/acme", "3", base64.b64encode(b"r" * 32).decode()]
    assert NOTE.splitlines()[5].startswith("— counterfoil/acme ")


def test_signatures_of_others_do_not_disturb() -> None:
    witness = VerifierKey.of(
        "witness.example", Ed25519PrivateKey.from_private_bytes(b"w" * 32).public_key().public_bytes_raw()
    )
    line = signed_note("", witness, b"s" * 64).strip()
    assert SignedCheckpoint.parse(f"{NOTE}{line}\n").signed_by(VERIFIER)
    assert SignedCheckpoint.parse(NOTE.replace("\n\n", f"\n\n{line}\n")).signed_by(VERIFIER)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, len(NOTE.encode()) - 1), flip=st.integers(1, 255))
def test_a_note_with_one_byte_changed_is_not_signed(at: int, flip: int) -> None:
    data = bytearray(NOTE.encode())
    data[at] ^= flip
    with suppress(NotACheckpointError):
        assert not SignedCheckpoint.parse(data.decode("utf-8", "backslashreplace")).signed_by(VERIFIER)


@pytest.mark.parametrize("note", ["", "\n\n", "a\n1\n\n", NOTE.rstrip("\n"), NOTE.replace("\n3\n", "\n03\n"), BODY])
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(NotACheckpointError):
        SignedCheckpoint.parse(note)


def test_a_verifier_key_is_read_back_and_its_id_is_checked() -> None:
    assert VerifierKey.parse(f" {VERIFIER.text}\n") == VERIFIER
    name, key_id, material = VERIFIER.text.split("+", 2)
    other = f"{int(key_id, 16) ^ 1:08x}"
    for text in ("", name, f"{name}+{other}+{material}", f"{name}+{key_id}+{material[:-4]}", f"x+{key_id}+{material}"):
        with pytest.raises(NotACheckpointError):
            VerifierKey.parse(text)


def test_it_needs_nothing_but_python_and_an_old_one_will_do() -> None:
    tree = ast.parse(inspect.getsource(audit_verify), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_every_finding_is_explained_in_the_reference() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "reference", "audit.md").read_text()
    kinds = "ENTRY|LEAF|COLUMN|NODE|HEAD|CHECKPOINT|KEY|WITNESS|EXPORT"
    found = set(re.findall(rf'"((?:{kinds})_[A-Z]+)"', inspect.getsource(audit_verify)))
    assert found == set(re.findall(rf"`((?:{kinds})_[A-Z]+)`", page))
