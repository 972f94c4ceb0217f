"""The lines on which the parts of a document stand."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

import yaml

from counterfoil_contracts.odcs.findings import Path
from counterfoil_contracts.odcs.yaml_values import LOADER

_MOST_DEPTH: Final = 128


def lines_of(text: str, paths: Collection[Path]) -> Mapping[Path, int]:
    """Return the line, from 1, of the key or item at each path, or of the nearest part around it that is there.

    The text may be anything: of one that is neither YAML nor JSON the paths before the fault get their lines.
    """
    wanted = {path[:length] for path in paths for length in range(len(path) + 1)}
    lines: dict[Path, int] = {(): 1}
    if any(paths):
        # JSON may be indented by tabs, where YAML may not; inside its strings a tab is written as an escape.
        events = _Events(text.replace("\t", " ") if text.lstrip()[:1] == "{" else text, wanted)
        lines |= events.lines()
    return {
        path: next(lines[path[:length]] for length in range(len(path), -1, -1) if path[:length] in lines)
        for path in paths
    }


class _Events:
    """One pass over the events of a text, which enters only what leads to the paths that are wanted."""

    def __init__(self, text: str, wanted: Collection[Path]) -> None:
        self._text = text
        self._wanted = wanted
        self._lines: dict[Path, int] = {}

    def lines(self) -> Mapping[Path, int]:
        """Return the lines of the wanted paths that are there."""
        events = yaml.parse(self._text, Loader=LOADER)
        try:
            for event in events:
                if isinstance(event, yaml.NodeEvent):
                    self._value(event, events, ())
                    break
        except (yaml.YAMLError, UnicodeError):
            return self._lines
        return self._lines

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> None:
        if not isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            return
        if path not in self._wanted or len(path) > _MOST_DEPTH:
            _skip(events)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._sequence(events, path)
        else:
            self._mapping(events, path)

    def _sequence(self, events: Iterator[yaml.Event], path: Path) -> None:
        index = 0
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            self._note((*path, index), item)
            self._value(item, events, (*path, index))
            index += 1

    def _mapping(self, events: Iterator[yaml.Event], path: Path) -> None:
        while not isinstance(key := next(events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                if isinstance(key, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                    _skip(events)
                key_path: Path = (*path, "")
            else:
                key_path = (*path, key.value)
                self._note(key_path, key)
            self._value(next(events), events, key_path)

    def _note(self, path: Path, event: yaml.Event) -> None:
        if path in self._wanted:
            mark = event.start_mark
            self._lines[path] = mark.line + 1 if mark is not None else 0


def _skip(events: Iterator[yaml.Event]) -> None:
    """Pass over the rest of a collection that has begun."""
    depth = 1
    while depth:
        event = next(events)
        if isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            depth += 1
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            depth -= 1
