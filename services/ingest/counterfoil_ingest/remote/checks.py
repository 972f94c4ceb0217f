"""Runs the checks that contracts publishes, one after the other, and reports what they found."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Mapping, Sequence
from typing import Final

import grpc
from counterfoil.common.v1.watch_pb2 import WatchResponse
from counterfoil.contracts.v1 import checks_pb2 as pb
from counterfoil.contracts.v1.checks_pb2_grpc import CheckServiceStub
from counterfoil_chassis.backoff import Backoff
from counterfoil_chassis.call import following, outgoing
from counterfoil_chassis.errors import Code, CounterfoilError
from counterfoil_chassis.identity import TokenSigner
from counterfoil_chassis.status import code_of
from counterfoil_chassis.watch import Watcher
from google.protobuf.any_pb2 import Any as AnyMessage

from counterfoil_ingest.profiling import Profile, profile_of
from counterfoil_ingest.recent import Trial, Wanted, recent, try_on
from counterfoil_ingest.registry import Compiled, Contracts
from counterfoil_ingest.remote.contracts import compiled_of
from counterfoil_ingest.store import Log

_REPORT_SECONDS: Final = 10.0
_FINAL: Final = (Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)
"""Answers after which a report need not be sent again."""

_logger = logging.getLogger(__name__)


class CheckRunner:
    """Follows the checks that wait, for ever; each is run in a thread and reported until contracts has taken it."""

    def __init__(self, channel: grpc.aio.Channel, log: Log, contracts: Contracts, *, signer: TokenSigner) -> None:
        self._stub = CheckServiceStub(channel)
        self._log = log
        self._contracts = contracts
        self._signer = signer
        self._waiting: dict[str, pb.PendingCheck] = {}
        self._changed = asyncio.Event()
        self._watcher = Watcher(self._watch, self._put, self._drop, name="contracts checks")

    async def watch(self) -> None:
        """Follow the contracts service for ever."""
        await self._watcher.run()

    async def run(self) -> None:
        """Run what waits, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting:
                key, check = next(iter(self._waiting.items()))
                report = await self._run(check)
                await self._report(key, report)
                self._waiting.pop(key, None)

    def _watch(self, after_revision: int) -> AsyncIterable[WatchResponse]:
        return self._stub.WatchChecks(
            pb.WatchChecksRequest(after_revision=after_revision), **following(signer=self._signer)
        )

    def _put(self, key: str, packed: AnyMessage) -> None:
        check = pb.PendingCheck()
        packed.Unpack(check)
        self._waiting[key] = check
        self._changed.set()

    def _drop(self, key: str) -> None:
        self._waiting.pop(key, None)

    async def _run(self, check: pb.PendingCheck) -> pb.ReportCheckRequest:
        report = pb.ReportCheckRequest(workspace=check.workspace, check_id=check.check_id)
        try:
            if check.compiled:
                for compiled in check.compiled:
                    report.trials.append(await asyncio.to_thread(self._try, check, compiled_of(compiled)))
            else:
                in_force = await self._contracts.find(check.workspace, check.profile.dataset)
                classified = {} if in_force is None else in_force.classifications
                report.profiled.CopyFrom(await asyncio.to_thread(self._profile, check, classified))
        except CounterfoilError as error:
            _logger.warning("a check could not be run", extra={"check": check.check_id, "reason": error.reason})
            report.error_reason, report.error_detail = error.reason, str(error)[:1000]
        except ValueError as error:
            _logger.warning("a check cannot be run", extra={"check": check.check_id, "cause": str(error)})
            report.error_reason = "CONTRACT_UNUSABLE"
            report.error_detail = (
                "The contract compiles to what cannot be used here: its ingest may be older. Upgrade it."
            )
        except Exception:  # what nobody foresaw of records and contracts must not keep ingest from taking records
            _logger.exception("a check has failed", extra={"check": check.check_id})
            report.error_reason, report.error_detail = "CHECK_FAILED", "The check has failed; ingest's log says how."
        return report

    def _try(self, check: pb.PendingCheck, compiled: Compiled) -> pb.DatasetTrial:
        found = recent(self._log, check.workspace, Wanted(compiled.dataset, check.records))
        return _told_trial(try_on(found, compiled))

    def _profile(self, check: pb.PendingCheck, classified: Mapping[str, str]) -> pb.DatasetProfile:
        asked = check.profile
        found = recent(self._log, check.workspace, Wanted(asked.dataset, check.records, asked.type, asked.event))
        return _told_profile(profile_of(asked.dataset, found, classified=classified))

    async def _report(self, key: str, report: pb.ReportCheckRequest) -> None:
        backoff = Backoff(first=0.1, longest=5.0)
        while key in self._waiting:
            try:
                await self._stub.ReportCheck(report, **outgoing(default=_REPORT_SECONDS, signer=self._signer))
            except grpc.aio.AioRpcError as error:
                if code_of(error) in _FINAL:
                    _logger.warning("a check's report was refused", extra={"check": report.check_id})
                    return
                await backoff.pause()
            else:
                return


def _told_trial(trial: Trial) -> pb.DatasetTrial:
    return pb.DatasetTrial(
        dataset=trial.dataset,
        tried=trial.tried,
        failed=trial.failed,
        faults=[
            pb.TrialFault(
                path=each.path, reason=each.reason, detail=each.detail, records=each.records, offset=each.offset
            )
            for each in trial.faults
        ],
        from_offset=trial.from_offset,
        next_offset=trial.next_offset,
    )


def _told_profile(profile: Profile) -> pb.DatasetProfile:
    return pb.DatasetProfile(
        dataset=profile.dataset,
        records=profile.records,
        fields=[
            pb.FieldProfile(
                path=each.path,
                parents=each.parents,
                present=each.present,
                nulls=each.nulls,
                types=_counts(each.types),
                format=each.format,
                values=_counts(each.values),
                distinct=each.distinct,
                minimum=each.minimum,
                maximum=each.maximum,
                personal=each.personal,
            )
            for each in profile.fields
        ],
        from_offset=profile.from_offset,
        next_offset=profile.next_offset,
        truncated=profile.truncated,
    )


def _counts(counts: Sequence[tuple[str, int]]) -> list[pb.ValueCount]:
    return [pb.ValueCount(value=value, count=count) for value, count in counts]
