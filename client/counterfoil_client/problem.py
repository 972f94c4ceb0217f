"""What the server refuses, in its own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx


class Problem(Exception):  # noqa: N818 - the name that RFC 9457 gives it
    """A refusal (RFC 9457). `reason` is stable: write your handling against it; `trace_id` is for who helps you."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status = status
        """The HTTP status."""
        self.code: str = body.get("code", "")
        """The gRPC code, e.g. `NOT_FOUND`."""
        self.reason: str = body.get("reason", "")
        """Stable, e.g. `PERSON_NOT_FOUND`."""
        self.detail: str = body.get("detail", "")
        """What went wrong and what to do."""
        self.metadata: Mapping[str, str] = body.get("metadata", {})
        """The values that the detail speaks of."""
        self.trace_id: str = body.get("trace_id", "")
        """The request's trace."""
        self.errors: Sequence[Mapping[str, str]] = body.get("errors", ())
        """Every fault of the request, each with `field`, `code` and `detail`."""
        faults = "".join(f"\n  {each.get('field')}: {each.get('detail')}" for each in self.errors)
        trace = f" (trace {self.trace_id})" if self.trace_id else ""
        super().__init__(f"{status} {self.reason}: {self.detail}{trace}{faults}")

    @classmethod
    def of(cls, answer: httpx.Response) -> Problem:
        """Read a refusal; one that comes from something on the way, such as a proxy, is told as it stands."""
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            text = answer.text.strip()[:300] or answer.reason_phrase
            body = {"reason": "NOT_FROM_COUNTERFOIL", "detail": text}
        return cls(answer.status_code, body)
