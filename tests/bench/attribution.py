"""Measure attribution against ChannelAttribution as ratios within one run; print the table for docs/benchmarks.md.

Both get the same million paths of 50 channels as text and end with the credit of every channel by a Markov chain of
order 1: theirs simulated until its default tolerance, ours exact, the texts' encoding included. ChannelAttribution is
GPL, so it lives in an environment of its own, which is made once and kept, and runs as a process of its own.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from counterfoil_models.attribution import Attributor
from counterfoil_models.attribution_spec import DAY_US
from counterfoil_models.markov import PathCounts, removal_effects
from counterfoil_models.paths import Paths

TARGET = 5.0
RIVAL = "channelattribution==2.2.5"
RIVAL_NEEDS = ("matplotlib",)
"""What it imports and does not declare."""

ENVIRONMENT = Path.home() / ".cache" / "counterfoil" / "bench" / RIVAL.replace("==", "-")
SEPARATOR = " > "


@dataclass(frozen=True)
class Round:
    """Seconds of one round: the chain of order 1, and every model that each side has."""

    rival: float
    ours: float
    from_codes: float
    rival_all: float
    ours_all: float
    share_error: float


class Rival:
    """ChannelAttribution in its own environment, waiting for orders."""

    def __init__(self, file: Path) -> None:
        python = ENVIRONMENT / "bin" / "python"
        if not (ENVIRONMENT / "ready").exists():
            venv.create(ENVIRONMENT, with_pip=True, clear=True)
            command = [str(python), "-m", "pip", "install", "--quiet", RIVAL, *RIVAL_NEEDS]
            subprocess.run(command, check=True)
            (ENVIRONMENT / "ready").touch()
        command = [str(python), str(Path(__file__).with_name("attribution_rival.py")), str(file)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, what: str) -> dict[str, Any]:
        """Have it attribute by `order1` or by `all` its models; return the seconds and the chain's credits."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(what, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the rival ended (see above)")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def generate(paths: int, channels: int, *, seed: int = 11) -> pa.Table:
    """Make paths of five touchpoints on average; channels differ in how often they come and how well they convert."""
    random = np.random.default_rng(seed)
    lengths = np.minimum(random.geometric(1 / 5, paths), 60)
    weights = random.exponential(1.0, channels) + 0.05
    codes = random.choice(channels, int(lengths.sum()), p=weights / weights.sum())
    ends = np.cumsum(lengths) - 1
    converts = random.random(paths) < random.uniform(0.02, 0.25, channels)[codes[ends]]
    names = pa.array([f"channel {code:02d}" for code in range(channels)])
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    steps = pa.ListArray.from_arrays(pa.array(offsets), names.take(pa.array(codes)))
    return pa.table(
        {
            "path": pc.binary_join(steps, SEPARATOR),
            "conversions": converts.astype(np.int64),
            "value": np.where(converts, np.round(random.lognormal(3, 1, paths), 2), 0.0),
            "nulls": (~converts).astype(np.int64),
        }
    )


def encode(table: pa.Table) -> tuple[Paths, list[str]]:
    """Take the texts apart."""
    steps = pc.split_pattern(table["path"].combine_chunks(), SEPARATOR)
    encoded = steps.flatten().dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    values = np.rint(table["value"].to_numpy() * 1e6).astype(np.int64)
    ends = table["conversions"].to_numpy(), table["nulls"].to_numpy(), values
    starts = steps.offsets.to_numpy().astype(np.int64)
    return Paths(codes, starts, *ends, np.zeros_like(codes)), encoded.dictionary.to_pylist()


def order_one(paths: Paths, channels: int) -> np.ndarray:
    """Return the credit of each channel by the chain."""
    counts = PathCounts(channels)
    counts.add(paths)
    effects = removal_effects(counts).conversions
    return effects / effects.sum() * counts.conversions.sum()


def measure(table: pa.Table, rival: Rival, *, rival_first: bool) -> Round:
    """Time both sides, in this or the other order."""
    theirs = [rival.run(what) for what in ("order1", "all")] if rival_first else []
    began = time.perf_counter()
    paths, names = encode(table)
    encoded = time.perf_counter()
    credit = order_one(paths, len(names))
    chained = time.perf_counter()
    paths, names = encode(table)
    attributor = Attributor(len(names), half_life_us=DAY_US)
    attributor.add(paths)
    attributor.credits()
    everything = time.perf_counter()
    order1, every = theirs or [rival.run(what) for what in ("order1", "all")]
    found = np.array([order1["credits"][name] for name in names])
    return Round(
        rival=order1["seconds"],
        ours=chained - began,
        from_codes=chained - encoded,
        rival_all=every["seconds"],
        ours_all=everything - chained,
        share_error=float(np.abs(found - credit).sum() / credit.sum()),
    )


def report(rounds: Sequence[Round], *, paths: int, channels: int, touchpoints: int) -> str:
    """Return the Markdown."""
    rows = [
        (
            f"Order 1, texts included: ChannelAttribution / ours (target: at least {TARGET:.0f}x)",
            _spread([one.rival / one.ours for one in rounds], "x"),
        ),
        ("The same from codes", _spread([one.rival / one.from_codes for one in rounds], "x")),
        (
            "Its four models / our six, texts included",
            _spread([one.rival_all / one.ours_all for one in rounds], "x"),
        ),
        ("ChannelAttribution, order 1", _spread([one.rival for one in rounds], " s")),
        ("Ours, order 1", _spread([one.ours for one in rounds], " s")),
        ("Ours, six models", _spread([one.ours_all for one in rounds], " s")),
        ("Share of the credit that its simulation gives to others", _spread([one.share_error for one in rounds], "")),
    ]
    one, five, _ = os.getloadavg()
    run = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {len(rounds)} rounds of "
        f"{paths:,} paths with {touchpoints:,} touchpoints of {channels} channels; load average at the end {one:.1f} "
        f"(1 min), {five:.1f} (5 min)."
    )
    head = [
        run,
        "",
        "| measure | median (min to max of the rounds) |",
        "|---|---|",
    ]
    return "\n".join([*head, *(f"| {what} | {value} |" for what, value in rows)])


def _spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.3g}{unit} ({min(values):.3g} to {max(values):.3g})"


def main() -> int:
    """Run the rounds and print the table; 1 when the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench attribution", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="at least 4")
    parser.add_argument("--paths", type=int, default=1_000_000)
    parser.add_argument("--channels", type=int, default=50)
    options = parser.parse_args()
    if options.rounds < 4:
        parser.error("at least 4 rounds")
    table = generate(options.paths, options.channels)
    paths, _ = encode(table)
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as scratch:
        file = Path(scratch) / "paths.csv"
        pa.csv.write_csv(table, file)
        rival = Rival(file)
        try:
            rival.run("order1")  # both sides once without being timed
            measure(table, rival, rival_first=False)
            rounds = []
            for number in range(options.rounds):
                rounds.append(measure(table, rival, rival_first=number % 2 == 0))
                print(f"round {number + 1}: {rounds[-1].rival / rounds[-1].ours:.1f}x", file=sys.stderr)
        finally:
            rival.close()
    print(report(rounds, paths=options.paths, channels=options.channels, touchpoints=len(paths.codes)))
    return 0 if statistics.median(one.rival / one.ours for one in rounds) >= TARGET else 1
