"""The SDKs people have, unmodified: each sends the same orders, and one that its contract refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from customerio.analytics.client import Client as CustomerIo
from rudderstack.analytics.client import Client as Rudder
from segment.analytics import Client as Segment
from snowplow_tracker import Emitter, SelfDescribing, SelfDescribingJson, Subject, Tracker

HERE = Path(__file__).parent
ORDERED = "iglu:com.shop/order_completed/jsonschema/1-0-0"
TOO_DEEP = 80
"""Levels; a record nests at most 64."""

Send = Callable[[str, str, int], None]
"""Sends so many orders, and one that is refused in their midst, to a door; returns when all is told."""


def poison() -> dict[str, Any]:
    """Return properties that nest too deep."""
    inner: dict[str, Any] = {"order_id": "poison"}
    for _ in range(TOO_DEEP):
        inner = {"deeper": inner}
    return inner


def orders(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Return who orders what; one order in the middle is refused."""
    made: list[tuple[str, dict[str, Any]]] = [
        (f"person-{number % 7}", {"order_id": f"o-{number}", "total": number / 4}) for number in range(count)
    ]
    made.insert(count // 2, ("person-0", poison()))
    return made


def _segment_family(client: Any) -> Callable[[int], None]:
    def send(count: int) -> None:
        for person, order in orders(count):
            client.track(user_id=person, event="Order Completed", properties=order)
        client.flush()
        client.shutdown()

    return send


def segment(url: str, write_key: str, count: int) -> None:
    """segment-analytics-python."""
    _segment_family(Segment(write_key, host=url, upload_size=10))(count)


def rudder(url: str, write_key: str, count: int) -> None:
    """rudder-sdk-python."""
    _segment_family(Rudder(write_key, host=url, upload_size=10))(count)


def customer_io(url: str, write_key: str, count: int) -> None:
    """customerio-cdp-analytics."""
    _segment_family(CustomerIo(write_key, host=url, upload_size=10))(count)


def _snowplow(url: str, write_key: str, count: int, **settings: Any) -> None:
    sent, told = orders(count), threading.Condition()
    taken = 0

    def succeeded(events: list[Any]) -> None:
        nonlocal taken
        with told:
            taken += len(events)
            told.notify_all()

    emitter = Emitter(url.removeprefix("http://"), protocol="http", on_success=succeeded, **settings)
    tracker = Tracker("shop", emitter, app_id=write_key)
    for person, order in sent:
        who = Subject().set_user_id(person)
        tracker.track(SelfDescribing(SelfDescribingJson(ORDERED, order), event_subject=who))
    for _ in range(300):
        emitter.flush()  # does nothing while it waits to try again
        with told:
            if told.wait_for(lambda: taken >= len(sent), timeout=0.2):
                return
    pytest.fail(f"the tracker has delivered {taken} of {len(sent)} events")


def snowplow(url: str, write_key: str, count: int) -> None:
    """snowplow-tracker by POST."""
    _snowplow(url, write_key, count, batch_size=10)


def snowplow_get(url: str, write_key: str, count: int) -> None:
    """snowplow-tracker by GET."""
    _snowplow(url, write_key, count, method="get")


PYTHON: dict[str, Send] = {
    "segment-analytics-python": segment,
    "rudder-sdk-python": rudder,
    "customerio-cdp-analytics": customer_io,
    "snowplow-tracker": snowplow,
    "snowplow-tracker by GET": snowplow_get,
}


def node(client: str, packages: Path) -> Send:
    """Return the sender of one of the SDKs for Node, from where they are installed."""

    def send(url: str, write_key: str, count: int) -> None:
        done = subprocess.run(
            ["node", HERE / "javascript" / "send.mjs", client, url, write_key],
            input=json.dumps(orders(count)),
            env={"PATH": os.environ["PATH"], "CLIENTS": str(packages)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return send


NODE = {
    "@segment/analytics-node": "segment",
    "@rudderstack/rudder-sdk-node": "rudder",
    "@snowplow/node-tracker": "snowplow",
}

BROWSER = {
    "@segment/analytics-next": (
        "@segment/analytics-next/dist/umd/index.js",
        """([door, key]) => {
            const settings = {writeKey: key, cdnURL: door};
            const analytics = window.AnalyticsNext.AnalyticsBrowser.load(settings);
            window.send = async (person, order) => {
                await analytics.identify(person);
                await analytics.track("Order Completed", order);
            };
        }""",
    ),
    "@rudderstack/analytics-js": (
        "@rudderstack/analytics-js/dist/npm/legacy/bundled/umd/index.js",
        """([door, key]) => {
            const analytics = new window.rudderanalytics.RudderAnalytics();
            analytics.load(key, door, {configUrl: door, logLevel: "DEBUG"});
            window.send = (person, order) => { analytics.identify(person); analytics.track("Order Completed", order); };
        }""",
    ),
    "@snowplow/browser-tracker": (
        "@snowplow/browser-tracker/dist/index.umd.min.js",
        """([door, key]) => {
            // It sends again what failed when the next event is tracked: so the orders go one after the other.
            const snowplow = window.snowplowBrowserTracking;
            let answered;
            const onRequestSuccess = () => answered(), onRequestFailure = () => answered();
            snowplow.newTracker("shop", door, {appId: key, encodeBase64: false, onRequestSuccess, onRequestFailure});
            const schema = "iglu:com.shop/order_completed/jsonschema/1-0-0";
            window.send = (person, data) => {
                const next = new Promise(resolve => { answered = resolve; });
                snowplow.setUserId(person);
                snowplow.trackSelfDescribingEvent({event: {schema, data}});
                return next;
            };
        }""",
    ),
}
"""What is loaded into a page, and how it is begun there: afterwards `window.send(person, order)` sends one order."""


def installed(cache: Path) -> Path:
    """Return where the SDKs for JavaScript are, put there by npm from the lock; skip where that cannot be."""
    if shutil.which("npm") is None:
        pytest.skip("no npm is installed (Debian: apt-get install npm): the SDKs for JavaScript are not run")
    lock = (HERE / "javascript" / "package-lock.json").read_bytes()
    folder = cache / hashlib.sha256(lock).hexdigest()[:16]
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / "javascript" / name, folder)
        done = subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode != 0:
            pytest.skip(f"npm cannot install the SDKs for JavaScript: {done.stderr.strip()[-300:]}")
        (folder / "complete").touch()
    return folder
