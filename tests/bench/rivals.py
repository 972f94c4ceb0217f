"""Rivals in environments of their own: each is made once and kept, and runs as a process that waits for orders."""

import json
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

ENVIRONMENTS = Path.home() / ".cache" / "counterfoil" / "bench"


class Rival:
    """A script beside this one, in an environment with what it needs; the first requirement names the environment."""

    def __init__(self, script: str, requirements: Sequence[str], *arguments: str) -> None:
        environment = ENVIRONMENTS / requirements[0].replace("==", "-")
        python = environment / "bin" / "python"
        if not (environment / "ready").exists():
            venv.create(environment, with_pip=True, clear=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
            (environment / "ready").touch()
        command = [str(python), str(Path(__file__).with_name(script)), *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, order: str) -> dict[str, Any]:
        """Have it do something; return what it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(order, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the rival ended (see above)")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
