"""Policy checks in every process: the bundle in force is followed from governance and asked here, by Cedar.

Cedar answers Allow although a `forbid` could not be evaluated: it skips what errs (https://docs.cedarpolicy.com,
"Authorization", error handling). Here a question is allowed only when Cedar says Allow, reports no error, and the
question fits the schema.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import cedarpy
import grpc
import orjson
from counterfoil.common.v1 import receipts_pb2 as common
from counterfoil.governance.v1 import policies_pb2 as pb
from counterfoil.governance.v1.policies_pb2_grpc import PolicyServiceStub
from google.protobuf import any_pb2

from counterfoil_chassis.call import enter_deadline, following, outgoing
from counterfoil_chassis.clock import Clock, to_timestamp
from counterfoil_chassis.errors import PermissionDeniedError, UnavailableError
from counterfoil_chassis.identity import Caller, TokenSigner
from counterfoil_chassis.status import failure_of
from counterfoil_chassis.watch import Watcher

NAMESPACE: Final = "Counterfoil"
DEFAULT_DENY: Final = "default-deny"
"""The policy id of an answer that no policy made: what nothing permits is denied."""
LOOKUP_SECONDS: Final = 5.0
LOOKED_UP_FOR: Final = timedelta(seconds=5)
"""How long a bundle that only a lookup has shown is trusted; what the watch brought stays until it brings another."""
MOST_ANSWERS: Final = 20_000
_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
_FAULTY_POLICY: Final = re.compile(r"policy `([^`]+)`")
_logger = logging.getLogger(__name__)


class PolicyDeniedError(PermissionDeniedError):
    """A policy forbids this, or none permits it; `policy_id` says which."""

    reason = "POLICY_DENIED"


class PolicyUnavailableError(UnavailableError):
    """Nobody can say what the policies are at the moment, so nothing is allowed; try again."""

    reason = "POLICY_UNAVAILABLE"


@dataclass(frozen=True)
class Question:
    """What is asked of the policies: may the caller do this to that?

    `resource_type` is the Cedar entity type without its namespace, e.g. `Model`. Attributes and context hold bool,
    int, str and lists of str, as the schema says.
    """

    action: str
    resource_type: str
    resource_id: str
    attributes: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    context: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)

    @cached_property
    def details(self) -> bytes:
        """Return attributes and context as text: the same for the same question, and made once per question."""
        return orjson.dumps((dict(self.attributes), dict(self.context)), option=orjson.OPT_SORT_KEYS)

    @property
    def resource(self) -> str:
        """Return the resource as receipts and refusals name it, e.g. `person_set:segment`."""
        return f"{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', self.resource_type).lower()}:{self.resource_id}"


@dataclass(frozen=True)
class Answer:
    """What the policies answer, and which of them; `errors` tell what could not be evaluated."""

    allowed: bool
    policy_ids: tuple[str, ...]
    errors: tuple[str, ...]
    question: Question
    bundle_version: int
    bundle_sha256: str
    checked_at: datetime

    def message(self) -> common.PolicyCheck:
        """Return the check as receipts keep it."""
        return common.PolicyCheck(
            action=self.question.action,
            resource=self.question.resource,
            allowed=self.allowed,
            policy_ids=self.policy_ids,
            checked_at=to_timestamp(self.checked_at),
        )

    def bundle_message(self) -> common.PolicyBundleReference:
        """Return the bundle that was asked as receipts keep it."""
        return common.PolicyBundleReference(version=self.bundle_version, sha256=self.bundle_sha256)

    def require(self) -> Answer:
        """Return the answer when it allows; raise PolicyDeniedError, naming the policies, otherwise."""
        if self.allowed:
            return self
        named = ", ".join(self.policy_ids)
        unclear = " It could not be evaluated, which counts as no." if self.errors else ""
        raise PolicyDeniedError(
            f"{self.question.action} of {self.question.resource} is refused by policy {named}.{unclear} "
            "Meet what the policy asks for, or have its owner change it.",
            metadata={
                "policy_id": self.policy_ids[0],
                "policy_ids": ",".join(self.policy_ids),
                "action": self.question.action,
                "resource": self.question.resource,
                "bundle_version": str(self.bundle_version),
            },
        )


class BundleUnreadableError(Exception):
    """The bundle's text cannot be asked by this release; the message says why."""


def bundle_sha256(policies: str, schema: str) -> str:
    """Return the hash that receipts cite: SHA-256, hex, of both texts, each after its length in bytes."""
    digest = hashlib.sha256()
    for text in (policies.encode(), schema.encode()):
        digest.update(len(text).to_bytes(8, "big") + text)
    return digest.hexdigest()


