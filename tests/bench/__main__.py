"""Measure, and print what docs/benchmarks.md keeps: `python -m tests.bench`, or by name `python -m tests.bench events`.

Every benchmark is a module here whose `measure` returns a report. The exit code is 1 when a target is missed.
"""

import argparse
import importlib
import sys

from tests.bench.measuring import Options, Report, table

BENCHMARKS = (
    *("events", "log", "slow_disk", "dedup", "lake", "reads", "imports", "start", "policies", "graph", "attribution"),
    *("contracts", "memory"),
)


def main() -> int:
    """Run them one after the other; 1 when a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; none = all")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=3, help="of load per variant and round")
    parser.add_argument("--quick", action="store_true", help="for development: two rounds of a second, less of all")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    options = Options(2, 1, quick=True) if asked.quick else Options(asked.rounds, asked.seconds)
    reports: list[Report] = []
    for name in asked.names or BENCHMARKS:
        reports.append(importlib.import_module(f"tests.bench.{name}").measure(options))
        print(reports[-1].markdown(), end="\n\n", flush=True)
    missed = [row for report in reports for row in report.missed]
    targets = [row.cells() for report in reports for row in report.rows if row.target is not None]
    print("\n".join(["## Targets", *table(("target", "median (min to max)", "bound", ""), targets)]))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
