"""One installation with a small store in it, and a browser per file."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.console.browser import Console, find, launch, signing_in
from tests.console.shop import Shop, open_shop
from tests.console.store import Store, open_store
from tests.system.installation import Installation


@pytest.fixture(scope="package")
def chromium() -> str:
    """Debian's Chromium."""
    return find()


@pytest.fixture(scope="package")
def console_installation(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Everything, started by `counterfoil up`."""
    with Installation.running(tmp_path_factory.mktemp("console") / "data") as started:
        yield started


@pytest.fixture(scope="package")
def store(console_installation: Installation) -> Iterator[Store]:
    """The store, with one output of each kind."""
    with (
        console_installation.http(console_installation.admin_key) as admin,
        open_store(console_installation, admin) as opened,
    ):
        yield opened


@pytest.fixture(scope="package")
def shop(console_installation: Installation) -> Iterator[Shop]:
    """The shop with its contracts."""
    with (
        console_installation.http(console_installation.admin_key) as admin,
        open_shop(console_installation, admin) as opened,
    ):
        yield opened


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Chromium; ends with its file, because its event loop would stand in the way of asynchronous tests elsewhere."""
    with sync_playwright() as playwright:
        started = launch(playwright, chromium)
        yield started
        started.close()


@pytest.fixture(scope="module")
def sign_in(browser: Browser, console_installation: Installation) -> Callable[..., Console]:
    """Open the console for a key, in a browser context of its own."""
    return signing_in(browser, console_installation)


@pytest.fixture(scope="module")
def console(sign_in: Callable[..., Console], store: Store) -> Iterator[Console]:
    """The console of the store's first principal, signed in."""
    opened = sign_in(store.tenant.key).sign_in()
    yield opened
    opened.page.context.close()


@pytest.fixture
def second(sign_in: Callable[..., Console], store: Store) -> Iterator[Console]:
    """The console of the second person, signed in."""
    opened = sign_in(store.second_key).sign_in()
    yield opened
    opened.page.context.close()


@pytest.fixture(scope="module")
def shop_console(sign_in: Callable[..., Console], shop: Shop) -> Iterator[Console]:
    """The console of the shop's first principal, signed in."""
    opened = sign_in(shop.tenant.key).sign_in()
    yield opened
    opened.page.context.close()
