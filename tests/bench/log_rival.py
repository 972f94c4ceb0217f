"""Run in the rival's own environment: keep batches in NATS JetStream for so many seconds, once per line of stdin.

The server syncs each message before it acknowledges it. Every batch of the pool is one message, which the client
compresses as it sends it, as our blocks are. `0` keeps nothing and tells how many events there are.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import nats
import zstandard
from nats.js import JetStreamContext

WRITERS, BATCH = 16, 100


def main() -> None:
    """Start the server, and answer."""
    pool = Path(sys.argv[1]).read_bytes().split(b"\n")
    folder = Path(sys.argv[2])
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = folder / "server.conf"
    store = f'jetstream {{ store_dir: "{folder}/store", sync_interval: always }}'
    config.write_text(f'host: 127.0.0.1\nport: {port}\nlog_file: "{folder}/log"\n{store}\n')
    server = subprocess.Popen([str(Path(sys.executable).with_name("nats-server")), "-c", str(config)])
    try:
        wait_for(port)
        asyncio.run(serve(port, pool))
    finally:
        server.terminate()
        server.wait()


def wait_for(port: int) -> None:
    """Return once somebody listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


async def serve(port: int, pool: list[bytes]) -> None:
    """Answer each line."""
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    stream = client.jetstream()
    await stream.add_stream(name="events", subjects=["events"])
    numbers, loop = count(), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await answer(float(line), stream, pool, numbers)), flush=True)
    await client.close()


async def answer(
    seconds: float, stream: JetStreamContext, pool: list[bytes], numbers: "count[int]"
) -> dict[str, float]:
    """Publish for so long from every writer; return how many events, and the seconds that it took."""
    if not seconds:
        return {"events": (await stream.stream_info("events")).state.messages * BATCH, "seconds": 0.0}
    compressor = zstandard.ZstdCompressor(level=1)
    began = time.perf_counter()

    async def write() -> int:
        batches = 0
        while time.perf_counter() - began < seconds:
            payload = compressor.compress(pool[next(numbers) % len(pool)])
            await stream.publish("events", payload, timeout=30)
            batches += 1
        return batches

    batches = sum(await asyncio.gather(*(write() for _ in range(WRITERS))))
    return {"events": batches * BATCH, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    main()
