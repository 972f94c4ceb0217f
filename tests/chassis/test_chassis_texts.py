"""Texts are found in JSON as whole words, in whatever field and however they are written."""

from __future__ import annotations

import orjson
import pytest
from counterfoil_chassis.texts import WholeTexts
from hypothesis import given
from hypothesis import strategies as st

ADA = WholeTexts([" Ada@Example.com "])


@pytest.mark.parametrize(
    "said",
    [
        "ada@example.com",
        "Mail to ADA@EXAMPLE.COM.",
        "https://shop.example/?mail=ada%40example.com&page=1",
        "<ada@example.com>",
        "first line\nada@example.com\tand more",
        "ada@example.com, bob@example.com",
        'her "ada@example.com"',
    ],
)
def test_a_text_is_found(said: str) -> None:
    assert ADA.within(orjson.dumps({"note": said}))
    assert ADA.within(orjson.dumps({"list": [{said: 1}]}))


@pytest.mark.parametrize(
    "said",
    [
        "xada@example.com",
        "an.ada@example.com",
        "ada@example.com.au",
        "ada@example.community",
        "ada@example",
        "+ada@example.com",
    ],
)
def test_another_text_is_not_taken_for_it(said: str) -> None:
    assert not ADA.within(orjson.dumps({"note": said}))


def test_nothing_is_found_of_nothing() -> None:
    assert not WholeTexts(["", "  "]).within(b'{"a":""}')


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12), max_size=5), st.data())
def test_every_place_holds_one_of_the_texts(said: list[str], data: st.DataObject) -> None:
    wanted = data.draw(
        st.lists(st.sampled_from(["ab", "b-c", "ä@ö", *(each for each in said if each.strip())]), max_size=3)
    )
    json = orjson.dumps(said).lower()
    written = [orjson.dumps(each.strip().lower())[1:-1] for each in wanted]
    for place in WholeTexts(wanted).places(json):
        assert any(json.startswith(each, place) or b"%40" in json for each in written)
