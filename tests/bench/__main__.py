"""Run the benchmarks one after the other, or those that are named: `python -m tests.bench attribution policies`.

Each is a module here with a `main()` that prints its table for docs/benchmarks.md and returns 1 when it misses its
target. Options after one name go to that benchmark: `python -m tests.bench ingest --rounds 4`.
"""

import importlib
import sys

BENCHMARKS = ("ingest", "policies", "graph", "attribution")


def main() -> int:
    """Run them; 1 when a target was missed."""
    named = [argument for argument in sys.argv[1:] if argument in BENCHMARKS]
    options = [argument for argument in sys.argv[1:] if argument not in BENCHMARKS]
    if options and len(named) != 1:
        sys.exit(f"options go to one benchmark: name one of {', '.join(BENCHMARKS)} before {' '.join(options)}")
    missed = []
    for name in named or BENCHMARKS:
        sys.argv = [name, *options]
        if importlib.import_module(f"tests.bench.{name}").main():
            missed.append(name)
    if missed:
        print(f"Missed their targets: {', '.join(missed)}.", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
