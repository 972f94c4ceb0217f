"""Print the API document: `python -m counterfoil_gateway.openapi > docs/reference/openapi.json`."""

from __future__ import annotations

import sys

from counterfoil_gateway import api as apis
from counterfoil_gateway.document import Document
from counterfoil_gateway.events import load_routes


def text() -> bytes:
    """Return the document of the installed protos and event protocols."""
    return Document(apis.load(apis.image())).text(load_routes())


if __name__ == "__main__":
    sys.stdout.buffer.write(text())
