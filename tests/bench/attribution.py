"""Measure attribution against ChannelAttribution as ratios within one run; print the table for docs/benchmarks.md.

Both get the same million paths of 50 channels as text and end with the credit of every channel by a Markov chain of
order 1: theirs simulated until its default tolerance, ours exact, the texts' encoding included. ChannelAttribution is
GPL, so it lives in an environment of its own, which is made once and kept, and runs as a process of its own.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from counterfoil_models.attribution import Attributor
from counterfoil_models.attribution_spec import DAY_US
from counterfoil_models.markov import PathCounts, removal_effects
from counterfoil_models.paths import Paths

from tests.bench.measuring import Options, Report, Row, Target
from tests.bench.rivals import Rival

TARGET = 5.0
PATHS, CHANNELS = 1_000_000, 50
RIVAL = "channelattribution==2.2.5"
RIVAL_NEEDS = ("matplotlib",)
"""What it imports and does not declare."""

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


def _time(table: pa.Table, rival: Rival, *, rival_first: bool) -> Round:
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


def measure(options: Options) -> Report:
    """Run the rounds, both sides once before without being timed."""
    table = generate(20_000 if options.quick else PATHS, CHANNELS)
    paths, _ = encode(table)
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as scratch:
        file = Path(scratch) / "paths.csv"
        pa.csv.write_csv(table, file)
        with Rival("attribution_rival.py", (RIVAL, *RIVAL_NEEDS), str(file)) as rival:
            rival.run("order1")
            _time(table, rival, rival_first=False)
            rounds = [_time(table, rival, rival_first=number % 2 == 0) for number in range(options.rounds)]
    how = (
        f"{len(rounds)} rounds of {table.num_rows:,} generated paths with {len(paths.codes):,} touchpoints of "
        f"{CHANNELS} channels; {RIVAL} in an environment of its own."
    )
    target = Target("attribution", TARGET, at_least=True)
    rows = [
        Row("order 1, texts included: ChannelAttribution / ours", [r.rival / r.ours for r in rounds], "x", target),
        Row("the same from codes", [r.rival / r.from_codes for r in rounds], "x"),
        Row("its four models / our six, texts included", [r.rival_all / r.ours_all for r in rounds], "x"),
        Row("ChannelAttribution, order 1", [r.rival for r in rounds], " s"),
        Row("ours, order 1", [r.ours for r in rounds], " s"),
        Row("ours, six models", [r.ours_all for r in rounds], " s"),
        Row("share of the credit that its simulation gives to others", [r.share_error for r in rounds]),
    ]
    return Report("Attribution", how, rows)
