"""Finds what serves a verb and a path: a trie over the raw path, so that ids may hold an encoded slash or colon."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from urllib.parse import unquote

from counterfoil_gateway.api import variables
from counterfoil_gateway.problems import C, Problem


class Ending(Protocol):
    """What lies at the end of a path: the parts of its binding."""

    @property
    def verb(self) -> str:
        """Return the HTTP method."""

    @property
    def path(self) -> str:
        """Return the template, e.g. `/v1/contracts/{contract_id}`."""

    @property
    def segments(self) -> tuple[str, ...]:
        """Return literals and `{field.path}`."""

    @property
    def action(self) -> str:
        """Return what follows the colon; empty for none."""


E = TypeVar("E", bound=Ending)


@dataclass
class _Node(Generic[E]):
    literal: dict[str, _Node[E]] = field(default_factory=dict)
    variable: _Node[E] | None = None
    ends: dict[tuple[str, str], E] = field(default_factory=dict)


class Routes(Generic[E]):
    """Every path that is served."""

    def __init__(self) -> None:
        self._root: _Node[E] = _Node()

    def add(self, end: E) -> None:
        """Serve a path; raise ValueError when the verb and path are taken."""
        node = self._root
        for segment in end.segments:
            if segment.startswith("{"):
                node.variable = node.variable or _Node()
                node = node.variable
            else:
                node = node.literal.setdefault(segment, _Node())
        if (end.action, end.verb) in node.ends:
            message = f"{end.verb} {end.path} is bound twice"
            raise ValueError(message)
        node.ends[end.action, end.verb] = end

    def find(self, verb: str, raw_path: bytes) -> tuple[E, dict[str, str]]:
        """Return what serves a request, with its path variables by field path; raise Problem.

        The action is cut off the last raw segment and each segment is decoded after, so literals and variables need no
        order among them.
        """
        parts = raw_path.decode("latin-1").removeprefix("/").split("/")
        parts[-1], _, action = parts[-1].partition(":")
        allowed: set[str] = set()
        stack = [(self._root, 0)]
        while stack:
            node, at = stack.pop()
            if at == len(parts):
                if end := node.ends.get((action, verb)):
                    return end, _variables(end, parts)
                allowed |= {v for a, v in node.ends if a == action}
                continue
            if node.variable and parts[at]:
                stack.append((node.variable, at + 1))
            if child := node.literal.get(parts[at]):
                stack.append((child, at + 1))
        raise _not_allowed(verb, allowed) if allowed else Problem(C.NOT_FOUND, "no such path", "PATH_NOT_FOUND")


def _variables(end: Ending, parts: list[str]) -> dict[str, str]:
    found = (part for part, segment in zip(parts, end.segments, strict=True) if segment.startswith("{"))
    return {name: unquote(part, errors="replace") for name, part in zip(variables(end.segments), found, strict=True)}


def _not_allowed(verb: str, allowed: set[str]) -> Problem:
    text = f"{verb} is not served here"
    return Problem(C.UNIMPLEMENTED, text, "METHOD_NOT_ALLOWED", http=405, headers={"allow": ", ".join(sorted(allowed))})
