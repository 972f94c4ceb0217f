"""The process that writes the lake: `python -m counterfoil_ingest.lake_process`, one for each ingest.

It follows the log by itself and answers one call after the other; messages are those of `counterfoil_chassis.apart`.
While it reads it asks back what columns a dataset has. It ends as soon as its ingest does, whatever it is doing: what
it was about to commit is read again from the log. No other of the same data folder writes before it has ended.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, Final

import pyarrow as pa
from counterfoil_chassis.apart import read, ready, write
from counterfoil_chassis.errors import UnavailableError
from deltalake.exceptions import DeltaError

from counterfoil_ingest.arrow import LakeColumn
from counterfoil_ingest.errors import BlockUnreadableError
from counterfoil_ingest.lake_places import place_at
from counterfoil_ingest.lake_tables import columns_of, told_columns, told_table
from counterfoil_ingest.lake_writer import InForce, LakeWriter
from counterfoil_ingest.sql.log_reading import open_blocks

_FAILURES: Final = (DeltaError, OSError, pa.ArrowException, BlockUnreadableError, UnavailableError)
"""What goes wrong with the lake's disk or storage, and with the log; anything else is a mistake of ours."""

Ask = Callable[[dict[str, Any]], Any]
"""Asks ingest something, and returns what it says."""


def answer(writer: LakeWriter, call: Mapping[str, Any], ask: Ask) -> tuple[dict[str, Any], bytes]:
    """Do what a call says; return the answer and the bytes with it. What has failed is told and not raised."""
    try:
        return _CALLS[call["call"]](writer, call, ask)
    except Exception as error:  # noqa: BLE001 - whatever it is, the next round begins afresh, and ingest's log tells
        writer.forget(call["workspace"])
        return _failure(error), b""


def _failure(error: Exception) -> dict[str, Any]:
    trace = "" if isinstance(error, _FAILURES) else "".join(traceback.format_exception(error))
    return {"failed": type(error).__name__, "text": str(error), "trace": trace}


def _read(writer: LakeWriter, call: Mapping[str, Any], ask: Ask) -> tuple[dict[str, Any], bytes]:
    found = writer.read(call["workspace"], _in_force(ask), head=call["head"], rows=call["rows"])
    told = {
        dataset: {
            "columns": None if records.columns is None else told_columns(records.columns),
            "under_contract": records.under_contract(),
            "sources": sorted(records.sources),
        }
        for dataset, records in found.items()
    }
    return {"datasets": told}, b""


def _write(writer: LakeWriter, call: Mapping[str, Any], _ask: Ask) -> tuple[dict[str, Any], bytes]:
    wanted = {dataset: columns_of(told) for dataset, told in call["columns"].items()}
    return {"cursor": writer.write(call["workspace"], wanted)}, b""


def _settle(writer: LakeWriter, call: Mapping[str, Any], ask: Ask) -> tuple[dict[str, Any], bytes]:
    more = writer.settle(call["workspace"], _in_force(ask), before=date.fromisoformat(call["before"]))
    return {"more": more}, b""


def _erase(writer: LakeWriter, call: Mapping[str, Any], _ask: Ask) -> tuple[dict[str, Any], bytes]:
    return {"left": writer.erase(call["workspace"], [range(*each) for each in call["records"]])}, b""


def _view(writer: LakeWriter, call: Mapping[str, Any], _ask: Ask) -> tuple[dict[str, Any], bytes]:
    table = writer.view(call["workspace"], call["dataset"])
    if table is None:
        return {"table": None}, b""
    told, schema = told_table(table)
    return {"table": told, "size": len(schema)}, schema


_CALLS: Final = {"read": _read, "write": _write, "settle": _settle, "erase": _erase, "view": _view}


def _in_force(ask: Ask) -> InForce:
    def known(dataset: str) -> list[LakeColumn] | None:
        told = ask({"in_force": dataset})["columns"]
        return None if told is None else columns_of(told)

    return known


def _receive(incoming: BinaryIO, calls: SimpleQueue[Any]) -> None:
    """Take what ingest sends, until it ends."""
    while (message := read(incoming)) is not None:
        calls.put(message)


def _to_the_end(work: Callable[[], None]) -> None:
    """Do work with whose end this process ends at once, whichever thread does it and whatever the others do."""
    try:
        work()
    except ConnectionError:
        pass  # ingest has ended
    except BaseException:  # noqa: BLE001 - its last words: nothing outlives this
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _only_one(lock: Path) -> None:
    """Take a lock that is held until this process ends; raise BlockingIOError while another has it."""
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _open(settings: Mapping[str, Any]) -> LakeWriter:
    _only_one(Path(settings["lock"]))
    return LakeWriter(place_at(*settings["place"]), open_blocks(*settings["log"]), epoch=settings["epoch"])


def _serve(received: SimpleQueue[Any], outgoing: BinaryIO) -> None:
    """Open the lake, and answer calls for ever."""
    try:
        writer = _open(received.get())
    except Exception as error:  # noqa: BLE001 - told; ingest ends this process then
        write(outgoing, _failure(error))
        return
    write(outgoing, {"opened": True})

    def ask(question: dict[str, Any]) -> Any:
        write(outgoing, question)
        return received.get()

    while True:
        write(outgoing, *answer(writer, received.get(), ask))


def main() -> None:
    """Write the lake until ingest ends this process, or ends: even in the middle of a commit."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to every process of a service, which goes on for a while
        signal.signal(number, signal.SIG_IGN)
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is not taken for an answer
    received: SimpleQueue[Any] = SimpleQueue()
    receiving = partial(_receive, sys.stdin.buffer, received)
    threading.Thread(target=_to_the_end, args=(receiving,), daemon=True).start()
    ready(outgoing)
    _to_the_end(partial(_serve, received, outgoing))


if __name__ == "__main__":
    main()
