"""JSON logs on stderr: one event per line with fixed fields."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

import orjson

from counterfoil_chassis.telemetry import current_trace_id

_SECRETS = re.compile(r"(cf[kw]_)[A-Za-z0-9_-]{8,}|(eyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
"""Keys and tokens. Nothing logs them; an error's text that quotes one must not either."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, service, event, logger, trace_id, the `extra` fields, error."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "event": record.getMessage(),
            "logger": record.name,
        }
        if trace_id := current_trace_id():
            line["trace_id"] = trace_id
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD and key not in line}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = "".join(traceback.format_exception(*record.exc_info))
        text = orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        return _SECRETS.sub(lambda found: f"{found[1] or found[2]}(left out)", text)


def configure(service: str, *, level: str = "INFO") -> None:
    """Send every log of this process to stderr as JSON lines, replacing what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Both announce every connection or statement at INFO.
    for talkative in ("alembic", "aiosqlite"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    # These say at DEBUG how they were called, several times per call.
    for inward in ("asyncio", "grpc._cython"):
        logging.getLogger(inward).setLevel(logging.INFO)
