"""Checks a document from its text to its compiled datasets."""

from __future__ import annotations

from dataclasses import replace

from counterfoil_contracts.entities import CheckedDocument
from counterfoil_contracts.odcs.compiler import compile_dataset
from counterfoil_contracts.odcs.documents import read_document
from counterfoil_contracts.odcs.findings import Findings
from counterfoil_contracts.odcs.lines import lines_of
from counterfoil_contracts.odcs.monitors import compile_monitors
from counterfoil_contracts.odcs.names import check_datasets, check_head
from counterfoil_contracts.odcs.official import check_officially


def check_document(text: str) -> CheckedDocument:
    """Return every finding of an ODCS document and, when there is none, what it compiles to.

    A text that cannot be read has only those findings; one that breaks the official schema only those, since our own
    rules stand on it. One that breaks our own rules alone can be stored, but not come into force. It may take a
    second for the largest documents: run it in a thread.
    """
    found = Findings()
    document = read_document(text, found)
    if not found:
        check_officially(document, found)
    if found:
        return CheckedDocument(found.result(lines_of(text, found.paths())))
    check_head(document, found)
    storable = not found
    datasets = document.get("schema", [])
    check_datasets(datasets, found)
    compiled = []
    for index, node in enumerate(datasets):
        own = Findings()
        if (dataset := compile_dataset(node, ("schema", index), own)) is not None:
            compiled.append(dataset)
        found.extend(own)
    monitors = compile_monitors(document, found)
    return CheckedDocument(
        findings=found.result(lines_of(text, found.paths())),
        contract_id=document["id"],
        version=document["version"],
        display_name=document.get("name") or document["id"],
        storable=storable,
        compiled=tuple(replace(each, monitors=monitors[each.dataset]) for each in compiled),
    )
