"""A grocer's real year: from its files and live orders to a forecast whose receipt replays.

`counterfoil demo` starts Counterfoil and runs this; it talks to the public API only.
"""

import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import journey
import report
import steps
from counterfoil_cli.client import ApiError, Client
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text
from settings import DemoSettings

ORDERS = 3000


class _Amount(ProgressColumn):
    """How much of a step is done, in its own unit."""

    def render(self, task: Task) -> Text:
        """Write `1,469,307 rows`, or nothing for a step that cannot be counted."""
        unit = task.fields.get("unit", "")
        if not unit:
            return Text("")
        done = f"{int(task.completed):,}"
        whole = f" of {int(task.total):,}" if task.total and not task.finished else ""
        return Text(f"{done}{whole} {unit}")


class Demo:
    """One run: the steps in order, with progress while they work and a report after each part."""

    def __init__(self, settings: DemoSettings, *, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._started = time.monotonic()

    def run(self) -> int:
        """Run every step; return the process's exit code."""
        self._console.rule("[bold]The Complete Journey: 2,469 households at a grocer, 2017")
        try:
            with Client(self._settings.url, self._settings.api_key) as api:
                orders, totals = self._load(api)
                exact = self._check(api, totals, orders)
                first_figures = self._elapsed()
                if not exact:
                    return 1
                matched = self._forecast(api)
        except (ApiError, steps.DemoError) as error:
            self._console.print(f"[bold red]The demo stopped:[/bold red] {escape(str(error))}", soft_wrap=True)
            return 1
        self._console.print(
            f"Done in {self._elapsed():.0f} s; the first figures stood after {first_figures:.0f} s.", highlight=False
        )
        return 0 if matched else 1

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _load(self, api: Client) -> tuple[list[journey.Order], journey.Totals]:
        """Bring contracts, files and live orders in; return what they should add up to."""
        with self._progress() as progress, tempfile.TemporaryDirectory() as scratch:
            preparing = progress.add_task("Contracts", total=2, unit="in force")
            products = progress.add_task("Products, CSV file", start=False, total=None)
            sales = progress.add_task("Transactions, Parquet file", start=False, total=None)
            live = progress.add_task("Live orders, Segment client", start=False, total=None)
            counting = progress.add_task("Adding up the source files", start=False, total=None)

            steps.set_timezone(api)
            progress.update(preparing, completed=len(steps.activate_contracts(api)))
            progress.start_task(products)
            listing = Path(scratch) / "products.csv"
            journey.write_products_csv(listing)
            imports = [steps.import_file(api, listing, dataset="products", progress=progress, task=products)]
            progress.start_task(sales)
            transactions = journey.data_file("transactions")
            imports.append(steps.import_file(api, transactions, dataset="transactions", progress=progress, task=sales))
            progress.start_task(live)
            orders = list(journey.latest_orders(ORDERS))
            known = steps.count_orders(api)
            steps.send_orders(orders, key=steps.write_key(api), host=self._settings.url, progress=progress, task=live)
            progress.start_task(counting)
            totals = journey.count_totals()
            progress.update(counting, total=1, completed=1)
        self._say_what_was_new(imports, known_orders=known)
        return orders, totals

    def _say_what_was_new(self, imports: list[dict[str, Any]], *, known_orders: int) -> None:
        for found in imports:
            self._console.print(
                f"{found['file_name']}: {found['rows_accepted']:,} rows added, {found['rows_duplicate']:,} were there "
                "already.",
                highlight=False,
            )
        self._console.print(
            f"Live orders: {ORDERS:,} sent, {known_orders:,} were there already.\nNo record broke its contract.\n",
            highlight=False,
        )

    def _check(self, api: Client, totals: journey.Totals, orders: list[journey.Order]) -> bool:
        checks = steps.check_figures(api, totals, orders)
        self._console.print(report.checks_table(checks))
        wrong = [check for check in checks if not check.exact]
        for check in wrong:
            self._console.print(
                f"[bold red]Not the same:[/bold red] {check.what}: the source files have {check.expected:,}, "
                f"Counterfoil answers {check.found:,}."
            )
        if not wrong:
            self._console.print("Every figure is the same, to the record and the cent.\n", highlight=False)
        return not wrong

    def _forecast(self, api: Client) -> bool:
        """Train, serve, explain and replay; return whether the replay gave the same numbers."""
        trace_id = secrets.token_hex(16)
        with self._progress() as progress:
            training = progress.add_task("Learning and testing on the past", total=None)
            serving = progress.add_task("Forecasting", start=False, total=None)
            replaying = progress.add_task("Replaying the receipt", start=False, total=None)
            version, trained = steps.train_champion(api, steps.create_model(api))
            progress.update(training, total=1, completed=1)
            progress.start_task(serving)
            forecast = steps.create_forecast(api, traceparent=f"00-{trace_id}-{secrets.token_hex(8)}-01")
            recent = steps.recent_sales(api, forecast)
            progress.update(serving, total=1, completed=1)
            progress.start_task(replaying)
            receipt = steps.read_receipt(api, forecast["receipt_id"])
            replay = steps.replay_receipt(api, receipt["receipt_id"])
            progress.update(replaying, total=1, completed=1)
        if not trained:
            self._console.print(f"Version {version['version']} serves already: it was trained by an earlier run.")
        self._console.print(report.backtest_table(version))
        for line in report.skipped_lines(version):
            self._console.print(line, highlight=False)
        self._console.print()
        self._console.print(report.forecast_table(forecast, recent))
        self._say_receipt(receipt, replay)
        self._say_where(receipt, trace_id=trace_id)
        return bool(replay["outcome"] == "MATCH")

    def _say_receipt(self, receipt: dict[str, Any], replay: dict[str, Any]) -> None:
        self._console.print()
        self._console.print(f"[bold]The receipt of this forecast[/bold], {receipt['receipt_id']}", highlight=False)
        grid = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
        for heading, sentence in report.receipt_lines(receipt):
            grid.add_row(f"  {heading}", sentence)
        self._console.print(grid, highlight=False)
        same = replay["outcome"] == "MATCH"
        colour = "green" if same else "bold red"
        meaning = "made again from the same data, the numbers are the same" if same else escape(replay["detail"])
        self._console.print(f"Replay: [{colour}]{replay['outcome'].lower()}[/{colour}]: {meaning}.\n", highlight=False)

    def _say_where(self, receipt: dict[str, Any], *, trace_id: str) -> None:
        url = self._settings.url.rstrip("/")
        lines = [("Receipt", f"{url}/v1/receipts/{receipt['receipt_id']}")]
        if self._settings.traces_url:
            lines.append(("Trace of the forecast", f"{self._settings.traces_url.rstrip('/')}/trace/{trace_id}"))
        if receipt["trace_id"] != trace_id:
            lines.append(("", "nothing had changed: the numbers and the receipt are those of an earlier request"))
        lines += [("REST API", f"{url}/v1/"), ("Its description", f"{url}/openapi.json")]
        for heading, where in lines:
            self._console.print(f"{heading:<21} {where}", soft_wrap=True, highlight=False)
        self._console.print("Send the API key as the header X-Api-Key.\n", highlight=False)

    def _progress(self) -> Progress:
        return Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.description}"),
            BarColumn(),
            _Amount(),
            TimeElapsedColumn(),
            console=self._console,
        )


def main() -> None:
    """Run the demo against the Counterfoil that the environment names, and exit with its code."""
    sys.exit(Demo(DemoSettings(), console=Console()).run())


if __name__ == "__main__":
    main()
