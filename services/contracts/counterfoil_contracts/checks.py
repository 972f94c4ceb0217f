"""Checks: what ingest is asked to find out about recent records, since contracts may not ask it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from counterfoil_contracts.check_entities import Check, CheckState, ProfileSubject, Wanted
from counterfoil_contracts.check_errors import CheckTooLargeError, ProfileNotDoneError, TooManyChecksError
from counterfoil_contracts.check_store import CheckStore

USUAL_RECORDS: Final = 1_000
MOST_KEPT: Final = 200
MOST_PENDING: Final = 20
_MOST_COMPILED: Final = 4 << 20  # bytes; a message holds 8 MiB


async def ask(store: CheckStore, wanted: Wanted) -> Check:
    """Keep a check that ingest is to run; raise TooManyChecksError, or CheckTooLargeError for a contract too large."""
    check = wanted.check
    if sum(len(each.json_schema) for each in wanted.compiled) > _MOST_COMPILED:
        raise CheckTooLargeError("The contract compiles to more than 4 MiB. Split it, and try its datasets one by one.")
    if await store.pending(check.workspace) >= MOST_PENDING:
        raise TooManyChecksError(
            f"{MOST_PENDING} checks of this workspace wait for ingest already. Wait until one is finished.",
            retry_after=timedelta(seconds=5),
        )
    await store.add(wanted)
    await store.forget_older(check.workspace, kept=MOST_KEPT)
    return check


async def report(
    store: CheckStore, *, workspace: str, check_id: str, failed: bool, result: bytes, now: datetime
) -> None:
    """Finish a check; one that is finished stays as it is. Raises CheckNotFoundError."""
    check = await store.get(workspace, check_id)
    if check.state is CheckState.PENDING:
        state = CheckState.FAILED if failed else CheckState.DONE
        await store.finish(replace(check, state=state, result=result, finished_at=now))


def require_profile(check: Check) -> ProfileSubject:
    """Return whose records a check has described; raise ProfileNotDoneError when it has not, or not yet."""
    if not isinstance(check.subject, ProfileSubject) or check.state is not CheckState.DONE:
        raise ProfileNotDoneError(
            "A contract is drafted from a profile that is done. Ask for one, and read it until it is.",
            metadata={"check_id": check.check_id, "state": check.state.value},
        )
    return check.subject
