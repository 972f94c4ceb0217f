"""What is kept of a query with a receipt: the question, so that its result can be made again from the same records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from counterfoil_ingest.masking import Mask, MaskedField
from counterfoil_ingest.queries import Cited
from counterfoil_ingest.snapshots import Snapshot


@dataclass(frozen=True)
class Question:
    """A query as it was asked and what it saw. `pseudonyms` tells the key that its pseudonyms were made with."""

    sql: str
    parameters: bytes
    max_rows: int
    pseudonyms: str
    cited: Mapping[str, Cited]


class QueryReceipts(Protocol):
    """The receipts of queries."""

    async def add(self, workspace: str, receipt_id: str, receipt: bytes, question: Question) -> None:
        """Keep a receipt with its question, and have the ledger told, together."""

    async def get(self, workspace: str, receipt_id: str) -> tuple[bytes, Question | None]:
        """Return a receipt and its question, None once an erasure has taken it; raise ReceiptNotFoundError."""

    async def forget(self, workspace: str, texts: Sequence[str]) -> int:
        """Erase the questions that hold one of the texts; return how many there were."""


def question_json(question: Question) -> bytes:
    """Return a question as it is stored."""
    cited = {
        name: {
            "snapshot": {
                "dataset": each.snapshot.dataset,
                "offsets": {str(partition): offset for partition, offset in each.snapshot.offsets.items()},
                "log_epoch": each.snapshot.log_epoch,
                "erasure_revision": each.snapshot.erasure_revision,
            },
            "columns": each.columns,
            "masked": [[field.path, field.classification, int(field.mask)] for field in each.masked],
        }
        for name, each in question.cited.items()
    }
    return orjson.dumps(
        {
            "sql": question.sql,
            "parameters": question.parameters.decode(),
            "max_rows": question.max_rows,
            "pseudonyms": question.pseudonyms,
            "cited": cited,
        }
    )


def question_of(text: bytes) -> Question:
    """Read a stored question."""
    document: dict[str, Any] = orjson.loads(text)
    cited = {
        name: Cited(
            Snapshot(
                each["snapshot"]["dataset"],
                {int(partition): offset for partition, offset in each["snapshot"]["offsets"].items()},
                each["snapshot"]["log_epoch"],
                each["snapshot"]["erasure_revision"],
            ),
            tuple(each["columns"]),
            tuple(MaskedField(name, path, of, Mask(mask)) for path, of, mask in each["masked"]),
        )
        for name, each in document["cited"].items()
    }
    parameters = document["parameters"].encode()
    return Question(document["sql"], parameters, document["max_rows"], document["pseudonyms"], cited)
