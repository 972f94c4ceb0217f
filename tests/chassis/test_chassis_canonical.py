"""Canonical JSON, rounding, hashes, and artifacts on disk."""

from __future__ import annotations

import hashlib
import math
import stat
from decimal import Context, Decimal

import pytest
from counterfoil_chassis.canonical import canonical_json, output_sha256, rounded
from counterfoil_models.errors import ArtifactCorruptError
from counterfoil_models.files.artifacts import FileArtifactStore
from hypothesis import given
from hypothesis import strategies as st

numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(numbers)
def test_rounding_keeps_nine_significant_digits_and_is_idempotent(number):
    once = rounded(number)
    if math.isfinite(once):
        assert rounded(once) == once
        assert Decimal(repr(once)) == Context(prec=9).create_decimal(repr(once))
        assert once == pytest.approx(number, rel=1e-8, abs=0)


@given(
    st.dictionaries(st.text(max_size=5), numbers.filter(lambda n: abs(n) < 1e300) | st.integers(1 - 2**53, 2**53 - 1))
)
def test_a_hash_does_not_depend_on_the_order_of_keys_nor_on_digits_beyond_the_ninth(document):
    backwards = dict(reversed(document.items()))
    assert output_sha256(document) == output_sha256(backwards) == output_sha256(rounded(document))


def test_minus_zero_is_zero_and_nan_is_refused():
    assert canonical_json(rounded([-0.0, 1e-9])) == b"[0,1e-9]"
    with pytest.raises(ValueError, match="NaN"):
        rounded({"a": [math.nan]})


def test_an_artifact_is_kept_under_its_hash_for_its_owner_only(tmp_path):
    store = FileArtifactStore(tmp_path / "artifacts")
    sha256 = store.put(b"{}")
    assert sha256 == hashlib.sha256(b"{}").hexdigest() == store.put(b"{}")
    assert store.get(sha256) == b"{}"
    (file,) = (tmp_path / "artifacts").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_artifact_that_was_changed_or_removed_is_never_returned(tmp_path):
    store = FileArtifactStore(tmp_path)
    sha256 = store.put(b"{}")
    (tmp_path / f"{sha256}.json").write_bytes(b"{ }")
    with pytest.raises(ArtifactCorruptError) as failure:
        store.get(sha256)
    assert failure.value.metadata["actual_sha256"] == hashlib.sha256(b"{ }").hexdigest()
    (tmp_path / f"{sha256}.json").unlink()
    with pytest.raises(ArtifactCorruptError, match="gone"):
        store.get(sha256)
