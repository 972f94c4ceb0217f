"""Progress on the terminal: a line per step, with how much of it is done in its own unit and how long it took."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

PIPED_WIDTH = 120  # columns, where nobody says how wide the reader is


def make_console() -> Console:
    """Return the console a demo prints on."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


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


def show_progress(console: Console) -> Progress:
    """Return the progress of some steps; use it in a `with` block."""
    return Progress(
        SpinnerColumn(finished_text="[green]✓[/green]"),
        TextColumn("{task.description}"),
        BarColumn(),
        _Amount(),
        TimeElapsedColumn(),
        console=console,
    )
