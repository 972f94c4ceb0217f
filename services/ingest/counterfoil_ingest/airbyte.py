"""Read what an Airbyte source writes: one message of the Airbyte protocol per line.

Records are rows. States are kept, the newest of each stream: a source that is given them goes on from there. What
else a source tells (logs, its catalog, its configuration) is not kept. Airbyte takes a line that is no JSON for a log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from counterfoil_ingest.entities import MAX_RECORD_BYTES, UNPLANNED, Finding
from counterfoil_ingest.files import BATCH_ROWS, Batches, FileUnreadableError, Rows, json_row, texts_of
from counterfoil_ingest.import_jobs import Connection

MOST_STATE_BYTES: Final = 1 << 20
MOST_STREAMS: Final = 1_000
MOST_ID: Final = 255  # characters
_MOST_TOLD: Final = 500  # characters of a source's own words that are repeated
_KIND: Final = re.compile(rb'"type"\s*:\s*"([A-Z_]+)"')
_NO_NAME: Final = re.compile(r"[^a-z0-9_]")


class _Record(msgspec.Struct, gc=False):
    stream: str
    data: msgspec.Raw
    record_id: Any = None


class _Descriptor(msgspec.Struct):
    name: str
    namespace: str | None = None


class _StreamState(msgspec.Struct):
    stream_descriptor: _Descriptor


class _State(msgspec.Struct):
    type: str = "LEGACY"
    stream: _StreamState | None = None


class _Error(msgspec.Struct):
    message: str = ""


class _Status(msgspec.Struct):
    stream_descriptor: _Descriptor
    status: str = ""


class _Trace(msgspec.Struct):
    type: str = ""
    error: _Error | None = None
    stream_status: _Status | None = None


class _Message(msgspec.Struct, gc=False):
    type: str
    record: _Record | None = None
    state: msgspec.Raw = msgspec.Raw(b"")
    trace: _Trace | None = None


class AirbyteFile:
    """One run of a source. `rows` reads it; how the run went is known when that has ended."""

    def __init__(self, path: Path, *, dataset: str, connection: Connection | None = None) -> None:
        """Read a file; with a `dataset` every record goes there, else each to the one named as its stream is.

        With a `connection` its states stay until the file tells newer ones, and records may say their ids.
        """
        self._path = path
        self._dataset = dataset
        self._connection = connection
        self._states: dict[tuple[str, str], bytes] = {}
        self._datasets: dict[str, str] = {}
        self._state_bytes = 0
        self._errors: list[str] = []
        self._incomplete: dict[str, None] = {}
        self._messages = msgspec.json.Decoder(_Message)
        self._state_kinds = msgspec.json.Decoder(_State)
        if connection is not None and connection.source_state:
            for each in orjson.loads(connection.source_state):
                self._keep(orjson.dumps(each))

    def rows(self, *, skip: int) -> Batches:
        """Yield the records after the first `skip`; raise FileUnreadableError."""
        number = 1
        datas: list[bytes] = []
        values: list[Any] = []
        datasets: list[str] = []
        ids: list[str] = []
        broken: dict[int, Finding] = {}
        for data, value, dataset, record_id, finding in self._records():
            if number > skip:
                if finding is not None:
                    broken[len(datas)] = finding
                datas.append(data)
                values.append(value)
                datasets.append(dataset)
                ids.append(record_id)
            if len(datas) == BATCH_ROWS:
                yield Rows(number + 1 - len(datas), datas, broken, values=values, datasets=datasets, ids=ids)
                datas, values, datasets, ids, broken = [], [], [], [], {}
            number += 1
        if datas:
            yield Rows(number - len(datas), datas, broken, values=values, datasets=datasets, ids=ids)

    @property
    def state(self) -> str:
        """The newest state of each stream as the JSON array that a source takes; "" = it told none."""
        return f"[{','.join(each.decode() for each in self._states.values())}]" if self._states else ""

    @property
    def problem(self) -> str:
        """What the source says went wrong; "" = nothing."""
        if self._errors:
            return f"The source reports: {self._errors[0]}"
        if self._incomplete:
            return f"The source did not complete the stream `{next(iter(self._incomplete))[:_MOST_TOLD]}`."
        return ""

    def _records(self) -> Iterator[tuple[bytes, Any, str, str, Finding | None]]:
        with self._path.open("rb") as stream:
            for texts in texts_of(stream):
                for text in texts:
                    message = self._message(text)
                    if message is None:
                        if _may_be_record(text):
                            yield text, None, self._dataset or UNPLANNED, "", _unreadable(text)
                    elif message.type == "RECORD":
                        if message.record is None:
                            yield text, None, self._dataset or UNPLANNED, "", _unreadable(text)
                        else:
                            yield self._record(message.record)
                    elif message.type == "STATE":
                        self._keep(bytes(message.state))
                    elif message.type == "TRACE" and message.trace is not None:
                        self._trace(message.trace)

    def _record(self, record: _Record) -> tuple[bytes, Any, str, str, Finding | None]:
        data, value, finding = json_row(bytes(record.data))
        dataset, record_id = self._dataset or self._dataset_of(record.stream), record.record_id
        if self._connection is None or record_id is None:
            return data, value, dataset, "", finding
        if not isinstance(record_id, str) or not 0 < len(record_id) <= MOST_ID:
            detail = f"A record is named by a text of at most {MOST_ID} characters. Read the stream by another key."
            return data, value, dataset, "", finding or Finding("BAD_ID", "$", detail)
        return data, value, dataset, f"{self._connection.name}#{record_id}", finding

    def _dataset_of(self, stream: str) -> str:
        if stream not in self._datasets:
            if len(self._datasets) == MOST_STREAMS:
                raise FileUnreadableError(
                    "TOO_MANY_STREAMS", f"A file may hold {MOST_STREAMS} streams. Read fewer streams at once."
                )
            self._datasets[stream] = dataset_of(stream)
        return self._datasets[stream]

    def _message(self, text: bytes) -> _Message | None:
        try:
            return self._messages.decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None

    def _keep(self, state: bytes) -> None:
        """Keep a state in place of the one that its stream had."""
        try:
            found = self._state_kinds.decode(state)
            text = orjson.dumps(orjson.loads(state))
        except (msgspec.MsgspecError, orjson.JSONDecodeError, UnicodeError, RecursionError):
            raise FileUnreadableError(
                "STATE_UNREADABLE", "A state of the source cannot be read. Run the source again."
            ) from None
        descriptor = found.stream.stream_descriptor if found.stream is not None else _Descriptor("")
        key = (descriptor.namespace or "", descriptor.name) if found.type == "STREAM" else ("", "")
        self._state_bytes += len(text) - len(self._states.get(key, b""))
        if found.type != "STREAM":  # one for all streams
            self._states, self._state_bytes = {}, len(text)
        self._states[key] = text
        if self._state_bytes > MOST_STATE_BYTES or len(self._states) > MOST_STREAMS:
            raise _state_too_large()

    def _trace(self, trace: _Trace) -> None:
        if trace.error is not None:
            self._errors[1:] = []
            self._errors.append(trace.error.message[:_MOST_TOLD])
        elif trace.stream_status is not None:
            name = trace.stream_status.stream_descriptor.name
            if trace.stream_status.status == "INCOMPLETE":
                self._incomplete[name] = None
            elif trace.stream_status.status == "COMPLETE":
                self._incomplete.pop(name, None)


def dataset_of(stream: str) -> str:
    """Return the dataset of a stream: its name in small letters, `_` for any sign that no dataset has."""
    name = _NO_NAME.sub("_", stream.lower())[:63]
    return name if name[:1].isalpha() else f"s_{name}"[:63]


def _may_be_record(text: bytes) -> bool:
    """Tell whether a line that is no message may have been a record, which must not be lost; raise for a state."""
    if not text.startswith(b"{"):
        return False
    kind = _KIND.search(text[:1000])
    if kind is None:
        return b'"record"' in text
    if kind[1] == b"STATE":
        raise (
            _state_too_large()
            if len(text) > MAX_RECORD_BYTES
            else FileUnreadableError("STATE_UNREADABLE", "A state of the source cannot be read. Run the source again.")
        )
    return kind[1] == b"RECORD"


def _unreadable(text: bytes) -> Finding:
    if len(text) > MAX_RECORD_BYTES:
        return Finding("TOO_LARGE", "$", f"A record is at most {MAX_RECORD_BYTES} bytes of JSON.")
    return Finding("BAD_MESSAGE", "$", "This is no RECORD message of the Airbyte protocol, or it was cut off.")


def _state_too_large() -> FileUnreadableError:
    return FileUnreadableError(
        "STATE_TOO_LARGE",
        f"The states of a source may have {MOST_STATE_BYTES} bytes in all. Read fewer streams at once.",
    )
