"""Buffers that come and go: the pages of one are those of the next."""

import subprocess
import sys

PROGRAM = """
import resource
from counterfoil_chassis.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        buffers = [bytearray(500_000) for _ in range(8)]
        del buffers
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if {keep}:
    keep_freed_memory()
faults()
print(faults())
"""


def faults(*, keep: bool) -> int:
    program = PROGRAM.replace("{keep}", str(keep))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_large_buffers_cost_fresh_pages_once() -> None:
    assert faults(keep=True) < 1_000 < faults(keep=False)
