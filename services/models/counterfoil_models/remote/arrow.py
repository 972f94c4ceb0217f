"""Arrow tables as services stream them: complete IPC streams, compressed as a whole."""

import io
from typing import Any

import pyarrow as pa
import zstandard

MAX_CHUNK_BYTES = 64 << 20
"""What one message may decompress to; services send 2 MiB."""


def table_of(data: bytes) -> Any:
    """Read the table of one message."""
    # a reader, since a frame written as a stream does not say its size; it also bounds what a frame may grow to
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
        plain = reader.read(MAX_CHUNK_BYTES)
    with pa.ipc.open_stream(plain) as stream:
        return stream.read_all()
