"""Other people's SDKs, unmodified, against the gateway, while the network fails them: stored equals sent, once each.

`make test` runs each once, with its answer lost (so it sends again what is there) and with an order that its contract
refuses in the midst; `make soak` runs each through every fault.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.console.browser import FLAGS, find
from tests.system.clients import senders
from tests.system.clients.faults import FAULTS, FaultyDoor, faulty_door
from tests.system.installation import Installation, until
from tests.system.tenant import Tenant, ok

CLIENT_FAULTS = FAULTS if os.environ.get("CLIENT_FAULTS") == "all" else ("lost",)
COUNT = 30
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "counterfoil-event-clients"
ORDERS = """
SELECT json_extract_string(properties, '$.order_id'), json_extract(properties, '$.total')::DOUBLE, user_id FROM events
WHERE lower(replace(event, ' ', '_')) = 'order_completed'
"""


@pytest.fixture(scope="session")
def packages() -> Path:
    """Where the SDKs for JavaScript are."""
    return senders.installed(CACHE)


@pytest.fixture(params=CLIENT_FAULTS)
def fault(request: pytest.FixtureRequest) -> str:
    """What happens to the first request."""
    return str(request.param)


@pytest.fixture
def shop(make_tenant: Callable[[str], Tenant]) -> Tenant:
    """A workspace in which nothing has arrived yet."""
    return make_tenant("shop")


@pytest.fixture
def door(installation: Installation, fault: str) -> Iterator[FaultyDoor]:
    """What stands before the gateway."""
    with faulty_door(installation.url, fault) as door:
        yield door


def expected() -> list[list[object]]:
    good = [(person, order) for person, order in senders.orders(COUNT) if "order_id" in order]
    return sorted([order["order_id"], order["total"], person] for person, order in good)


def assert_stored_once(shop: Tenant, door: FaultyDoor) -> None:
    """Wait for everything that was sent; then nothing of it may be there twice, and the refused order is kept."""

    def stored() -> list[list[object]]:
        return shop.sql(ORDERS)

    def refused() -> int:
        newest = ok(shop.http.get("/v1/quarantine", params={"reason": "TOO_DEEP", "page_size": 100}))
        return len(newest["quarantined_records"])

    until(lambda: True if len(stored()) >= COUNT else None, seconds=60, what="not everything arrives")
    until(lambda: True if refused() else None, seconds=60, what="the refused order is nowhere")
    assert sorted(stored()) == expected()
    assert refused() == 1
    reused = ok(shop.http.get("/v1/quarantine", params={"reason": "MESSAGE_ID_REUSED"}))
    assert not reused["quarantined_records"], "what is sent again is no other record"
    assert door.failed == (door.fault != "none")
    assert {each for each in door.answers if each} <= {200, int(door.fault) if door.fault.isdigit() else 200}


@pytest.mark.parametrize("client", senders.PYTHON)
def test_an_sdk_for_python_delivers_once_what_was_sent(shop: Tenant, door: FaultyDoor, client: str):
    _, write_key = shop.source(client)
    senders.PYTHON[client](door.url, write_key, COUNT)
    assert_stored_once(shop, door)


@pytest.mark.parametrize("client", senders.NODE)
def test_an_sdk_for_node_delivers_once_what_was_sent(shop: Tenant, door: FaultyDoor, client: str, packages: Path):
    _, write_key = shop.source(client)
    senders.node(senders.NODE[client], packages)(door.url, write_key, COUNT)
    assert_stored_once(shop, door)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    executable = find()
    shop_is_elsewhere = "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=[*FLAGS, shop_is_elsewhere])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("client", senders.BROWSER)
def test_an_sdk_for_browsers_delivers_once_what_was_sent(
    shop: Tenant, door: FaultyDoor, client: str, packages: Path, browser: Browser
):
    _, write_key = shop.source(client)
    script, begin = senders.BROWSER[client]
    context = browser.new_context()
    page = context.new_page()
    page.route(
        "http://shop.test/**",
        lambda route: route.fulfill(body="<!doctype html><title>Shop</title>", content_type="text/html"),
    )
    page.goto("http://shop.test/?utm_source=news&utm_campaign=may")
    page.add_script_tag(path=packages / "node_modules" / script)
    page.evaluate(begin, [door.url, write_key])
    send = "async orders => { for (const [person, order] of orders) await window.send(person, order); }"
    page.evaluate(send, senders.orders(COUNT))
    assert_stored_once(shop, door)
    context.close()
