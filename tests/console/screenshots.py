"""Take the screenshots of docs/images from a running installation, e.g. one that `counterfoil demo` left.

python -m tests.console.screenshots URL API_KEY [FOLDER]
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.console.browser import SETTLED, SIZE, find, launch, shoot

FOLDER = Path(__file__).parents[2] / "docs" / "images"
MOST_BYTES = 300_000


@dataclass(frozen=True)
class Shot:
    """One picture: where, what is done there first, and of which element (none = the window)."""

    name: str
    path: str
    prepare: Callable[[Page], object] = lambda page: None
    of: str = ""
    dark: bool = False


def main(url: str, key: str, folder: Path) -> None:
    """Take every picture that the data allow."""
    folder.mkdir(parents=True, exist_ok=True)
    with httpx.Client(base_url=url, headers={"X-Api-Key": key}, trust_env=False, timeout=60) as api:
        shots = list(_shots(api))
        with sync_playwright() as playwright:
            browser = launch(playwright, find())
            for dark in (False, True):
                _take(browser, api, [shot for shot in shots if shot.dark == dark], folder=folder, dark=dark)
            browser.close()


def _get(api: httpx.Client, path: str, **query: Any) -> dict[str, Any]:
    return dict(api.get(path, params=query).raise_for_status().json())


def _shots(api: httpx.Client) -> list[Shot]:
    shots = [Shot("overview", "/console/"), Shot("overview-dark", "/console/", dark=True)]
    lifts = _get(api, "/v1/lift")["lifts"]
    made_up = [lift for lift in lifts if "synthetic" in lift["spec"]["name"]]
    real = [lift for lift in lifts if lift not in made_up]
    attributions = _get(api, "/v1/attribution")["attributions"]
    by_campaign = [one["attribution_id"] for one in attributions if one["spec"]["subject"] == "CAMPAIGN"]
    campaigns = f"/console/campaigns?attribution={by_campaign[0]}" if by_campaign else "/console/campaigns"
    if attributions and real:
        receipt = f"/console/trust/receipts/{real[0]['receipt_id']}"
        shots += [
            Shot("campaigns", campaigns),
            Shot("campaigns-dark", campaigns, dark=True),
            Shot("lift", campaigns, of=f"#lift-{real[0]['lift_id']}"),
            Shot("receipt", receipt, _replay),
            Shot("receipt-dark", receipt, _replay, dark=True),
        ]
    if made_up:
        shots.append(Shot("lift-synthetic", campaigns, of=f"#lift-{made_up[0]['lift_id']}"))
    most = max(_persons(api), key=lambda one: (one["touchpoints"] > 0, len(one["identifiers"])), default=None)
    if most is not None:
        shots.append(Shot("person", f"/console/customers/{most['person_id']}"))
    shots += _of_contracts(api)
    shots += _of_sources(api)
    shots += [
        Shot("customers", "/console/customers"),
        Shot("receipts", "/console/trust/receipts"),
        Shot("changes", "/console/trust/changes?state="),
        Shot("policies", "/console/trust/policies"),
        Shot("audit", "/console/trust/audit", _verify),
    ]
    return shots


def _of_contracts(api: httpx.Client) -> Iterator[Shot]:
    """Yield contracts, two versions side by side, lineage of the largest dataset, and the newest incident."""
    yield Shot("contracts", "/console/sources/contracts")
    contracts = [one["contract_id"] for one in _get(api, "/v1/contracts")["contracts"]]
    versions = {one: _get(api, f"/v1/contracts/{one}/versions")["versions"] for one in contracts}
    longest = max(contracts, key=lambda one: len(versions[one]))
    yield Shot("contract", f"/console/sources/contracts/{longest}")
    if len(versions[longest]) > 1:
        compare = f"/console/sources/contracts/{longest}/compare"
        yield from (Shot("comparison", compare), Shot("comparison-dark", compare, dark=True))
    known = {one["name"] for one in _get(api, "/v1/lineage/nodes", kind="DATASET", page_size=1000)["nodes"]}
    datasets = [one for one in _get(api, "/v1/datasets")["datasets"] if one["dataset"] in known]
    if datasets:
        largest = max(datasets, key=lambda one: one["records"])["dataset"]
        yield Shot("lineage", f"/console/sources/lineage?node=dataset:counterfoil:{largest}")
    for incident in _get(api, "/v1/incidents", page_size=1)["incidents"]:
        yield Shot("incident", f"/console/trust/incidents/{incident['incident_id']}")


def _of_sources(api: httpx.Client) -> Iterator[Shot]:
    """Yield a source, imports, the largest dataset, and what is in quarantine."""
    for source in _get(api, "/v1/sources")["sources"][:1]:
        yield Shot("source", f"/console/sources/{source['source_id']}")
    yield Shot("imports", "/console/sources/imports")
    datasets = _get(api, "/v1/datasets")["datasets"]
    if datasets:
        largest = max(datasets, key=lambda one: one["records"])["dataset"]
        yield Shot("dataset", f"/console/sources/datasets/{largest}")
    for held in _get(api, "/v1/quarantine", page_size=1)["quarantined_records"]:
        yield Shot("quarantine", f"/console/sources/quarantine/{held['quarantine_id']}")


def _persons(api: httpx.Client) -> Iterator[dict[str, Any]]:
    """Yield those with several identifiers."""
    token = ""
    while True:
        page = _get(api, "/v1/persons", min_identifiers=2, page_size=1000, page_token=token)
        yield from page["persons"]
        token = page["next_page_token"]
        if not token:
            return


def _replay(page: Page) -> None:
    page.get_by_role("button", name="Replay").click()
    page.wait_for_selector(".outcome", timeout=120_000)


def _verify(page: Page) -> None:
    page.get_by_role("button", name="Verify").click()
    page.wait_for_selector(".outcome", timeout=120_000)


def _take(browser: Browser, api: httpx.Client, shots: list[Shot], *, folder: Path, dark: bool) -> None:
    context = browser.new_context(viewport=SIZE, color_scheme="dark" if dark else "light")
    page = context.new_page()
    page.goto(api.post("/console/sign-in-links").raise_for_status().json()["url"])
    for shot in shots:
        page.goto(f"{str(api.base_url).rstrip('/')}{shot.path}")
        page.wait_for_function(SETTLED, timeout=60_000)
        shot.prepare(page)
        page.wait_for_timeout(500)  # the live figure is drawn twice a second
        path = folder / f"console-{shot.name}.png"
        if shot.of:
            page.locator(shot.of).screenshot(path=path)
        else:
            shoot(page, path)
        size = path.stat().st_size
        print(f"{path} {size:,} bytes{' TOO LARGE' if size > MOST_BYTES else ''}")
    context.close()


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2], Path(sys.argv[3]) if len(sys.argv) > 3 else FOLDER)
