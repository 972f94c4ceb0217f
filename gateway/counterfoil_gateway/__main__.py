"""Serve the gateway until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from functools import partial
from typing import Any

import uvloop
from counterfoil_chassis import logs, telemetry, vitals
from counterfoil_chassis.clock import SystemClock
from counterfoil_chassis.errors import StartError
from counterfoil_chassis.health import HEALTH
from counterfoil_chassis.identity import TokenSigner, derive_secret, load_private_key
from counterfoil_chassis.memory import keep_freed_memory
from counterfoil_chassis.metrics import measure_loop_lag
from counterfoil_chassis.startup import read_settings

from counterfoil_gateway.doors import DRAIN_PAUSE, serving
from counterfoil_gateway.gateway import NAME, Identity
from counterfoil_gateway.settings import Settings

log = logging.getLogger(__name__)


def main() -> None:
    """Run the process: exit 0 when told to stop, 1 when a part failed, 2 with one line when it cannot start."""
    keep_freed_memory()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which the first process of a container would ignore
    try:
        sys.exit(_main())
    except StartError as error:
        sys.stderr.write(f"counterfoil {NAME}: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(0)  # told to stop before there was anything to drain


def _main() -> int:
    if sys.argv[1:]:
        raise StartError("takes no arguments; its settings are environment variables")
    settings = read_settings(Settings)
    logs.configure(NAME, level=settings.log_level)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # announces its own start and end
    if settings.private_key_file is None:
        raise StartError("the settings name no private key")
    clock = SystemClock()
    key = load_private_key(settings.private_key_file)
    identity = Identity(TokenSigner(NAME, key, clock), derive_secret(key), clock)
    telemetry.configure(NAME, settings.otlp_endpoint, ratio=settings.trace_ratio)
    try:
        return uvloop.run(_serve(settings, identity))
    finally:
        telemetry.flush()


async def _serve(settings: Settings, identity: Identity) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    follow_health = partial(HEALTH.follow, identity.clock)
    async with (
        vitals.serving(NAME, settings.metrics_listen, identity.clock),
        serving(settings, identity, pause=DRAIN_PAUSE, also=[measure_loop_lag, follow_health]) as gateway,
    ):
        log.info("serving", extra={"address": gateway.rest, "grpc_address": gateway.grpc})
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again
        gc.set_threshold(20_000, 25, 25)
        told: asyncio.Future[Any] = asyncio.ensure_future(stopping.wait())
        await asyncio.wait([told, gateway.failed], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if not gateway.failed.done():
            gateway.failed.cancel()
            log.info("stopping")
            return 0
        log.critical("a part of the gateway failed", exc_info=gateway.failed.exception())
    return 1


if __name__ == "__main__":
    main()
