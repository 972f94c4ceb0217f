"""Field rules of requests (buf.validate), checked in every service: a rule checked only at the door is no rule."""

from __future__ import annotations

import protovalidate
from google.protobuf.message import Message

from counterfoil_chassis.errors import BadFieldError, FieldViolation


def check_fields(request: Message) -> None:
    """Raise BadFieldError with every fault when the request breaks a rule of its protos."""
    found = protovalidate.collect_violations(request)
    if found:
        violations = [
            FieldViolation(
                field=_path(each.proto.field), reason=_reason(each.proto.rule_id), description=each.proto.message
            )
            for each in found
        ]
        names = ", ".join(dict.fromkeys(violation.field or "request" for violation in violations))
        raise BadFieldError(f"correct the fields: {names}", violations=violations)


def warm(request: type[Message]) -> None:
    """Compile the rules of a request type now; the first check would take milliseconds."""
    protovalidate.collect_violations(request())


def _path(path: protovalidate.FieldPathPb | None) -> str:
    text = ""
    for element in path.elements if path else ():
        text += f".{element.field_name}" if text else element.field_name
        if element.subscript is not None:
            value = element.subscript.value
            text += f'["{value}"]' if isinstance(value, str) else f"[{value}]"
    return text


def _reason(rule_id: str) -> str:
    return rule_id.upper().replace(".", "_").replace("-", "_") or "INVALID"
