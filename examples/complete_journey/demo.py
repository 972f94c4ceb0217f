"""A grocer's real year: from its files and live orders to a forecast, a lift and their receipts.

`counterfoil demo` starts Counterfoil and runs this; it talks to the public API only.
"""

import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

from counterfoil_cli.client import ApiError, Client
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from walkthrough import loading, measuring, tables, trust
from walkthrough.errors import DemoError
from walkthrough.screen import make_console, show_progress
from walkthrough.settings import DemoSettings
from walkthrough.telling import Telling

from complete_journey import approvals, files, report, reveal, steps

ORDERS = 3000
CAMPAIGNS_SHOWN = 8


class Demo:
    """One run: the steps in order, with progress while they work and a report after each part."""

    def __init__(self, settings: DemoSettings, *, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._tell = Telling(settings, console=console)
        self._started = time.monotonic()

    def run(self) -> int:
        """Run every step; return the process's exit code."""
        self._console.rule("[bold]The Complete Journey: 2,469 households at a grocer, 2017")
        try:
            with Client(self._settings.url, self._settings.api_key) as api, trust.second_person(api) as reviewer:
                orders, totals = self._load(api)
                exact = self._check(api, totals, orders)
                first_figures = self._elapsed()
                if not exact:
                    return 1
                matched = self._forecast(api, reviewer)
                matched &= self._reveal(api)
                self._export(api, reviewer)
                whole = self._tell.audit(api)
        except (ApiError, DemoError) as error:
            self._console.print(f"[bold red]The demo stopped:[/bold red] {escape(str(error))}", soft_wrap=True)
            return 1
        self._tell.line(f"Done in {self._elapsed():.0f} s; the first figures stood after {first_figures:.0f} s.")
        return 0 if matched and whole else 1

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _load(self, api: Client) -> tuple[list[files.Order], files.Totals]:
        """Bring contracts, mapping, files, live orders and the legal basis in; return what they should add up to."""
        with show_progress(self._console) as progress, tempfile.TemporaryDirectory() as scratch:
            preparing = progress.add_task("Contracts and mapping", total=len(files.FILES) + 1, unit="in force")
            basis = progress.add_task("Legal basis of measurement", start=False, total=None)
            imported = {name: progress.add_task(f"Import of {name}", start=False, total=None) for name in files.FILES}
            live = progress.add_task("Live orders, Segment client", start=False, total=None)
            counting = progress.add_task("Adding up the source files", start=False, total=None)

            steps.set_timezone(api)
            progress.update(preparing, completed=len(loading.activate_contracts(api, steps.CONTRACTS)))
            loading.put_mapping(api, steps.MAPPING)
            progress.advance(preparing)
            progress.start_task(basis)
            consents = loading.record_consents(api, files.legal_basis(), progress=progress, task=basis)
            imports = [
                self._import(api, dataset, scratch=Path(scratch), progress=progress, task=task)
                for dataset, task in imported.items()
            ]
            progress.start_task(live)
            orders = list(files.latest_orders(ORDERS))
            known = steps.count_orders(api)
            key = loading.write_key(api, steps.SOURCE)
            steps.send_orders(orders, key=key, host=self._settings.url, progress=progress, task=live)
            progress.start_task(counting)
            totals = files.count_totals()
            progress.update(counting, total=1, completed=1)
        self._tell.imports(imports)
        self._tell.line(f"Live orders: {ORDERS:,} sent, {known:,} were there already.")
        self._tell.consents(consents, what="Legal basis for measurement (legitimate interest) of every household")
        self._tell.line("No record broke its contract.\n")
        return orders, totals

    @staticmethod
    def _import(api: Client, dataset: str, *, scratch: Path, progress: Progress, task: TaskID) -> dict[str, Any]:
        progress.start_task(task)
        file = files.file_to_import(dataset, scratch)
        return loading.import_file(api, file, dataset=dataset, progress=progress, task=task)

    def _check(self, api: Client, totals: files.Totals, orders: list[files.Order]) -> bool:
        checks = steps.check_figures(api, totals, orders)
        self._console.print(tables.checks_table(checks))
        wrong = [check for check in checks if not check.exact]
        for check in wrong:
            self._console.print(
                f"[bold red]Not the same:[/bold red] {check.what}: the source files have {check.expected:,}, "
                f"Counterfoil answers {check.found:,}."
            )
        if not wrong:
            self._tell.line("Every figure is the same, to the record and the cent.\n")
        return not wrong

    def _forecast(self, api: Client, reviewer: Client) -> bool:
        """Train, have it approved, serve, explain and replay; return whether the replay gave the same numbers."""
        trace_id = secrets.token_hex(16)
        with show_progress(self._console) as progress:
            training = progress.add_task("Learning and testing on the past", total=None)
            approving = progress.add_task("Asking a second person", start=False, total=None)
            serving = progress.add_task("Forecasting", start=False, total=None)
            replaying = progress.add_task("Replaying the receipt", start=False, total=None)
            serves = steps.champion(api, steps.create_model(api))
            version = serves or steps.train_version(api)
            progress.update(training, total=1, completed=1)
            progress.start_task(approving)
            if serves:
                champion, approval = serves, approvals.promotion_of(api, serves)
            else:
                champion, approval = approvals.promote(api, reviewer, version)
            progress.update(approving, total=1, completed=1)
            progress.start_task(serving)
            forecast = steps.create_forecast(api, traceparent=f"00-{trace_id}-{secrets.token_hex(8)}-01")
            recent = steps.recent_sales(api, forecast)
            progress.update(serving, total=1, completed=1)
            progress.start_task(replaying)
            receipt = measuring.read_receipt(api, forecast["receipt_id"])
            replay = measuring.replay_receipt(api, receipt["receipt_id"])
            progress.update(replaying, total=1, completed=1)
        if serves:
            self._tell.line(f"Version {champion['version']} serves already: it was trained by an earlier run.")
        self._console.print(report.backtest_table(champion))
        self._tell.lines(report.skipped_lines(champion))
        before = " by an earlier run" if serves else ""
        self._tell.line(tables.approval_line(f"Promotion of version {champion['version']}{before}", approval))
        self._console.print()
        self._console.print(report.forecast_table(forecast, recent))
        self._tell.receipt("this forecast", receipt)
        same = self._tell.replay("the forecast", replay)
        self._tell.where(receipt, trace_id=trace_id)
        return same

    def _reveal(self, api: Client) -> bool:
        """Show who was chosen, and attribution beside lift; return whether both receipts replay."""
        with show_progress(self._console) as progress:
            reading = progress.add_task("The graph reads the log", total=None)
            crediting = progress.add_task("Attribution", start=False, total=None)
            measuring_lift = progress.add_task("Lift", start=False, total=None)
            replaying = progress.add_task("Replaying both receipts", start=False, total=None)
            end = loading.log_end(api, [*files.FILES, "events"])
            graph = loading.wait_for_graph(api, end, progress=progress, task=reading)
            progress.start_task(crediting)
            attribution = measuring.attribute(api, reveal.ATTRIBUTION)
            progress.update(crediting, total=1, completed=1)
            progress.start_task(measuring_lift)
            chosen = reveal.who_was_chosen(api)
            lift = measuring.measure_lift(api, reveal.LIFT)
            progress.update(measuring_lift, total=1, completed=1)
            progress.start_task(replaying)
            replays = [measuring.replay_receipt(api, output["receipt_id"]) for output in (attribution, lift)]
            progress.update(replaying, total=1, completed=1)
        self._tell.graph(graph)
        title = "Attribution: who was there when a basket was bought in a campaign's flight"
        self._console.print(tables.attribution_table(attribution, title=title, most=CAMPAIGNS_SHOWN))
        self._tell.lines(tables.attribution_lines(attribution))
        self._console.print()
        self._console.print(report.chosen_table(chosen))
        self._tell.lines(report.chosen_lines(chosen))
        self._console.print()
        for measure, what in (("value", "US dollars"), ("count", "baskets")):
            title = f"Lift of being assigned: {what} per household, {reveal.CHOSEN_FROM} to {reveal.LAST_DAY}"
            self._console.print(tables.lift_table(lift, measure, title=title))
        self._tell.lines(tables.lift_lines(lift))
        self._tell.lines(tables.cost_lines(lift, what="basket"))
        same = [
            self._tell.replay(what, replay)
            for what, replay in zip(("the attribution", "the lift"), replays, strict=True)
        ]
        self._console.print()
        return all(same)

    def _export(self, api: Client, reviewer: Client) -> None:
        """Show what has to be so before persons leave the platform."""
        before = approvals.export_of_before(api)
        if before:
            self._tell.line(tables.approval_line("Export of persons by an earlier run", before))
            return
        without_consent, approval, exported = approvals.export(api, reviewer)
        people, purpose = len(exported["persons"]), approvals.PURPOSE
        self._tell.line(f"Export of {people} persons for {purpose}, without consent: refused by '{without_consent}'.")
        self._tell.line(tables.approval_line("The same with consent recorded", approval))
        self._tell.line(f"{people} persons exported for {purpose}, receipt {exported['receipt_id']}.")


def main() -> int:
    """Run the demo against the Counterfoil that the environment names; return its exit code."""
    return Demo(DemoSettings(), console=make_console()).run()
