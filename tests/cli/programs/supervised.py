"""Runs the real supervisor over tiny processes; each scenario prints what its test reads."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from counterfoil_cli.supervisor import Logs, ProcessSpec, Restarts, Supervisor

FOLDER = Path(sys.argv[2])
QUICK = Restarts(first_seconds=0.02, longest_seconds=0.1)


def say(text):
    """Print a line by one write: several processes share the pipe, and a signal may come in the midst of another."""
    os.write(1, f"{text}\n".encode())


def wait(name):
    """Say the pid, then wait for SIGTERM and say so."""

    def stop(*_):
        say(f"{name} stopped")
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    say(f"{name} {os.getpid()}")
    while True:
        signal.pause()


def stubborn(name):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(f"{name} {os.getpid()}")
    while True:
        time.sleep(1)


def broken():
    raise RuntimeError("broken on purpose")


def with_grandchild():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen(["sleep", "600"])
    say(f"grandchild {grandchild.pid}")
    while True:
        time.sleep(1)


def three():
    return [ProcessSpec(name, lambda name=name: wait(name)) for name in ("first", "second", "third")]


def once(code, supervisor):
    def end(found):
        say(f"ended with {found}")
        supervisor.stop(code)

    return ProcessSpec("once", lambda: sys.exit(code), on_end=end)


def talkative():
    for number in range(10**9):
        os.write(1, b"%012d %s\n" % (number, b"x" * 1000))
        time.sleep(0.0005)


def refuse():
    print("the key is missing", file=sys.stderr)
    sys.exit(2)


def main():
    scenario = sys.argv[1]
    short = Logs(longest_bytes=50_000, look_seconds=0.05)
    supervisor = Supervisor(say, restarts=QUICK, on_restart=lambda name: say(f"restarted {name}"), logs=short)
    specs = {
        "three": three,
        "deaths": lambda: [*three()[:1], ProcessSpec("broken", broken, log=FOLDER / "broken.log")],
        "stubborn": lambda: [ProcessSpec("mule", lambda: stubborn("mule"), stop_seconds=0.2)],
        "impatient": lambda: [ProcessSpec(n, lambda n=n: stubborn(n), stop_seconds=600) for n in ("mule", "ass")],
        "grandchild": lambda: [ProcessSpec("parent", with_grandchild, stop_seconds=0.1)],
        "once": lambda: [*three()[:1], once(7, supervisor)],
        "talkative": lambda: [*three()[:1], ProcessSpec("talker", talkative, log=FOLDER / "talker.log")],
        "refusal": lambda: [ProcessSpec("refuser", refuse, log=FOLDER / "refuser.log")],
        "settled": lambda: [ProcessSpec("refuser", refuse, log=FOLDER / "refuser.log")],
    }[scenario]()
    supervisor.settled = scenario == "settled"
    code = supervisor.run(specs)
    say(f"over {code}")
    sys.exit(code)


main()
