"""Whether the policies in force let a caller call a method: asked after the scope, for every request at both doors.

Event routes ask nothing: collection needs a valid write key only, and what is made of the records is gated where it is
made. A policy that could refuse events would lose them, since SDKs drop what is refused.
"""

from __future__ import annotations

from counterfoil_chassis.errors import CounterfoilError
from counterfoil_chassis.policy import PolicyChecker, Question

from counterfoil_gateway.api import Api, Method
from counterfoil_gateway.credentials import SignedIn
from counterfoil_gateway.problems import from_failure


class Permission:
    """Asks the question `call` of every method."""

    def __init__(self, api: Api, policies: PolicyChecker) -> None:
        self._policies = policies
        self._questions = {method.name: _question(method) for method in (*api.methods, *api.foreign)}

    async def require(self, holder: SignedIn, method: Method) -> None:
        """Return when the policies allow it; raise Problem 403 that names the policy, or 503 when nobody can say.

        The same bundle answers the same holder the same, so it is asked once.
        """
        bundle = self._policies.known(holder.workspace)
        if bundle is not None and holder.allowed.get(method.name) is bundle:
            return
        try:
            await self._policies.require(holder.caller, self._questions[method.name])
        except CounterfoilError as error:
            raise from_failure(error) from error
        if bundle is not None:
            holder.allowed[method.name] = bundle


def _question(method: Method) -> Question:
    attributes = {"scope": method.scope, "service": method.owner, "writes": not method.scope.endswith(".read")}
    return Question("call", "Method", method.name.removeprefix("/"), attributes)