class Policies:
    """One bundle, parsed once."""

    def __init__(self, *, version: int, policies: str, schema: str) -> None:
        """Parse the texts; raise BundleUnreadableError when Cedar cannot, or an @id is missing or not unique."""
        self.version = version
        self.sha256 = bundle_sha256(policies, schema)
        try:
            self._schema = cedarpy.Schema.from_str(schema)
            named = _by_id(policies)
            self._policies = cedarpy.PolicySet.from_json_str(orjson.dumps(named).decode())
        except (ValueError, TypeError) as error:
            raise BundleUnreadableError(str(error)) from error
        self._places = {name: place for place, name in enumerate(named["staticPolicies"])}

    def answer(self, caller: Caller, question: Question, *, at: datetime) -> Answer:
        """Ask Cedar; whatever it cannot judge is denied."""
        allowed, ids, errors = self._judge(caller, question)
        return Answer(allowed, ids, errors, question, self.version, self.sha256, at)

    def _judge(self, caller: Caller, question: Question) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
        principal = {"type": f"{NAMESPACE}::Principal", "id": caller.principal}
        resource = {"type": f"{NAMESPACE}::{question.resource_type}", "id": question.resource_id}
        try:
            entities = cedarpy.Entities.from_json_str(
                _entities(caller, question, principal=principal, resource=resource), self._schema
            )
            request = {
                "principal": principal,
                "action": {"type": f"{NAMESPACE}::Action", "id": question.action},
                "resource": resource,
                "context": orjson.dumps(dict(question.context)).decode(),
            }
            result = cedarpy.is_authorized(request, self._policies, entities, self._schema)
        except (ValueError, TypeError) as error:
            return False, (DEFAULT_DENY,), (f"the question does not fit the schema: {error}",)
        errors = tuple(sorted(result.diagnostics.errors))
        decision = result.decision
        if decision is cedarpy.Decision.Allow and not errors:
            return True, self._in_order(result.diagnostics.reasons), ()
        # What decided the answer is what erred and, if Cedar denies by itself, the policies that forbid.
        named = [match[1] for match in map(_FAULTY_POLICY.search, errors) if match]
        if decision is cedarpy.Decision.Deny:
            named += result.diagnostics.reasons
        return False, self._in_order(named) or (DEFAULT_DENY,), errors

    def _in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the policies in the order of the text: Cedar tells them in any, and receipts have to stay the same."""
        return tuple(sorted(set(names), key=lambda name: self._places.get(name, len(self._places))))


class PolicyChecker:
    """Follows the bundles in force and answers questions from them; without a bundle it allows nothing.

    While governance cannot be reached the last good bundles are kept. A workspace has a bundle from its first moment,
    so the same stream tells which workspaces there are: `on_workspace` and `on_workspace_gone` get their ids.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        signer: TokenSigner,
        clock: Clock,
        *,
        on_workspace: Callable[[str], object] = lambda _: None,
        on_workspace_gone: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._stub = PolicyServiceStub(channel)
        self._signer = signer
        self._clock = clock
        self._on_workspace = on_workspace
        self._on_workspace_gone = on_workspace_gone
        self._bundles: dict[str, Policies | None] = {}  # None: in force, and unreadable here
        self._trusted_until: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._answers: dict[tuple[object, ...], Answer] = {}
        self._watcher = Watcher(
            lambda after: self._stub.WatchPolicyBundles(
                pb.WatchPolicyBundlesRequest(after_revision=after), **following(signer=signer)
            ),
            self._put,
            self._delete,
            name="governance policies",
        )

    async def run(self) -> None:
        """Follow governance for ever; a background task of the service."""
        await self._watcher.run()

    async def current(self) -> None:
        """Wait until the bundles in force have arrived once."""
        await self._watcher.current()

    def known(self, workspace: str) -> Policies | None:
        """Return the bundle in force as the watch has brought it; None = it would have to be asked for."""
        return self._bundles.get(workspace) if self._trusted_until.get(workspace) == math.inf else None

    async def ask(self, caller: Caller, question: Question) -> Answer:
        """Return what the bundle in force of the caller's workspace answers.

        Raises PolicyUnavailableError when there is none and governance cannot be asked.
        """
        policies = await self._in_force(caller.workspace)
        key = _key(policies.sha256, caller, question)
        now = self._clock.now()
        known = self._answers.get(key)
        if known is not None:
            return Answer(
                known.allowed,
                known.policy_ids,
                known.errors,
                question,
                policies.version,  # a bundle that was reverted to has another version with the same hash
                known.bundle_sha256,
                now,
            )
        answer = policies.answer(caller, question, at=now)
        if answer.errors:  # told once, since the answer is kept
            fields = {"action": question.action, "resource": question.resource, "cause": "; ".join(answer.errors)}
            _logger.warning("a policy question could not be evaluated and was refused", extra=fields)
        if len(self._answers) >= MOST_ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = answer
        return answer

    async def require(self, caller: Caller, question: Question) -> Answer:
        """Ask, and raise PolicyDeniedError unless it is allowed."""
        return (await self.ask(caller, question)).require()

    async def _in_force(self, workspace: str) -> Policies:
        now = self._clock.now().timestamp()
        if self._trusted_until.get(workspace, 0.0) <= now:
            await self._look_up(workspace)
        policies = self._bundles.get(workspace)
        if policies is None:
            raise PolicyUnavailableError(
                "The policies of this workspace are not known here at the moment, so nothing is allowed. Try again.",
                metadata={"workspace": workspace, "dependency": "governance"},
                retry_after=timedelta(seconds=1),
            )
        return policies

    async def _look_up(self, workspace: str) -> None:
        """Ask governance for one workspace's bundle, once for all who wait; when it fails the last good one stays."""
        task = self._asking.get(workspace)
        if task is None:
            task = asyncio.ensure_future(self._fetch(workspace))
            self._asking[workspace] = task
            task.add_done_callback(lambda _: self._asking.pop(workspace, None))
        await asyncio.shield(task)

    async def _fetch(self, workspace: str) -> None:
        enter_deadline(None)  # it is for all who wait, whose time may differ
        try:
            bundle = await self._stub.LookupPolicyBundle(
                pb.LookupPolicyBundleRequest(workspace=workspace),
                **outgoing(default=LOOKUP_SECONDS, signer=self._signer),
            )
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            fields = {"workspace": workspace, "cause": f"{failure.code.name}: {failure.detail}"}
            _logger.warning("a policy bundle cannot be looked up", extra=fields)
            return
        if self._trusted_until.get(workspace) != math.inf:  # else the watch was faster
            self._keep(workspace, bundle)
            self._trusted_until[workspace] = (self._clock.now() + LOOKED_UP_FOR).timestamp()

    def _put(self, workspace: str, packed: any_pb2.Any) -> None:
        bundle = pb.PolicyBundle()
        packed.Unpack(bundle)
        self._keep(workspace, bundle)
        self._trusted_until[workspace] = math.inf
        self._on_workspace(workspace)

    def _delete(self, workspace: str) -> None:
        self._bundles.pop(workspace, None)
        self._trusted_until.pop(workspace, None)
        self._on_workspace_gone(workspace)

    def _keep(self, workspace: str, bundle: pb.PolicyBundle) -> None:
        try:
            policies = Policies(version=bundle.version, policies=bundle.policies, schema=bundle.schema)
            if policies.sha256 != bundle.sha256:
                raise BundleUnreadableError("its text is not the one that its hash names")
        except BundleUnreadableError as error:
            # The bundle before it is not in force any more: going on with it could allow what the new one forbids.
            fields = {"workspace": workspace, "bundle_version": bundle.version, "cause": str(error)}
            _logger.error("the policy bundle in force is unreadable here; nothing is allowed", extra=fields)  # noqa: TRY400
            self._bundles[workspace] = None
            return
        self._bundles[workspace] = policies


