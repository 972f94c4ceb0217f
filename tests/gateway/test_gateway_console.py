"""The console's door: its files, one-time links, and what a browser's session opens."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urljoin

import grpc
import httpx
import pytest
import pytest_asyncio
from counterfoil.common.v1.credentials_pb2 import Credential
from counterfoil_chassis.clock import to_timestamp
from counterfoil_gateway.console.sessions import COOKIE

from tests.gateway.conftest import ADMIN, READER, SCOPES, WRITE, Doors

pytestmark = pytest.mark.asyncio(loop_scope="session")
REVOKED_LATER = "cfk_" + "b" * 43
EXPIRES_SOON = "cfk_" + "s" * 43


@pytest_asyncio.fixture(loop_scope="session")
async def browser(doors: Doors) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who opened a link: no key, but what the gateway set."""
    async with httpx.AsyncClient(base_url=doors.url, timeout=60) as client:
        answer = await client.get(await link(doors, ADMIN))
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
        yield client


async def link(doors: Doors, key: str) -> str:
    made = await doors.http.post("/console/sign-in-links", headers={"x-api-key": key})
    assert made.status_code == 200, made.text
    assert made.headers["cache-control"] == "no-store"
    return made.json()["url"]


async def test_a_link_signs_in_its_first_opener_only(doors: Doors):
    url = await link(doors, ADMIN)
    assert url.startswith(f"{doors.url}/console/sign-in?code=")
    assert (await doors.http.head(url)).status_code == 200, "looking is not opening"
    first = await doors.http.get(url)
    cookie = first.headers["set-cookie"]
    doors.http.cookies.clear()
    for part in ("Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=43200"):
        assert part in cookie.split("; ")
    second = await doors.http.get(url)
    assert (second.status_code, "set-cookie" in second.headers) == (410, False)
    assert "counterfoil console" in second.text
    assert second.headers["content-type"].startswith("text/html")
    assert (await doors.http.get("/console/sign-in")).status_code == 410
    assert (await doors.http.get("/console/sign-in?code=%00")).status_code == 410


@pytest.mark.parametrize(("key", "reason"), [(None, "CREDENTIAL_MISSING"), (WRITE, "CREDENTIAL_WRONG_KIND")])
async def test_a_link_needs_an_api_key(doors: Doors, key: str | None, reason: str):
    answer = await doors.http.post("/console/sign-in-links", headers={"x-api-key": key} if key else {})
    assert (answer.status_code, answer.json()["reason"]) == (401, reason)


async def test_a_session_makes_no_further_sessions(doors: Doors, browser: httpx.AsyncClient):
    answer = await browser.post("/console/sign-in-links", headers={"origin": doors.url})
    assert (answer.status_code, answer.json()["reason"]) == (401, "CREDENTIAL_MISSING")


async def test_a_session_tells_who_is_signed_in(browser: httpx.AsyncClient):
    who = (await browser.get("/console/session")).json()
    assert (who["workspace"], who["principal"], who["scopes"]) == ("w", "ada", sorted(SCOPES))
    ends = datetime.fromisoformat(who["expires_at"])
    assert timedelta(hours=11, minutes=59) < ends - datetime.now(UTC) <= timedelta(hours=12)


async def test_nobody_is_signed_in_without_a_session(doors: Doors):
    answer = await doors.http.get("/console/session", headers={"x-api-key": ADMIN})
    assert (answer.status_code, answer.json()["reason"]) == (401, "SESSION_MISSING")


async def test_a_session_reads_like_the_key_and_changes_only_from_our_own_pages(doors: Doors, browser):
    assert (await browser.get("/v1/workspaces/mine")).json()["workspace_id"] == "w"
    assert (await browser.get("/v1/workspaces/mine", headers={"origin": "https://evil.example"})).status_code == 200
    change = {"json": {"display_name": "Store"}}
    foreign = [
        {},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": doors.url.replace("http", "https")},
    ]
    for headers in foreign:
        answer = await browser.patch("/v1/workspaces/shop", headers=headers, **change)
        assert (answer.status_code, answer.json()["reason"]) == (403, "ORIGIN_REFUSED"), headers
    requests = len(doors.backend.requests)
    assert (await browser.patch("/v1/workspaces/shop", headers={"origin": doors.url}, **change)).status_code == 200
    assert len(doors.backend.requests) == requests + 1


async def test_a_key_goes_before_a_session(browser: httpx.AsyncClient):
    answer = await browser.get("/v1/workspaces/mine", headers={"x-api-key": READER})
    assert (answer.status_code, answer.json()["reason"]) == (403, "SCOPE_MISSING")


async def test_a_session_opens_neither_event_routes_nor_grpc(doors: Doors, browser: httpx.AsyncClient):
    answer = await browser.post("/v1/track", json={"event": "E"}, headers={"origin": doors.url})
    assert (answer.status_code, answer.json()["reason"]) == (401, "CREDENTIAL_MISSING")
    cookie = f"{COOKIE}={browser.cookies[COOKIE]}"
    call = doors.rpc.unary_unary("/counterfoil.governance.v1.WorkspaceService/ListWorkspaces")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call(b"", metadata=(("cookie", cookie),))
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await call(b"", metadata=(("cookie", cookie), ("x-api-key", ADMIN)))
    assert "cookie" not in doors.backend.metadata[-1], "a session is not passed on"


async def test_a_tampered_cookie_opens_nothing(doors: Doors, browser: httpx.AsyncClient):
    value = browser.cookies[COOKIE]
    raw = bytearray(base64.urlsafe_b64decode(value))
    broken = ["", "x", "ü", value[:-4], value + "AAAA", "A" * 5000]
    for at in range(0, len(raw), 7):
        changed = raw.copy()
        changed[at] ^= 1
        broken.append(base64.urlsafe_b64encode(changed).decode())
    for each in broken:
        answer = await doors.http.get("/v1/workspaces/mine", headers={"cookie": f"{COOKIE}={each}".encode()})
        assert (answer.status_code, answer.json()["reason"]) == (401, "SESSION_INVALID"), each


