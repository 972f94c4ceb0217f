"""Messages to JSON and back: the laws of the writer and the reader, beside protobuf's own JSON."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from counterfoil.common.v1 import options_pb2
from counterfoil_gateway.fields import is_json, is_number, map_entry
from counterfoil_gateway.read import Reader
from counterfoil_gateway.values import Faults
from counterfoil_gateway.write import Writers, shortest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    json_format,
    struct_pb2,
    timestamp_pb2,
)
from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KINDS = {
    "text": F.TYPE_STRING,
    "flag": F.TYPE_BOOL,
    "data": F.TYPE_BYTES,
    "small": F.TYPE_INT32,
    "large": F.TYPE_INT64,
    "unsigned": F.TYPE_UINT64,
    "ratio": F.TYPE_DOUBLE,
    "short_ratio": F.TYPE_FLOAT,
}
WELL_KNOWN = ("Timestamp", "Duration", "FieldMask", "Value", "Struct", "ListValue")


def declare() -> Any:
    """A message with everything the readers and writers know, in a pool of its own."""
    file = descriptor_pb2.FileDescriptorProto(name="everything.proto", package="test.v1", syntax="proto3")
    imported = (timestamp_pb2, duration_pb2, field_mask_pb2, struct_pb2, options_pb2)
    file.dependency.extend(module.DESCRIPTOR.name for module in imported)
    enum = file.enum_type.add(name="Color")
    for number, name in enumerate(("COLOR_UNSPECIFIED", "RED", "GREEN")):
        enum.value.add(name=name, number=number)
    message = file.message_type.add(name="Everything")
    number = iter(range(1, 100))

    def add(name: str, kind: int, type_name: str = "", label: int = 1, **more: Any) -> Any:
        declared = {"name": name, "number": next(number), "type": kind, "label": label, "json_name": _camel(name)}
        return message.field.add(**declared, **({"type_name": type_name} if type_name else {}), **more)

    for name, kind in KINDS.items():
        add(name, kind)
        add(f"many_{name}", kind, label=3)
    add("color", F.TYPE_ENUM, ".test.v1.Color")
    add("colors", F.TYPE_ENUM, ".test.v1.Color", label=3)
    counted = add("counted", F.TYPE_INT64)
    counted.options.jstype = 2
    any_json = add("any_json", F.TYPE_BYTES)
    any_json.options.Extensions[options_pb2.json] = True
    for name in WELL_KNOWN:
        add(f"a_{name.lower()}", F.TYPE_MESSAGE, f".google.protobuf.{name}")
    add("child", F.TYPE_MESSAGE, ".test.v1.Everything")
    add("children", F.TYPE_MESSAGE, ".test.v1.Everything", label=3)
    for key, value in (("string", "int64"), ("int32", "string"), ("bool", "Everything")):
        entry = message.nested_type.add(name=f"By{key.title()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=getattr(F, f"TYPE_{key.upper()}"), label=1)
        kind = F.TYPE_MESSAGE if value == "Everything" else getattr(F, f"TYPE_{value.upper()}")
        of = ".test.v1.Everything" if value == "Everything" else ""
        entry.field.add(name="value", number=2, type=kind, label=1, **({"type_name": of} if of else {}))
        add(f"by_{key}", F.TYPE_MESSAGE, f".test.v1.Everything.{entry.name}", label=3)
    message.oneof_decl.add(name="choice")
    add("this", F.TYPE_STRING, oneof_index=0)
    add("that", F.TYPE_INT32, oneof_index=0)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("test.v1.Everything"))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(p.title() for p in rest)


Everything = declare()
WRITE = Writers().of(Everything.DESCRIPTOR)
READER = Reader()
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**50), 2**50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    F.TYPE_STRING: st.text(),
    F.TYPE_BOOL: st.booleans(),
    F.TYPE_BYTES: st.binary(),
    F.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    F.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    F.TYPE_UINT64: st.integers(0, 2**64 - 1),
    F.TYPE_DOUBLE: st.floats(allow_nan=False),
    F.TYPE_FLOAT: st.floats(width=32, allow_nan=False),
    F.TYPE_ENUM: st.sampled_from([0, 1, 2]),
}
times = st.tuples(st.integers(-62135596800, 253402300799), st.integers(0, 999_999_999))


@st.composite
def messages(draw: Any, depth: int = 2) -> Any:
    message = Everything()
    for field in message.DESCRIPTOR.fields:
        if draw(st.integers(0, 3)):
            continue
        if field.name == "any_json":
            message.any_json = orjson.dumps(draw(json_values.filter(lambda v: v is not None)))
        elif field.name == "counted":
            message.counted = draw(st.integers(1 - 2**53, 2**53 - 1))
        elif field.message_type is None:
            values = SCALARS[field.type]
            if field.is_repeated:
                getattr(message, field.name).extend(draw(st.lists(values, max_size=3)))
            else:
                setattr(message, field.name, draw(values))
        else:
            _fill(draw, message, field, depth)
    return message


def _fill(draw: Any, message: Any, field: Any, depth: int) -> None:
    target = getattr(message, field.name)
    kind = field.message_type.name
    if kind == "Timestamp":
        target.seconds, target.nanos = draw(times)
    elif kind == "Duration":
        target.FromNanoseconds(draw(st.integers(-(10**18), 10**18)))
    elif kind == "FieldMask":
        target.paths.extend(draw(st.lists(st.from_regex(r"[a-z]+(_[a-z]+)*(\.[a-z]+)?", fullmatch=True), max_size=3)))
        target.SetInParent()
    elif kind == "Value":
        json_format.ParseDict(draw(json_values), target)
    elif kind == "Struct":
        target.update(draw(st.dictionaries(st.text(), st.booleans() | st.text(), max_size=3)))
        target.SetInParent()
    elif kind == "ListValue":
        json_format.ParseDict(draw(st.lists(json_values, max_size=3)), target)
        target.SetInParent()
    elif map_entry(field) is not None:
        _fill_map(draw, target, field, depth)
    elif depth and field.is_repeated:
        target.extend(draw(st.lists(messages(depth - 1), max_size=2)))
    elif depth:
        target.CopyFrom(draw(messages(depth - 1)))


def _fill_map(draw: Any, target: Any, field: Any, depth: int) -> None:
    key, value = (field.message_type.fields_by_name[n] for n in ("key", "value"))
    for k in draw(st.lists(SCALARS[key.type], max_size=2)):
        if value.message_type is None:
            target[k] = draw(SCALARS[value.type])
        elif depth:
            target[k].CopyFrom(draw(messages(depth - 1)))


def read(value: Any) -> tuple[Any, list[str]]:
    message, faults = Everything(), Faults()
    READER.read(message, value, faults)
    return message, [f.code for f in faults.found]


SLOW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@SLOW
@given(messages())
def test_what_is_written_reads_back_as_the_same_message(message: Any):
    again, faults = read(orjson.loads(orjson.dumps(WRITE(message))))
    assert faults == []
    assert again.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)


@SLOW
@given(messages())
def test_the_written_form_is_protobufs_own_but_for_what_is_decided_otherwise(message: Any):
    theirs = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert _same(orjson.loads(orjson.dumps(WRITE(message))), _ours(theirs, message))


def _ours(theirs: Any, message: Any) -> Any:
    """Apply the two decisions: counts are numbers, JSON fields are their value; masks keep their snake case."""
    for field in message.DESCRIPTOR.fields:
        if field.name not in theirs:
            continue
        if is_json(field):
            theirs[field.name] = orjson.loads(getattr(message, field.name) or b"null")
        elif field.type == F.TYPE_INT64 and is_number(field):
            theirs[field.name] = int(theirs[field.name])
        elif field.name == "a_fieldmask":
            theirs[field.name] = ",".join(message.a_fieldmask.paths)
        elif field.name == "child":
            theirs["child"] = _ours(theirs["child"], message.child)
        elif field.name == "children":
            theirs["children"] = [_ours(t, m) for t, m in zip(theirs["children"], message.children, strict=True)]
        elif field.name == "by_bool":
            theirs["by_bool"] = {k: _ours(v, message.by_bool[k == "true"]) for k, v in theirs["by_bool"].items()}
    return theirs


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_same(v, theirs[k]) for k, v in ours.items())
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    return type(ours) is bool is type(theirs) and ours == theirs if isinstance(ours, bool) else ours == theirs


@SLOW
@given(json_values)
def test_any_json_is_read_or_refused_and_never_an_accident(value: Any):
    _, faults = read(value)
    assert isinstance(value, dict) or faults == ["type"]


@SLOW
@given(st.dictionaries(st.sampled_from([f.name for f in Everything.DESCRIPTOR.fields]), json_values, max_size=4))
def test_any_value_in_any_field_is_read_or_refused_with_its_path(value: dict[str, Any]):
    faults = Faults()
    READER.read(Everything(), value, faults)
    for fault in faults.found:
        assert fault.field.split(".")[0].split("[")[0] in value
        assert fault.code
        assert fault.detail


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"small": "1_0"}, "type"),
        ({"small": " 1"}, "type"),
        ({"small": "١"}, "type"),
        ({"small": True}, "type"),
        ({"small": 2**31}, "range"),
        ({"small": 1.5}, "type"),
        ({"small": 1e400}, "type"),
        ({"large": str(2**63)}, "range"),
        ({"counted": 2**53}, "range"),
        ({"counted": str(2**53)}, "range"),
        ({"ratio": "1_0"}, "type"),
        ({"ratio": "inf"}, "type"),
        ({"ratio": "nan"}, "type"),
        ({"ratio": "1e999"}, "range"),
        ({"ratio": False}, "type"),
        ({"short_ratio": 1e39}, "range"),
        ({"flag": "true"}, "type"),
        ({"flag": 1}, "type"),
        ({"text": 1}, "type"),
        ({"text": "\ud800"}, "type"),
        ({"text": None}, "null"),
        ({"data": "é"}, "type"),
        ({"data": "a"}, "type"),
        ({"color": 1}, "enum"),
        ({"color": "BLUE"}, "enum"),
        ({"colors": ["RED", "BLUE"]}, "enum"),
        ({"colors": "RED"}, "type"),
        ({"child": []}, "type"),
        ({"children": [{}, 1]}, "type"),
        ({"by_string": []}, "type"),
        ({"by_string": {"a": None}}, "null"),
        ({"by_int32": {"x": "a"}}, "type"),
        ({"by_bool": {"yes": {}}}, "type"),
        ({"a_timestamp": "yesterday"}, "format"),
        ({"a_timestamp": "2026-01-01"}, "format"),
        ({"a_timestamp": 7}, "format"),
        ({"a_duration": "1"}, "format"),
        ({"a_fieldmask": "a,b c"}, "format"),
        ({"a_fieldmask": ["a"]}, "type"),
        ({"a_struct": []}, "type"),
        ({"a_listvalue": {}}, "type"),
        ({"this": "a", "that": 1}, "oneof"),
        ({"many_text": ["a"], "manyText": ["b"]}, "duplicate"),
        ({"nothing": 1}, "unknown_field"),
    ],
)
def test_what_python_or_json_would_let_pass_is_refused(value: Any, code: str):
    assert read(value)[1] == [code]


def test_faults_have_the_path_of_their_value():
    faults = Faults()
    value = {"children": [{}, {"child": {"by_bool": {"true": {"small": "x"}}}}], "manyLarge": [1, "y"]}
    READER.read(Everything(), value, faults)
    assert [f.field for f in faults.found] == ["children[1].child.by_bool['true'].small", "manyLarge[1]"]


def test_numbers_json_cannot_hold_are_spelled():
    message = Everything(ratio=math.nan, many_ratio=[math.inf, -math.inf, 0.1])
    assert WRITE(message)["ratio"] == "NaN"
    assert WRITE(message)["many_ratio"] == ["Infinity", "-Infinity", 0.1]


@given(st.floats(width=32, allow_nan=False))
def test_a_short_float_has_the_fewest_digits_that_are_the_same_float(value: float):
    assert read({"short_ratio": shortest(value)})[0].short_ratio == value


def test_some_short_floats_need_nine_digits():
    assert shortest(1038869038366720.0) == 1.03886904e15


@given(st.binary(max_size=40))
def test_base64_is_read_in_either_alphabet_and_without_padding(data: bytes):
    import base64

    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data), base64.b64encode(data).rstrip(b"=")):
        assert read({"data": text.decode()})[0].data == data


def test_query_text_sets_scalars_lists_and_dotted_paths():
    message, faults = Everything(), Faults()
    for name, values in {
        "flag": ["true"],
        "many_small": ["1", "2"],
        "child.text": ["x"],
        "child.aTimestamp": ["2026-01-01T00:00:00Z"],
        "any_json": ["[1, 2]"],
        "color": ["RED"],
    }.items():
        READER.from_text(message, name, values, faults)
    assert faults.found == []
    assert (message.flag, list(message.many_small), message.child.text, message.color) == (True, [1, 2], "x", 1)
    assert message.child.a_timestamp.seconds == 1767225600
    assert message.any_json == b"[1,2]"


@pytest.mark.parametrize(
    ("name", "values", "code"),
    [
        ("none", ["1"], "unknown_parameter"),
        ("child", ["1"], "unknown_parameter"),
        ("children.text", ["1"], "unknown_parameter"),
        ("text.length", ["1"], "unknown_parameter"),
        ("closed", ["1"], "unknown_parameter"),
        ("child.child", ["1"], "unknown_parameter"),
        ("a_struct", ["{}"], "unknown_parameter"),
        ("small", ["1", "2"], "duplicate"),
        ("small", ["x"], "type"),
        ("flag", ["yes"], "type"),
        ("any_json", ["{"], "format"),
        ("", ["1"], "unknown_parameter"),
    ],
)
def test_query_text_that_names_or_holds_nothing_fit_is_refused(name: str, values: list[str], code: str):
    faults = Faults()
    READER.from_text(Everything(), name, values, faults, closed=frozenset({"closed"}))
    assert [f.code for f in faults.found] == [code]
