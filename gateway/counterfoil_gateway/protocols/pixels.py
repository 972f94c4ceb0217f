"""The answer to an event that an image tag sends."""

from __future__ import annotations

import base64
from typing import Final

from counterfoil_gateway.asgi import Reply

_GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
PIXEL: Final = Reply(200, _GIF, [(b"content-type", b"image/gif"), (b"cache-control", b"no-store")])
"""One transparent pixel that nobody keeps."""
