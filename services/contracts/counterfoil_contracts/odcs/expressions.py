"""Expressions over a record in the Common Expression Language (CEL): checked when a contract is, evaluated here too.

An expression may come from anybody who writes contracts, and records from anybody who has a write key. So what a rule
may cost is bounded when it is compiled: its length, how much it can make of a text by adding it to itself, and whether
it compares items of an array with the rest of the record. CEL's own bounds (depth, iterations) hold as well.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson
from cel_expr_python import cel

RECORD: Final = "record"
VALUE: Final = "value"
LONGEST: Final = 2_000
"""Characters of one expression."""
MOST_GROWTH: Final = 128
"""How many times its size an expression may make of a value."""

_MACROS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})
_TOKEN: Final = re.compile(
    r"(?P<comment>//[^\n]*)"
    r"|(?P<text>[bBrR]{0,2}(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''|\"(?:[^\\\"]|\\.)*\"|'(?:[^\\']|\\.)*'))"
    r"|(?P<field>\.\s*[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark>[^\s\w])",
    re.DOTALL,
)
_LITERAL: Final = re.compile(
    r"//[^\n]*|(?<![\w.])(?P<number>\d{1,15}(?:\.\d{1,15})?)(?![\w.])|'(?P<plain>[^'\\]*)'|\"(?P<quoted>[^\"\\]*)\""
)
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED: Final = frozenset(
    {"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop"}
    | {"namespace", "null", "package", "return", "true", "var", "void", "while"}
)
_CONSTANTS: Final = frozenset({"true", "false", "null", "in"})
_PLACE: Final = re.compile(r"<input>:(-?\d+):(-?\d+): ")


class Each(enum.Enum):
    """A step of a path to any item of an array, or to any value of a map."""

    ITEM = "item"
    VALUE = "value"


Step: TypeAlias = str | Each


class ExpressionError(Exception):
    """The expression cannot be used; the message says why."""


@dataclass(frozen=True)
class Expression:
    """An expression that compiles; `crossing` when its cost may grow with the square of a record's size."""

    text: str
    crossing: bool


def checked(text: str, *, of_value: bool) -> Expression:
    """Return an expression over `record` (and `value`, where it is about a property); raise ExpressionError."""
    if len(text) > LONGEST:
        raise ExpressionError(f"It is longer than {LONGEST} characters. Split the rule.")
    names = {RECORD, VALUE} if of_value else {RECORD}
    kind = _compile(text, frozenset(names)).return_type()
    if kind not in (cel.Type.BOOL, cel.Type.DYN):
        raise ExpressionError(f"It is of type {kind.name().lower()}. A rule is true or false.")
    body = _words(text)
    loops = sum(_is_loop(body, at) for at in range(len(body)))
    if (_growing(body) + 1) ** (loops + 1) > MOST_GROWTH:
        raise ExpressionError(
            "It adds or lists too much within its loops, and could make much of a small record. Split it."
        )
    return Expression(text, crossing=_is_crossing(body))


def over_values(expression: Expression, path: Sequence[Step]) -> Expression:
    """Return an expression over `record` that holds one over `value` against every value at a path.

    What is absent or null, there or on the way, is skipped.
    """

    def leaf(value: str) -> str:
        return f"[{value}].all({VALUE}, (\n{expression.text}\n))"

    mentions_record = any(word == RECORD for word in _words(expression.text))
    repeated = any(isinstance(step, Each) for step in path)
    text = _through(RECORD, path, leaf, depth=0)
    _compile(text, frozenset({RECORD}))
    return Expression(text, crossing=expression.crossing or (mentions_record and repeated))


def _through(container: str, path: Sequence[Step], leaf: Callable[[str], str], *, depth: int) -> str:
    """Return what goes on from a container, which is there and not null."""
    if not path:
        return leaf(container)
    step, rest = path[0], path[1:]
    if isinstance(step, Each):
        loop = f"_{depth}"
        value = loop if step is Each.ITEM else f"{container}[{loop}]"
        return f"{container}.all({loop}, {value} == null || {_through(value, rest, leaf, depth=depth + 1)})"
    if _PLAIN_NAME.fullmatch(step) and step not in _RESERVED:
        there, value = f"has({container}.{step})", f"{container}.{step}"
    else:
        name = orjson.dumps(step).decode()
        there, value = f"({name} in {container})", f"{container}[{name}]"
    return f"(!{there} || {value} == null || {_through(value, rest, leaf, depth=depth)})"