def _by_id(policies: str) -> dict[str, Any]:
    """Return the policies as JSON under their @id: Cedar numbers them by position, which an insertion shifts."""
    document = orjson.loads(cedarpy.policies_to_json_str(policies))
    if document["templates"]:
        raise ValueError("templates are not supported")
    named: dict[str, Any] = {}
    for policy in document["staticPolicies"].values():
        name = policy.get("annotations", {}).get("id")
        if not name or name in named:
            raise ValueError(f"the @id {name!r} is missing or not unique")
        named[name] = policy
    return {**document, "staticPolicies": named}


def _entities(caller: Caller, question: Question, *, principal: dict[str, str], resource: dict[str, str]) -> str:
    attributes: dict[str, Any] = {"workspace": caller.workspace, "scopes": sorted(caller.scopes)}
    if caller.service:
        attributes["service"] = True
    roles = [{"type": f"{NAMESPACE}::Role", "id": role} for role in sorted(caller.roles)]
    return orjson.dumps(
        [
            {"uid": principal, "attrs": attributes, "parents": roles},
            {"uid": resource, "attrs": dict(question.attributes), "parents": []},
        ]
    ).decode()


def _key(sha256: str, caller: Caller, question: Question) -> tuple[object, ...]:
    who = (caller.workspace, caller.principal, caller.scopes, caller.roles, caller.service)
    return (sha256, *who, question.action, question.resource_type, question.resource_id, question.details)
