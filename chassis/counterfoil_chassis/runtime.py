"""The code that runs, as receipts name it."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import distributions, version

from counterfoil.common.v1.receipts_pb2 import RuntimeReference

from counterfoil_chassis.canonical import sha256_hex


@dataclass(frozen=True)
class Runtime:
    """The code that runs; `libraries` maps the distributions that can change an output's digits to their versions."""

    image_digest: str
    lock_sha256: str
    release: str
    python: str
    platform: str
    libraries: Mapping[str, str] = field(default_factory=dict)


def running_code(distribution: str, *, image_digest: str, libraries: Sequence[str] = ()) -> Runtime:
    """Describe this process; `lock_sha256` is over every installed distribution's name==version."""
    return Runtime(
        image_digest=image_digest,
        lock_sha256=_lock_sha256(),
        release=version(distribution),
        python=platform.python_version(),
        platform=f"{platform.machine()}-{sys.platform}",
        libraries={name: version(name) for name in libraries},
    )


def runtime_message(runtime: Runtime) -> RuntimeReference:
    """Write what runs."""
    return RuntimeReference(
        image_digest=runtime.image_digest,
        lock_sha256=runtime.lock_sha256,
        release=runtime.release,
        python=runtime.python,
        platform=runtime.platform,
    )


@cache  # a process runs what was installed when it started; to read all of it takes a fifth of a second
def _lock_sha256() -> str:
    installed = set()
    for each in distributions():
        metadata = each.metadata  # parsed anew at each mention
        name = re.sub(r"[-_.]+", "-", metadata["Name"]).lower()  # as the packaging specification normalises names
        installed.add(f"{name}=={metadata['Version']}")
    return sha256_hex("\n".join(sorted(installed)).encode())