async def test_signing_out_ends_the_session_and_not_only_its_cookie(doors: Doors, browser: httpx.AsyncClient):
    kept = {"cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    refused = await browser.post("/console/sign-out", headers={"origin": "https://evil.example"})
    assert (refused.status_code, refused.json()["reason"]) == (403, "ORIGIN_REFUSED")
    answer = await browser.post("/console/sign-out", headers={"origin": doors.url})
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]
    answer = await doors.http.get("/v1/workspaces/mine", headers=kept)
    assert (answer.status_code, answer.json()["reason"]) == (401, "SESSION_EXPIRED")
    assert (await browser.post("/console/sign-out", headers={"origin": doors.url})).status_code == 204


async def test_a_revoked_key_ends_its_sessions_at_once(doors: Doors):
    doors.backend.api_keys.put(REVOKED_LATER, Credential(scopes=SCOPES, workspace="w", principal="ada"))
    async with httpx.AsyncClient(base_url=doors.url, timeout=60) as client:
        await client.get(await link(doors, REVOKED_LATER))
        assert (await client.get("/v1/workspaces/mine")).status_code == 200
        doors.backend.api_keys.delete(REVOKED_LATER)
        while (answer := await client.get("/v1/workspaces/mine")).status_code == 200:
            pass  # until the watch has brought it
        assert (answer.status_code, answer.json()["reason"]) == (401, "CREDENTIAL_INVALID")


async def test_an_expired_key_ends_its_sessions(doors: Doors):
    soon = to_timestamp(datetime.now(UTC) + timedelta(seconds=3))  # before that the link is opened
    short = Credential(scopes=SCOPES, workspace="w", principal="ada", expires_at=soon)
    doors.backend.api_keys.put(EXPIRES_SOON, short)
    async with httpx.AsyncClient(base_url=doors.url, timeout=60) as client:
        await client.get(await link(doors, EXPIRES_SOON))
        while (answer := await client.get("/v1/workspaces/mine")).status_code == 200:
            pass  # until its seconds are over
        assert (answer.status_code, answer.json()["reason"]) == (401, "CREDENTIAL_EXPIRED")
    doors.backend.api_keys.delete(EXPIRES_SOON)


async def test_the_console_is_locked_against_other_pages_and_scripts(doors: Doors):
    for path in ("/console/", "/console/campaigns", "/console/sign-in?code=none"):
        answer = await doors.http.get(path)
        policy = dict(p.strip().split(" ", 1) for p in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["script-src"] == "'self'", path
        assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-type"].startswith("text/html")


async def test_plotly_is_served_from_its_own_package_and_kept_by_version(doors: Doors):
    assert "plotly" not in sys.modules, "importing it takes a second"
    path = "/console/vendor/plotly.min.js"
    answer = await doors.http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert (answer.headers["cache-control"], len(answer.content) > 1_000_000) == ("no-cache", True)
    tag = answer.headers["etag"]
    again = await doors.http.get(path, headers={"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    version = tag.strip('"')
    assert "immutable" in (await doors.http.get(f"{path}?v={version}")).headers["cache-control"]
    assert (await doors.http.get(f"{path}?v=0")).headers["cache-control"] == "no-cache"


async def test_a_page_names_all_its_scripts_by_release_and_a_browser_keeps_them_for_good(doors: Doors):
    home = (await doors.http.get("/console/")).text
    [main] = re.findall(r'<script type="module" src="(.+?)"', home)
    preloaded = re.findall(r'<link rel="modulepreload" href="(.+?)"', home)
    reached, todo = set(), [main]
    while todo:
        script = todo.pop()
        if script in reached:
            continue
        reached.add(script)
        answer = await doors.http.get(script)
        assert answer.headers.get("cache-control") == "public, max-age=31536000, immutable", script
        imports = re.findall(r'^(?:import|export) (?:[^;"]+ from )?"(\.+/.+?)";', answer.text, re.MULTILINE)
        todo += [urljoin(script, imported) for imported in imports]
    assert len(reached) > 50
    assert sorted(reached) == preloaded, "one that no page needs, or one that a page waits for"
    for style in re.findall(r'<link rel="(?:stylesheet|icon)".*? href="(.+?)"', home):
        assert "immutable" in (await doors.http.get(style)).headers["cache-control"], style
    other = f"/console/v-{'0' * 32}/js/main.js"
    answer = await doors.http.get(other)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache"), "of a release that is gone"


async def test_paths_that_are_no_files_are_pages_and_files_that_are_not_there_are_missing(doors: Doors):
    home = await doors.http.get("/console/")
    assert (await doors.http.get("/console/persons/per_1")).content == home.content
    for page in ("trust/receipts/models.0198-1", "sources/contracts/shop.orders", "sources/contracts/shop.js/compare"):
        assert (await doors.http.get(f"/console/{page}")).content == home.content, page
    assert (await doors.http.head("/console/persons/per_1")).headers["etag"] == home.headers["etag"]
    moved = await doors.http.get("/console")
    assert (moved.status_code, moved.headers["location"]) == (303, "/console/")
    for path in ("app.missing.js", "..%2f__init__.py", "..%2froutes.py", "%2fetc%2fpasswd.txt", ".env.txt", "a%00.js"):
        answer = await doors.http.get(f"/console/{path}")
        assert (answer.status_code, answer.json()["reason"]) == (404, "PATH_NOT_FOUND"), path
    assert (await doors.http.post("/console/campaigns")).status_code == 405
