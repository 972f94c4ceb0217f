"""Tables on the terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 160  # columns, where nobody says how wide the reader is


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
) -> None:
    """Print rows as a table, `numbers` being the columns that are aligned to the right; no rows are said in a line.

    The first column names the thing and is never broken, so that it can be copied.
    """
    console = Console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    if not rows:
        console.print(f"\n[bold]{title}[/bold]: none")
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        justify: JustifyMethod = "right" if index in numbers else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=index == 0 or index in numbers)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # text, never markup: cells hold what users wrote
    console.print(table)
