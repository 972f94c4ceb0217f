"""The code that runs, as receipts name it."""

import platform
import re
import sys
from importlib.metadata import distributions, version

from counterfoil_models.canonical import sha256_hex
from counterfoil_models.entities import Runtime

LIBRARIES = ("numpy", "pandas", "scipy", "sktime", "statsmodels")
"""The distributions whose versions can change a forecast's digits; artifacts name them."""


def running_code(*, image_digest: str) -> Runtime:
    """Describe this process; `lock_sha256` is over every installed distribution's name==version."""
    return Runtime(
        image_digest=image_digest,
        lock_sha256=sha256_hex("\n".join(sorted(_installed())).encode()),
        release=version("counterfoil-models"),
        python=platform.python_version(),
        platform=f"{platform.machine()}-{sys.platform}",
        libraries={name: version(name) for name in LIBRARIES},
    )


def _installed() -> set[str]:
    # names as the packaging specification normalises them
    return {f"{re.sub(r'[-_.]+', '-', each.name).lower()}=={each.version}" for each in distributions()}
