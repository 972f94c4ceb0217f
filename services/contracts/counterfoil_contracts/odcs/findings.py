"""Collects findings with their JSON paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from counterfoil_chassis.jsonpath import json_path

from counterfoil_contracts.entities import Finding

Path = tuple[str | int, ...]

MOST_FINDINGS: Final = 200


class Findings:
    """The findings of one document, in the order they were made, each once; after the 200th they are only counted."""

    def __init__(self) -> None:
        self._kept: dict[Finding, Path] = {}
        self._more = 0

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, reason: str, path: Path, detail: str) -> None:
        """Add one fault at a path of the document."""
        self._add(Finding(reason, json_path(path), detail), path)

    def add_at(self, line: int, reason: str, path: Path, detail: str) -> None:
        """Add one fault whose line is known."""
        self._add(Finding(reason, json_path(path), detail, line), path)

    def extend(self, other: Findings) -> None:
        """Add what was found elsewhere in the document."""
        for finding, path in other._kept.items():
            self._add(finding, path)
        self._more += other._more

    def _add(self, finding: Finding, path: Path) -> None:
        if len(self._kept) < MOST_FINDINGS:
            self._kept[finding] = path
        elif finding not in self._kept:
            self._more += 1

    def paths(self) -> set[Path]:
        """Return where the faults are."""
        return set(self._kept.values())

    def result(self, lines: Mapping[Path, int]) -> tuple[Finding, ...]:
        """Return what was found, each with the line of its path; the last one says how many more there are."""
        told = [replace(found, line=found.line or lines.get(path, 0)) for found, path in self._kept.items()]
        if self._more:
            told.append(Finding("TOO_MANY_FINDINGS", "$", f"{self._more} more findings; mend these first."))
        return tuple(told)
