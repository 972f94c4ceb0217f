"""A process that appends without end and tells each id it was acknowledged; run by test_log_survives_kills."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from counterfoil_chassis.clock import SystemClock, SystemIds
from counterfoil_chassis.lease import lease_of, wait_for
from counterfoil_ingest.append import open_appender
from counterfoil_ingest.entities import Outcome
from counterfoil_ingest.registry import Contracts
from counterfoil_ingest.settings import Settings
from counterfoil_ingest.sql.log import open_log

from tests.ingest.ingest_records import batch, compiled, event, nothing_more


async def write(folder: Path, run: str) -> None:
    ids = SystemIds(SystemClock())
    contracts = Contracts(nothing_more, monotonic=time.monotonic)
    contracts.put(compiled("acme"))
    url = Settings(data_dir=folder).database_url
    lease = lease_of("ingest", url, seconds=10)
    await wait_for(lease)  # that of the process before, which was killed
    log = await asyncio.to_thread(open_log, url, lease=lease, new_epoch=ids.new)
    appender = await open_appender(log, folder / "dedup.table", contracts=contracts, ids=ids)

    async def writer(number: int) -> None:
        count = 0
        while True:
            names = [f"{run}-{number}-{count + n}" for n in range(7)]
            count += 7
            verdicts = await appender.append(batch("acme", *map(event, names), source_id=f"s{number}"))
            assert all(each.outcome is Outcome.ACCEPTED for each in verdicts)
            print(*(f"s{number}/{name}" for name in names), sep="\n", flush=True)

    await asyncio.gather(*(writer(number) for number in range(4)))


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2]))
