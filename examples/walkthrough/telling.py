"""Says on the terminal what a demo found."""

from typing import Any

from counterfoil_cli.client import Client
from rich.console import Console
from rich.table import Column, Table

from walkthrough import tables, trust
from walkthrough.loading import Recorded
from walkthrough.settings import DemoSettings

Json = dict[str, Any]


class Telling:
    """Prints the sentences that both demos have in common."""

    def __init__(self, settings: DemoSettings, *, console: Console) -> None:
        self._settings = settings
        self._console = console

    def line(self, text: str) -> None:
        """Print one line without colouring its numbers."""
        self._console.print(text, highlight=False)

    def lines(self, texts: list[str]) -> None:
        """Print some lines."""
        for text in texts:
            self.line(text)

    def imports(self, imports: list[Json]) -> None:
        """Say what of the files was new."""
        for found in imports:
            added, there = found["rows_accepted"], found["rows_duplicate"]
            self.line(f"{found['file_name']}: {added:,} rows added, {there:,} were there already.")

    def consents(self, found: Recorded, *, what: str) -> None:
        """Say what of the consents was new."""
        late = f"; {found.superseded:,} came later than an answer that they cannot replace" if found.superseded else ""
        self.line(f"{what}: {found.recorded:,} recorded, {found.sent - found.recorded:,} were there already{late}.")

    def graph(self, graph: Json) -> None:
        """Say what is in the graph."""
        kinds = ("persons", "identifiers", "nodes", "edges", "touchpoints", "conversions")
        held = ", ".join(f"{graph.get(kind, 0):,} {kind}" for kind in kinds)
        self.line(f"The graph holds {held}.")
        for each in graph.get("unread", ()):
            self.line(f"Not read by a mapping: {each['records']:,} records of {each['dataset']} ({each['reason']}).")

    def receipt(self, what: str, receipt: Json) -> None:
        """Put a receipt into words."""
        self._console.print()
        self.line(f"[bold]The receipt of {what}[/bold], {receipt['receipt_id']}")
        grid = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
        for heading, sentence in tables.receipt_lines(receipt):
            grid.add_row(f"  {heading}", sentence)
        self._console.print(grid, highlight=False)

    def replay(self, what: str, replay: Json) -> bool:
        """Say what a replay found; return whether it gave the same numbers."""
        self.line(tables.replay_line(what, replay))
        return bool(replay["outcome"] == "MATCH")

    def where(self, receipt: Json, *, trace_id: str) -> None:
        """Say where receipt, trace and API are."""
        url = (self._settings.public_url or self._settings.url).rstrip("/")
        lines = [("Receipt", f"{url}/v1/receipts/{receipt['receipt_id']}")]
        if self._settings.traces_url:
            lines.append(("Trace of the forecast", f"{self._settings.traces_url.rstrip('/')}/trace/{trace_id}"))
        if receipt["trace_id"] != trace_id:
            lines.append(("", "nothing had changed: the numbers and the receipt are those of an earlier request"))
        lines += [("REST API", f"{url}/v1/"), ("Its description", f"{url}/openapi.json")]
        for heading, where in lines:
            self._console.print(f"{heading:<21} {where}", soft_wrap=True, highlight=False)
        self.line("Send the API key as the header X-Api-Key.\n")

    def audit(self, api: Client) -> bool:
        """Recompute the audit log and say whether it is whole; return whether it is."""
        found = trust.verify_audit(api)
        self.line(tables.audit_line(found))
        return found.ok
