"""What every benchmark shares: rounds in rotated order, processor time of processes, rows with targets, one report.

A figure is made in every round, a ratio out of figures of the same round; the median of the rounds counts, with the
smallest and the largest beside it. Rates depend on the machine and on what else it does; ratios hardly.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import psutil

T = TypeVar("T")
QUIET_SECONDS = 0.3
QUIET_SHARE = 0.1
"""Of one processor: what idle processes use, heartbeats included."""


@dataclass(frozen=True)
class Options:
    """How long a benchmark takes."""

    rounds: int = 4
    seconds: int = 3
    quick: bool = False
    """Less of everything, for development; its figures are for nobody else."""


@dataclass(frozen=True)
class Target:
    """What a figure has to keep, under the name that the targets have."""

    name: str
    bound: float
    at_least: bool = False

    def met_by(self, value: float) -> bool:
        """Say whether the figure keeps it."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.bound:,g}"


@dataclass(frozen=True)
class Row:
    """One figure over all rounds."""

    what: str
    values: Sequence[float]
    unit: str = ""
    target: Target | None = None

    @property
    def median(self) -> float:
        """Return what counts."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        """Say whether it keeps its target; without one it does."""
        return self.target is None or self.target.met_by(self.median)

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        spread = f"{_figure(self.median)}{self.unit}"
        if len(self.values) > 1:
            spread += f" ({_figure(min(self.values))} to {_figure(max(self.values))})"
        if self.target is None:
            return self.what, spread, "", ""
        return f"{self.target.name}: {self.what}", spread, str(self.target), "met" if self.met else "missed"


@dataclass(frozen=True)
class Report:
    """What a benchmark found."""

    title: str
    how: str
    """One sentence on what was measured."""
    rows: Sequence[Row]
    load: tuple[float, float, float] = field(default_factory=os.getloadavg)

    @property
    def missed(self) -> list[Row]:
        """Return the rows that miss their targets."""
        return [row for row in self.rows if not row.met]

    def markdown(self) -> str:
        """Return the section for docs/benchmarks.md."""
        load = f"load average at the end {self.load[0]:.1f} (1 min), {self.load[1]:.1f} (5 min)"
        return "\n".join(
            [
                f"## {self.title}",
                f"{self.how} {machine()}; {load}.",
                "",
                *table(("measure", "median (min to max of the rounds)", "target", ""), [r.cells() for r in self.rows]),
            ]
        )


def machine() -> str:
    """Name what it ran on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def rotated(cells: Sequence[T], number: int) -> list[T]:
    """Return the cells of a round: each round begins with another one, and every second one runs backwards."""
    start = number % len(cells)
    order = [*cells[start:], *cells[:start]]
    return order[::-1] if number % 2 else order


def in_rounds(cells: Mapping[str, Callable[[], T]], options: Options) -> list[dict[str, T]]:
    """Run every cell once per round; return what each gave, by round."""
    return [{name: cells[name]() for name in rotated(list(cells), number)} for number in range(options.rounds)]


def cpu_seconds(processes: Iterable[psutil.Process], *, alone: bool = False) -> float:
    """Return what processes have used, system time included; with what they started, unless `alone`."""
    total = 0.0
    for process in processes:
        for each in (process, *(() if alone else process.children(recursive=True))):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def wait_until_quiet(processes: Sequence[psutil.Process], *, seconds: float = 60) -> None:
    """Wait until processes have done what they do afterwards: the lake, followers, the export of traces."""
    deadline = time.monotonic() + seconds
    while True:
        before = cpu_seconds(processes)
        time.sleep(QUIET_SECONDS)
        if cpu_seconds(processes) - before <= QUIET_SHARE * QUIET_SECONDS:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"the processes are still busy after {seconds:.0f} s; nothing can be measured")


def pss_mib(processes: Iterable[psutil.Process]) -> float:
    """Return the memory of processes, what they share counted once."""
    return sum(process.memory_full_info().pss for process in processes) / (1 << 20)


def _figure(value: float) -> str:
    if value >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}"
