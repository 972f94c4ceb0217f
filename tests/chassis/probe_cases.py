"""Run the probe's `main()` once per case, each in a fork of this process, which imported everything once.

Reads `[[arguments, environment], ...]` as JSON from stdin, writes `[[exit code, stderr], ...]` to stdout.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

from counterfoil_chassis.serve import run

from tests.chassis.probe import ProbeSettings
from tests.chassis.probe_main import build


def case(arguments: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """Run one case to its end."""
    with tempfile.TemporaryFile() as stderr:
        child = os.fork()
        if child == 0:
            os.dup2(stderr.fileno(), 2)
            os.environ.update(variables)
            sys.path[:0] = variables.get("PYTHONPATH", "").split(":")
            sys.argv[1:] = arguments
            try:
                run("probe", ProbeSettings, build, migrations=variables.get("PROBE_PACKAGE"))
            except SystemExit as end:
                sys.stderr.flush()
                os._exit(end.code if isinstance(end.code, int) else 99)
            os._exit(98)
        _, status = os.waitpid(child, 0)
        stderr.seek(0)
        return os.waitstatus_to_exitcode(status), stderr.read().decode()


if __name__ == "__main__":
    sys.stdout.write(json.dumps([case(arguments, variables) for arguments, variables in json.load(sys.stdin)]))
