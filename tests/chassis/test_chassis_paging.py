from __future__ import annotations

import base64

import pytest
from counterfoil.governance.v1.keys_pb2 import ListKeysRequest
from counterfoil_chassis.paging import Pager, PageTokenInvalidError
from hypothesis import given
from hypothesis import strategies as st

PAGER = Pager(b"s" * 32)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30)


@given(st.lists(texts, max_size=4), texts, texts, st.integers(0, 1000), st.integers(0, 1000))
def test_a_token_goes_on_after_the_item_it_was_made_for(
    after: list[str], principal: str, workspace: str, first: int, then: int
) -> None:
    question = ListKeysRequest(principal_id=principal, page_size=first)
    token = PAGER.token(question, method="ListKeys", workspace=workspace, after=after)
    again = ListKeysRequest(principal_id=principal, page_size=then, page_token=token)
    page = Pager(b"s" * 32).open(again, method="ListKeys", workspace=workspace)
    assert page.after == tuple(after)
    assert page.limit == (then or 50)


@given(texts, texts)
def test_a_token_serves_no_other_question(one: str, other: str) -> None:
    token = PAGER.token(ListKeysRequest(principal_id=one), method="ListKeys", workspace="acme", after=["k"])
    asked = ListKeysRequest(principal_id=one, page_token=token)
    assert PAGER.open(asked, method="ListKeys", workspace="acme").after == ("k",)
    wrong = [("ListKeys", "other", one), ("ListPrincipals", "acme", one)]
    wrong += [("ListKeys", "acme", other)] if one != other else []
    for method, workspace, principal in wrong:
        with pytest.raises(PageTokenInvalidError) as failure:
            PAGER.open(ListKeysRequest(principal_id=principal, page_token=token), method=method, workspace=workspace)
        assert failure.value.reason == "PAGE_TOKEN_INVALID"


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    token = PAGER.token(ListKeysRequest(), method="ListKeys", workspace="acme", after=["k"])
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    changed = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    with pytest.raises(PageTokenInvalidError):
        PAGER.open(ListKeysRequest(page_token=changed), method="ListKeys", workspace="acme")


@given(st.text(min_size=1))
def test_any_text_as_token_is_refused_without_a_crash(text: str) -> None:
    try:
        request = ListKeysRequest(page_token=text)
    except UnicodeEncodeError:
        return  # no message can hold it
    with pytest.raises(PageTokenInvalidError):
        PAGER.open(request, method="ListKeys", workspace="acme")


def test_another_services_token_is_refused() -> None:
    token = Pager(b"o" * 32).token(ListKeysRequest(), method="ListKeys", workspace="acme", after=["k"])
    with pytest.raises(PageTokenInvalidError):
        PAGER.open(ListKeysRequest(page_token=token), method="ListKeys", workspace="acme")


def test_the_first_page_begins_at_the_start_with_fifty_items() -> None:
    page = PAGER.open(ListKeysRequest(), method="ListKeys", workspace="acme")
    assert (page.limit, page.after) == (50, None)
    assert PAGER.open(ListKeysRequest(page_size=5000), method="ListKeys", workspace="acme").limit == 1000
