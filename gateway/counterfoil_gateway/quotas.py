"""How much one key may ask by the installation's settings, and one workspace, over all of its keys, by its quotas."""

from __future__ import annotations

from collections.abc import Callable

from counterfoil.governance.v1.workspaces_pb2 import Workspace
from google.protobuf import any_pb2

from counterfoil_gateway.credentials import SignedIn
from counterfoil_gateway.limits import Limiter, Rate


class Bound:
    """The bound of one kind of requests. Each gateway counts for itself."""

    def __init__(self, name: str, rate: Rate, monotonic: Callable[[], float]) -> None:
        self._name = name
        self._monotonic = monotonic
        self._by_key = Limiter(name, rate, monotonic)
        self._by_workspace: dict[str, Limiter] = {}

    def take(self, holder: SignedIn) -> None:
        """Count one request; raise Problem 429 when the key or its workspace has had too many."""
        self._by_key.take(holder.digest)
        if (of_workspace := self._by_workspace.get(holder.workspace)) is not None:
            of_workspace.take(holder.workspace)

    def set(self, workspace: str, per_second: int) -> None:
        """Let a workspace have so many a second, and so many at once; 0 = no bound of its own."""
        if per_second:
            rate = Rate(per_second, burst=per_second)
            self._by_workspace[workspace] = Limiter(f"{self._name} of the workspace", rate, self._monotonic)
        else:
            self._by_workspace.pop(workspace, None)


class Quotas:
    """Keeps the bounds of workspaces as governance says them."""

    def __init__(self, *, requests: Bound, events: Bound) -> None:
        self._requests = requests
        self._events = events

    def put(self, key: str, resource: any_pb2.Any) -> None:
        """Take a workspace's quotas."""
        workspace = Workspace()
        resource.Unpack(workspace)
        self._requests.set(key, workspace.quotas.requests_per_second)
        self._events.set(key, workspace.quotas.event_requests_per_second)

    def delete(self, key: str) -> None:
        """Forget a workspace's quotas."""
        self._requests.set(key, 0)
        self._events.set(key, 0)
