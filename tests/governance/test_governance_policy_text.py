"""Cutting bundles into policies: what is checked one by one is what every process reads as a whole."""

from __future__ import annotations

import cedarpy
import orjson
import pytest
from counterfoil_governance.errors import PoliciesInvalidError
from counterfoil_governance.policy_text import check_policies, read_policies, shipped_policies, shipped_schema
from hypothesis import example, given, settings
from hypothesis import strategies as st

NASTY = st.text(st.sampled_from(list(';"\\/{}()[]@\n*ax ')), max_size=12)
SPACES = st.sampled_from(["", " ", "\n", "\t\n "])


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


@st.composite
def bundles(draw: st.DrawFn) -> tuple[str, list[tuple[str, str, int]]]:
    """Return a text, and (id, description, line) of each of its policies."""
    text, expected = "", []
    for number in range(draw(st.integers(1, 5))):
        comment = draw(NASTY).replace("\n", " ")
        text += draw(SPACES) + f"// {comment}\n" + draw(SPACES)
        description, value = draw(NASTY), draw(NASTY)
        expected.append((f"p{number}", description, text.count("\n") + 1))
        text += (
            f'@id("p{number}")@owner("o") @description({quoted(description)}){draw(SPACES)}'
            f'forbid(principal,action == Counterfoil::Action::"export",{draw(SPACES)}resource) // ;{comment}\n'
            f"when {{ [{quoted(value)}, {quoted(comment)}].contains(context.purpose) }}{draw(SPACES)};"
        )
    return text + draw(SPACES), expected


@settings(max_examples=150, deadline=None)
@given(bundle=bundles())
def test_every_policy_is_found_whatever_stands_in_strings_and_comments(
    bundle: tuple[str, list[tuple[str, str, int]]],
) -> None:
    text, expected = bundle
    found = check_policies(text, schema=shipped_schema()).policies
    assert [(policy.policy_id, policy.description) for policy in found] == [each[:2] for each in expected]
    whole = orjson.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    pieces = [orjson.loads(cedarpy.policies_to_json_str(policy.text))["staticPolicies"] for policy in found]
    assert [each["policy0"] for each in pieces] == list(whole)


@settings(max_examples=60, deadline=None)
@given(bundle=bundles(), data=st.data())
def test_a_fault_is_told_with_the_line_of_its_policy(
    bundle: tuple[str, list[tuple[str, str, int]]], data: st.DataObject
) -> None:
    text, expected = bundle
    name, _, line = data.draw(st.sampled_from(expected))
    with pytest.raises(PoliciesInvalidError) as refusal:
        check_policies(text.replace(f'@id("{name}")', '@id("Bad Id")'), schema=shipped_schema())
    [violation] = refusal.value.violations
    assert violation.description.startswith(f"line {line}: ")


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from(list('permit(principal,action,resource);@id"a\\/\n{}[]')), max_size=80))
@example("}permit(principal,action,resource);")
@example("permit(principal,action,resource)")
@example('"')
@example("//")
def test_any_text_is_read_or_refused_and_never_half(text: str) -> None:
    try:
        found = check_policies(text, schema=shipped_schema()).policies
    except PoliciesInvalidError:
        return
    assert len(found) == len(cedarpy.PolicySet.from_str(text))


def test_the_shipped_policies_are_sound_and_stay_in_their_order() -> None:
    checked = check_policies(shipped_policies(), schema=shipped_schema()).policies
    assert list(read_policies(shipped_policies())) == list(checked)
    assert cedarpy.validate_policies(shipped_policies(), shipped_schema()).validation_passed
