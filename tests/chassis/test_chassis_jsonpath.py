"""JSON paths: what is written is read as it was."""

from __future__ import annotations

import pytest
from counterfoil_chassis.jsonpath import json_path, steps_of
from hypothesis import example, given
from hypothesis import strategies as st

STEPS = st.lists(st.one_of(st.text(), st.integers(0, 999_999_999), st.none()))


@given(STEPS)
@example(["it's", "a\\b", "", "line\nbreak", "'] ", 0, None])
def test_the_steps_of_a_written_path_are_what_it_was_written_from(steps: list[str | int | None]) -> None:
    assert steps_of(json_path(steps)) == tuple(steps)


@pytest.mark.parametrize("text", ["", "a", "$.", "$..a", "$[", "$['a", "$.a[-1]", "$[*]x", "$.a b", '$["a"]'])
def test_says_where_a_text_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match=r"begins with|from character \d+"):
        steps_of(text)