def holds(text: str, record: Mapping[str, Any]) -> bool:
    """Tell whether an expression over `record` is true of one; what cannot be evaluated is not."""
    try:
        value = _compile(text, frozenset({RECORD})).eval(data={RECORD: record})
    except RuntimeError:  # too many iterations, or a text that is no Unicode
        return False
    return value.type() == cel.Type.BOOL and value.value() is True


def literals(text: str) -> list[float | str]:
    """Return the numbers and plain texts that an expression names: what tells its cases apart."""
    found: list[float | str] = []
    for match in _LITERAL.finditer(text):
        number, plain = match["number"], match["plain"] or match["quoted"]
        if number is not None:
            found.append(float(number) if "." in number else int(number))
        elif plain is not None:
            found.append(plain)
    return found


@functools.lru_cache(maxsize=1_000)
def _compile(text: str, names: frozenset[str]) -> cel.Expression:
    try:
        return _environment(names).compile(text)
    except RuntimeError as error:
        raise ExpressionError(_reason(str(error))) from None


@functools.cache
def _environment(names: frozenset[str]) -> cel.Env:
    types = {RECORD: cel.Type.Map(cel.Type.STRING, cel.Type.DYN), VALUE: cel.Type.DYN}
    return cel.NewEnv(variables={name: types[name] for name in names})


def _reason(message: str) -> str:
    """Return what the compiler says first, without its own frame and the source that it repeats."""
    line = message.split("\n", 1)[0].removeprefix("INVALID_ARGUMENT: ").removeprefix("CANCELLED: ")
    line = line.removeprefix("ERROR: ").removesuffix(" [CANCELLED]").removesuffix(" [INVALID_ARGUMENT]")
    place = _PLACE.match(line)
    where = f"Line {place[1]}, column {place[2]}: " if place and int(place[1]) > 0 else ""
    return f"{where}{line[place.end() if place else 0 :][:300].rstrip('.')}."


def _words(text: str) -> list[str]:
    """Return the names, `.fields` and marks of an expression that compiles, without comments and texts."""
    found = (match for match in _TOKEN.finditer(text) if match.lastgroup not in ("comment", "text"))
    return ["".join(match.group().split()) for match in found]


def _is_loop(words: Sequence[str], at: int) -> bool:
    return words[at].startswith(".") and words[at][1:] in _MACROS and words[at + 1 : at + 2] == ["("]


def _growing(words: Sequence[str]) -> int:
    """Return how often an expression makes more of values: adds, or puts what has a name into a list or a map."""
    count, literals_open = 0, 0
    opened: list[bool] = []
    for at, word in enumerate(words):
        if word in ("(", "[", "{"):
            before = words[at - 1] if at else ""
            is_index = before in (")", "]") or (before != "in" and before[-1:].isidentifier())
            opened.append(word == "{" or (word == "[" and not is_index))
            literals_open += opened[-1]
        elif word in (")", "]", "}"):
            literals_open -= opened.pop()
        elif word == "+" or (literals_open and word.isidentifier() and word not in _CONSTANTS):
            count += 1
    return count


def _is_crossing(words: Sequence[str]) -> bool:
    """Tell whether the body of a loop looks at anything but its own item."""
    open_marks: list[str | None] = []  # per open bracket: the variable of the loop that it belongs to
    bodies: list[tuple[int, str]] = []  # per loop whose body this is: how deep it lies, and its variable
    outer = {RECORD, VALUE}
    for at, word in enumerate(words):
        if word in ("(", "[", "{"):
            variable = words[at + 1] if at and word == "(" and _is_loop(words, at - 1) else None
            open_marks.append(variable)
        elif word in (")", "]", "}"):
            open_marks.pop()
            while bodies and bodies[-1][0] > len(open_marks):
                bodies.pop()
        elif word == "," and open_marks[-1] is not None and (not bodies or bodies[-1][0] < len(open_marks)):
            bodies.append((len(open_marks), open_marks[-1]))
        elif bodies and word != bodies[-1][1] and word in outer | {variable for _, variable in bodies}:
            return True
    return False
