"""The log, as `log` measures it, on a disk that waits: every sync of every process takes `DELAY_US` longer.

A sync returns at once where a disk has a cache that it trusts, and takes a millisecond or two over a network or on an
SSD without one. Which log is faster depends on that: some sync for every message, others share one. strace stops each
process at `fsync` and `fdatasync` alone, so all else runs as fast as ever.
"""

import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

from tests.bench import log
from tests.bench.measuring import Options, Report

DELAY_US = 1_400
_CALLS = "fsync,fdatasync"


def measure(options: Options) -> Report:
    """Run the benchmark of the log in a process whose syncs, and those of its rivals, wait."""
    strace = shutil.which("strace")
    if strace is None:
        raise SystemExit("strace makes syncs wait and is not installed; Debian and Ubuntu have it: apt install strace")
    waiting = ["-e", f"trace={_CALLS}", "-e", f"inject={_CALLS}:delay_exit={DELAY_US}", "-o", "/dev/null"]
    command = [strace, "-f", "--seccomp-bpf", *waiting, sys.executable, "-m", "tests.bench.slow_disk"]
    done = subprocess.run(command, input=pickle.dumps(options), stdout=subprocess.PIPE, check=True)
    found: Report = pickle.loads(done.stdout)
    how = f"Each sync takes {DELAY_US / 1_000} ms longer, in every process. {found.how}"
    return replace(found, title="Log on a disk that waits", how=how)


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(log.measure(pickle.loads(sys.stdin.buffer.read()))))
