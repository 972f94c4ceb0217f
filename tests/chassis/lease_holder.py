"""A service that writes what it is told line by line; run by test_chassis_lease."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any

from counterfoil_chassis.database import Database
from counterfoil_chassis.errors import UnavailableError
from counterfoil_chassis.serve import Host, Service, run
from sqlalchemy import text

from tests.chassis.probe import ProbeSettings


async def build(settings: Any, host: Host, stack: AsyncExitStack) -> Service:
    database = Database(settings.database_url, lease=host.lease)
    stack.push_async_callback(database.close)

    async def write() -> None:
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while note := (await lines.readline()).decode().strip():
            try:
                async with database.begin() as connection:
                    await connection.execute(text("INSERT INTO note VALUES (:note)"), {"note": note})
            except UnavailableError as error:
                print(error.reason, flush=True)
            else:
                print("kept", flush=True)

    return Service([], background=[write])


if __name__ == "__main__":
    package = sys.argv.pop()
    run("probe", ProbeSettings, build, migrations=package)
