"""What the console's door is made of: files, links, sessions, the public address."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from counterfoil_gateway.addresses import PublicAddress
from counterfoil_gateway.console.files import Files
from counterfoil_gateway.console.links import MOST_OPEN, Links
from counterfoil_gateway.console.sessions import COOKIE, Sessions, set_cookie
from counterfoil_gateway.problems import Problem


def test_a_changed_file_is_read_again_and_a_page_names_plotly_by_version(tmp_path: Path):
    page = tmp_path / "index.html"
    page.write_text('<script src="/console/vendor/plotly.min.js"></script>')
    files = Files(tmp_path)
    found = files.find("")
    assert found is not None
    assert found.content == f'<script src="/console/vendor/plotly.min.js?v={files.plotly_version}"></script>'.encode()
    assert files.find("campaigns") == found
    page.write_text("another")
    changed = files.find("")
    assert changed is not None
    assert (changed.content, changed.version == found.version) == (b"another", False)
    (tmp_path / "secret.pem").write_text("x")
    assert files.find("secret.pem") is None
    assert Files(tmp_path / "nowhere").find("") is None


def test_an_address_of_a_release_is_fixed_until_any_file_changes(tmp_path: Path):
    (tmp_path / "js").mkdir()
    (tmp_path / "index.html").write_text('    <script type="module" src="/console/js/main.js"></script>')
    main, part = tmp_path / "js/main.js", tmp_path / "js/part.js"
    main.write_text('import "./part.js";')
    part.write_text("1")
    files = Files(tmp_path)

    def named() -> str:
        page = files.find("")
        assert page is not None
        preloaded, scripts = (
            re.findall(rf'{kind}="/console/(.+?)"', page.content.decode()) for kind in ("href", "src")
        )
        assert preloaded == [scripts[0], scripts[0].replace("main", "part")]
        assert not page.fixed
        return preloaded[1]

    first = named()
    assert named() == first
    assert files.find(first) == replace(files.find("js/part.js"), fixed=True)
    assert not files.find("js/part.js").fixed, "that address is every release's"
    part.write_text("22")
    assert files.find(first) == files.find("js/part.js"), "what an open page asks for, it gets; and nobody keeps it"
    second = named()
    assert second != first
    assert files.find(second) == replace(files.find("js/part.js"), fixed=True)
    main.write_text('import "./part.js"; ')
    assert (named() != second, files.find(second).fixed, files.find(first).fixed) == (True, False, False)
    assert Files(tmp_path).find(named()).fixed is False, "a process that has shown no page promises nothing"


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


class Bytes:
    """Counts up instead of being random."""

    def __init__(self) -> None:
        self.last = 0

    def __call__(self, size: int) -> bytes:
        self.last += 1
        return self.last.to_bytes(size, "big")


DIGEST = hashlib.sha256(b"key").digest()


def test_a_link_lasts_ten_minutes_and_only_so_many_are_kept():
    clock = Clock()
    links = Links(clock, Bytes())
    old, expires = links.make(DIGEST)
    assert expires == clock.now() + timedelta(minutes=10)
    code, _ = links.make(DIGEST)
    clock.time += timedelta(minutes=9, seconds=59)
    assert (links.use(code), links.use(code)) == (DIGEST, None)
    clock.time += timedelta(seconds=1)
    assert links.use(old) is None
    first, _ = links.make(DIGEST)
    last = [links.make(DIGEST)[0] for _ in range(MOST_OPEN)][-1]
    assert (links.use(first), links.use(last)) == (None, DIGEST)


def headers(value: str) -> dict[bytes, bytes]:
    return {b"cookie": f"other=1; {COOKIE}={value}".encode()}


def test_a_session_outlives_a_restart_and_ends_after_twelve_hours():
    clock = Clock()
    value = Sessions(b"s" * 32, clock, Bytes()).begin(DIGEST)
    restarted = Sessions(b"s" * 32, clock, Bytes())
    session = restarted.of(headers(value))
    assert session is not None
    assert session.digest == DIGEST
    assert restarted.of({b"cookie": b"other=1"}) is None
    clock.time += timedelta(hours=12)
    with pytest.raises(Problem) as problem:
        restarted.of(headers(value))
    assert problem.value.reason == "SESSION_EXPIRED"


def test_another_gateways_session_is_not_ours():
    clock = Clock()
    value = Sessions(b"s" * 32, clock, Bytes()).begin(DIGEST)
    with pytest.raises(Problem) as problem:
        Sessions(b"t" * 32, clock, Bytes()).of(headers(value))
    assert problem.value.reason == "SESSION_INVALID"
    assert DIGEST not in base64.urlsafe_b64decode(value)


def test_behind_tls_the_cookie_is_secure_and_the_public_address_counts():
    assert "Secure" in set_cookie("x", secure=True).split("; ")
    scope = {"scheme": "http", "method": "POST"}
    inside = {b"host": b"10.0.0.7:8080"}
    public = PublicAddress("https://counterfoil.example/")
    assert public.is_https(scope)
    assert public.of(scope, inside) == "https://counterfoil.example"
    public.require_same_origin(scope, inside | {b"origin": b"https://Counterfoil.example"})
    with pytest.raises(Problem):
        public.require_same_origin(scope, inside | {b"origin": b"http://10.0.0.7:8080"})
    assert not PublicAddress().is_https(scope)
    assert PublicAddress().is_https({"scheme": "https"})
