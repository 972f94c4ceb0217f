"""Generate Python code and the descriptor image from `protos/`; with `--check`, say whether they are current.

Nothing is vendored: `buf/validate` comes out of the protovalidate wheel, `google/api` out of
googleapis-common-protos.
"""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.api
import grpc_tools
from protobuf.wkt import FileDescriptorSet
from protovalidate import ViolationPb

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "protos"
GENERATED = SOURCES / "gen"


def closure(file: Any, seen: set[str]) -> Iterator[Any]:
    """Yield the descriptors of a file and of all it imports, imports first."""
    for dependency in file.dependencies:
        yield from closure(dependency, seen)
    if file.name not in seen:
        seen.add(file.name)
        yield file.proto


def generate(out: Path) -> None:
    """Write every generated file below `out`."""
    image = FileDescriptorSet(file=list(closure(ViolationPb.desc().file, set())))
    files = sorted(str(p.relative_to(SOURCES)) for p in SOURCES.glob("counterfoil/**/*.proto"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "counterfoil").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        validate = Path(scratch) / "validate.binpb"
        validate.write_bytes(image.to_binary())
        site_packages = Path(next(iter(google.api.__path__))).parent.parent
        base = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--descriptor_set_in={validate}",
            f"-I{SOURCES}",
            f"-I{site_packages}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        ]
        python = [f"--python_out={out}", f"--mypy_out={out}"]
        run([*base, *python, "buf/validate/validate.proto"])
        api = out / "counterfoil" / "api.binpb"
        run([*base, *python, "--include_imports", "--include_source_info", f"--descriptor_set_out={api}", *files])
        with_service = [f for f in files if "\nservice " in (SOURCES / f).read_text()]
        run([*base, f"--grpc_python_out={out}", f"--mypy_grpc_out={out}", *with_service])
    for package in {p.parent for p in out.rglob("*.py")} | {out / "counterfoil", out / "buf"}:
        for folder in (package, *package.parents):
            if folder == out:
                break
            (folder / "__init__.py").touch()
    for top in ("counterfoil", "buf"):
        (out / top / "py.typed").touch()


def run(command: list[str]) -> None:
    """Run protoc with this environment's plugins; stop on the first failure."""
    path = str(Path(sys.executable).parent)
    subprocess.run(command, check=True, cwd=ROOT, env={"PATH": f"{path}:/usr/bin:/bin"})


def differences(left: Path, right: Path) -> list[str]:
    """Return the files that are not the same below two folders."""
    names = {
        p.relative_to(base)
        for base in (left, right)
        for p in base.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    return sorted(
        str(n)
        for n in names
        if not ((left / n).is_file() and (right / n).is_file() and filecmp.cmp(left / n, right / n, shallow=False))
    )


def main() -> int:
    """Generate, or check."""
    if "--check" not in sys.argv[1:]:
        shutil.rmtree(GENERATED, ignore_errors=True)
        generate(GENERATED)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / "gen"
        generate(fresh)
        stale = differences(fresh, GENERATED)
    if stale:
        print("Generated code is not current; run `make protos` and commit:", *stale, sep="\n  ")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
