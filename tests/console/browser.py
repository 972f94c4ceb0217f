"""Chromium as somebody uses the console, complaining about everything a browser complains about."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

from tests.system.installation import Installation
from tests.system.tenant import ok

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SETTLED = """() => document.querySelector('h1') && !document.querySelector('[aria-busy]')
    && [...document.querySelectorAll('.chart')].every(chart => 'drawn' in chart.dataset)"""
INSIDE = "() => location.pathname.startsWith('/console/') && document.querySelector('#page h1') !== null"
GO = "address => { history.pushState(null, '', address); dispatchEvent(new PopStateEvent('popstate')); }"
SIZE = {"width": 1280, "height": 900}
PATIENCE_MS = 60_000
"""How long what somebody sees may take on a busy machine; by default it is 5 s for what is expected."""

expect.set_options(timeout=PATIENCE_MS)


def find() -> str:
    """Return Debian's Chromium; skip when there is none, since no other browser may be downloaded."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium is installed (Debian: apt-get install chromium): nobody looks at the console")
    return found


def launch(playwright: Playwright, executable: str) -> Browser:
    """Start a browser that calls nobody by itself."""
    return playwright.chromium.launch(executable_path=executable, args=FLAGS)


class Console:
    """The console in one browser context; every complaint of the browser fails the test that looks."""

    def __init__(self, context: BrowserContext, installation: Installation, key: str) -> None:
        self.url = installation.url
        self._installation = installation
        self._key = key
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        context.set_default_timeout(PATIENCE_MS)
        self.page = context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
        )

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _note(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.url).netloc and not url.startswith(("data:", "blob:")):
            self.foreign.append(url)

    def link(self) -> str:
        """Return a new sign-in link."""
        with self._installation.http(self._key) as client:
            return ok(client.post("/console/sign-in-links"))["url"]

    def sign_in(self) -> "Console":
        """Open a link."""
        self.page.goto(self.link())
        return self

    def load(self, path: str) -> Page:
        """Load an address and wait until everything on it is there; the browser must not have complained."""
        self.page.goto(f"{self.url}{path}")
        return self.settle()

    def open(self, path: str) -> Page:
        """Go to an address as links do, which load nothing anew; from anywhere else, load it."""
        if not self.page.evaluate(INSIDE):
            return self.load(path)
        self.page.evaluate(GO, path)
        return self.settle()

    def settle(self) -> Page:
        """Wait until the page is there."""
        self.page.wait_for_function(SETTLED)
        self.check()
        return self.page

    def check(self) -> None:
        """Fail on an error of a script, a violation of the policy, a request to elsewhere since the last look."""
        heard, asked = self.complaints[:], self.foreign[:]
        self.complaints.clear()
        self.foreign.clear()
        assert not heard, heard
        assert not asked, asked


def signing_in(browser: Browser, installation: Installation) -> Callable[..., Console]:
    """Return a function that opens the console for a key, in a browser context of its own."""

    def open_console(key: str, **options: Any) -> Console:
        return Console(browser.new_context(viewport=SIZE, **options), installation, key)

    return open_console


def unchanged(ask: Callable[[], Any], show: Callable[[], Page]) -> tuple[Page, Any]:
    """Show a page, and return it with the answer that it is held against: one that was the same before and after.

    What services tell each other goes on, so that an answer may be newer than the page.
    """
    for _ in range(20):
        before, page = ask(), show()
        if (after := ask()) == before:
            return page, after
    raise AssertionError(f"it changes all the time, to {after}")


def shoot(page: Page, path: Path, *, full_page: bool = False) -> None:
    """Keep what the page looks like."""
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement?.blur()")
    page.screenshot(path=path, full_page=full_page)
