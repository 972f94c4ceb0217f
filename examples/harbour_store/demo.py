"""A made-up shop with a known truth: web events, a CRM and four ad platforms. All of it is synthetic.

`counterfoil demo` runs this after the Complete Journey; it talks to the public API only, and the truth stays out of it.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from counterfoil_cli.client import ApiError, Client
from rich.console import Console
from rich.markup import escape
from walkthrough import loading, measuring, tables
from walkthrough.errors import DemoError
from walkthrough.screen import make_console, show_progress
from walkthrough.settings import DemoSettings
from walkthrough.telling import Telling

from harbour_store import report, steps
from harbour_store.generate import PEOPLE, SEED, Store, make_store, write_store

CHANNELS_SHOWN = 10


class Demo:
    """One run: make the store, load it, and compare what Counterfoil finds with what was planted."""

    def __init__(self, settings: DemoSettings, *, console: Console, seed: int = SEED, people: int = PEOPLE) -> None:
        self._settings = settings
        self._console = console
        self._tell = Telling(settings, console=console)
        self._seed, self._people = seed, people
        self._started = time.monotonic()

    def run(self) -> int:
        """Run every step; return the process's exit code."""
        self._console.rule(f"[bold]Harbour Store (synthetic): {self._people:,} made-up customers, seed {self._seed}")
        try:
            with Client(self._settings.url, self._settings.api_key) as api:
                store = self._load(api)
                exact = self._check(api, store)
                honest = self._measure(api, store.truth) if exact else False
                whole = self._tell.audit(api)
        except (ApiError, DemoError) as error:
            self._console.print(f"[bold red]The demo stopped:[/bold red] {escape(str(error))}", soft_wrap=True)
            return 1
        self._tell.line(f"Done in {time.monotonic() - self._started:.0f} s.")
        return 0 if honest and whole else 1

    def _load(self, api: Client) -> Store:
        """Make the store and bring everything but its truth in."""
        with show_progress(self._console) as progress, tempfile.TemporaryDirectory() as scratch:
            making = progress.add_task("Making the store up", total=None)
            preparing = progress.add_task("Contracts and mapping", start=False, total=None, unit="in force")
            consenting = progress.add_task("Answers on consent", start=False, total=None)
            arriving = progress.add_task("Answers that arrive late", start=False, total=None)
            importing = progress.add_task("Imports of CRM and ad platforms", start=False, total=None)
            sending = progress.add_task("Web events, Segment's HTTP route", start=False, total=None)
            store = make_store(seed=self._seed, people=self._people)
            files = write_store(store, Path(scratch))
            progress.update(making, total=1, completed=1)
            progress.start_task(preparing)
            names = loading.activate_contracts(api, steps.CONTRACTS)
            loading.put_mapping(api, steps.MAPPING)
            progress.update(preparing, total=len(names) + 1, completed=len(names) + 1)
            progress.start_task(consenting)
            prompt = loading.record_consents(api, store.consents.prompt, progress=progress, task=consenting)
            progress.start_task(arriving)
            late = loading.record_consents(api, store.consents.late, progress=progress, task=arriving)
            progress.start_task(importing)
            imports = [
                loading.import_file(api, file, dataset=dataset, progress=progress, task=importing)
                for dataset, file in files.items()
            ]
            progress.start_task(sending)
            known = steps.count_events(api)
            key = loading.write_key(api, steps.SOURCE, mappings=[{"dataset": steps.EVENTS}])
            steps.send_events(store.events, key=key, host=self._settings.url, progress=progress, task=sending)
        self._tell.imports(imports)
        self._tell.line(f"Web events: {len(store.events):,} sent, {known:,} were there already.")
        self._tell.consents(prompt, what="Answers on consent")
        self._tell.consents(late, what="Answers that arrived late")
        self._console.print()
        return store

    def _check(self, api: Client, store: Store) -> bool:
        checks = steps.check_figures(api, store)
        self._console.print(tables.checks_table(checks))
        days, clicks, first, last = steps.tracking_gap(api)
        if days:
            self._tell.line(
                f"A gap in tracking: Meta reports {clicks:,} clicks on {days} days ({first} to {last}) of which the "
                "shop saw none. Credit for them is missing below."
            )
        self._console.print()
        return all(check.exact for check in checks)

    def _measure(self, api: Client, truth: dict[str, Any]) -> bool:
        """Show attribution beside lift and the planted truth; return whether the adjusted lift holds it."""
        with show_progress(self._console) as progress:
            reading = progress.add_task("The graph reads the log", total=None)
            crediting = progress.add_task("Attribution", start=False, total=None)
            lifting = progress.add_task("Lift", start=False, total=None)
            replaying = progress.add_task("Replaying both receipts", start=False, total=None)
            end = loading.log_end(api, [*truth["rows"]])
            graph = loading.wait_for_graph(api, end, progress=progress, task=reading)
            progress.start_task(crediting)
            attribution = measuring.attribute(api, steps.ATTRIBUTION)
            progress.update(crediting, total=1, completed=1)
            progress.start_task(lifting)
            lift = measuring.measure_lift(api, steps.LIFT)
            progress.update(lifting, total=1, completed=1)
            progress.start_task(replaying)
            replays = [measuring.replay_receipt(api, output["receipt_id"]) for output in (attribution, lift)]
            progress.update(replaying, total=1, completed=1)
        self._tell.graph(graph)
        title = "Attribution (synthetic): who was there in the 7 days before an order"
        self._console.print(tables.attribution_table(attribution, title=title, most=CHANNELS_SHOWN))
        self._tell.lines(tables.attribution_lines(attribution))
        self._console.print(report.caused_table(truth))
        planted = {
            "value": (truth["mailing"]["extra_value_per_customer"], "euros"),
            "count": (truth["mailing"]["extra_orders_per_customer"], "orders"),
        }
        for measure, (value, unit) in planted.items():
            title = f"Lift of the spring mailing (synthetic): {unit} per customer"
            self._console.print(tables.lift_table(lift, measure, title=title, truth=value))
        self._tell.lines(tables.lift_lines(lift))
        self._tell.lines(tables.cost_lines(lift, what="order"))
        named = zip(("the attribution", "the lift"), replays, strict=True)
        same = [self._tell.replay(what, replay) for what, replay in named]
        found = measuring.estimates_of(lift, "value")
        told = measuring.holds(found["adjusted"], planted["value"][0]) and not measuring.holds(
            found["naive"], planted["value"][0]
        )
        self._console.print()
        return told and all(same)


def main() -> int:
    """Run the demo against the Counterfoil that the environment names; return its exit code."""
    return Demo(DemoSettings(), console=make_console()).run()
