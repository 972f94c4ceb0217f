"""Canonical JSON, rounding, hashes."""

from __future__ import annotations

import math
from decimal import Context, Decimal

import pytest
from counterfoil_chassis.canonical import canonical_json, output_sha256, rounded
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
