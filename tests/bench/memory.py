"""The memory of ingest while events pass: does it grow with what has passed?

Ten million events make ten million known ids; while as many pass once more, its memory is looked at, that of the
lake's process included. What counts is what it holds for itself: the table of known ids is a file, whose pages the
system may take away.
"""

import tempfile
import threading
from pathlib import Path

import psutil

from tests.bench.bodies import batch_template
from tests.bench.events import BATCH_CONNECTIONS, LARGE_BATCH, key_of
from tests.bench.load import Variant, require_wrk
from tests.bench.measuring import Options, Report, Row, Target
from tests.bench.world import Platform

KNOWN, QUICK = 10_000_000, 400_000
LOAD_SECONDS = 20
LOOK_SECONDS = 0.5
_UNITS = {"Anonymous": "own", "Rss": "all"}


def measure(options: Options) -> Report:
    """Send events until so many are known, and as many again while looking."""
    require_wrk()
    known = QUICK if options.quick else KNOWN
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as scratch:
        folder = Path(scratch)
        (folder / "batch").write_bytes(batch_template(LARGE_BATCH))
        with Platform.running(folder / "data") as ours:
            ingest = ours.installation.child("ingest")
            variant = Variant(
                f"{ours.installation.url}/v1/batch",
                "post",
                folder / "batch",
                BATCH_CONNECTIONS,
                (ingest,),
                key_of(ours.tenant),
            )
            seconds = 5 if options.quick else LOAD_SECONDS
            before = _pass(variant, known, seconds=seconds, ingest=ingest)
            after = _pass(variant, 2 * known, seconds=seconds, ingest=ingest)
            passed = variant.completed * LARGE_BATCH
            ((counted,),) = ours.tenant.sql("SELECT count(*) FROM events")
            if counted < passed:
                raise SystemExit(f"{passed:,} events were answered with success, the log has {counted:,}")
    how = (
        f"{passed:,} events in batches of {LARGE_BATCH} over {BATCH_CONNECTIONS} connections; memory every "
        f"{LOOK_SECONDS} s. Rows show the median of these looks, and the least and the most."
    )
    return Report("Memory", how, _rows(before, after, known))


def _rows(before: list[dict[str, float]], after: list[dict[str, float]], known: int) -> list[Row]:
    def of(looks: list[dict[str, float]], name: str) -> list[float]:
        return [each[name] for each in looks]

    most = max(of(after, "own")) / max(of(before[len(before) // 2 :], "own"))
    millions = f"{known / 1e6:g} million"
    return [
        Row(
            f"memory of its own with {millions} ids known, at most, in that of before",
            [most],
            "x",
            Target("Memory", 1.2),
        ),
        Row(f"its own, until {millions} ids are known", of(before, "own"), " MiB"),
        Row(f"its own, while {millions} events more pass", of(after, "own"), " MiB"),
        Row("with the files it has mapped, meanwhile", of(after, "all"), " MiB"),
    ]


def _pass(variant: Variant, until: int, *, seconds: int, ingest: psutil.Process) -> list[dict[str, float]]:
    """Load until so many events were answered in all; return what was seen of the memory meanwhile."""
    looks: list[dict[str, float]] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            looks.append(_memory(ingest))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        while variant.completed * LARGE_BATCH < until:
            variant.load(seconds)
    finally:
        done.set()
        thread.join()
    return looks


def _memory(process: psutil.Process) -> dict[str, float]:
    """Return what the kernel says of the memory of a process and those that it started, in MiB."""
    found = dict.fromkeys(_UNITS.values(), 0.0)
    for each in (process, *process.children(recursive=True)):
        for line in Path(f"/proc/{each.pid}/smaps_rollup").read_text().splitlines()[1:]:
            unit, size, *_ = line.split()
            if name := _UNITS.get(unit.rstrip(":")):
                found[name] += int(size) / 1024
    return found
