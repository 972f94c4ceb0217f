"""Every annotated public RPC answers alike by REST and by gRPC.

The same story is told in two fresh workspaces, once through each door; the answers must be the same but for what
`Normaliser` names. What only reads is then asked again through the other door and must not differ at all.
"""

import re
from typing import Any

import pytest
from counterfoil.ingest.v1 import imports_pb2

from tests.system.doors import GrpcDoor, RestDoor, annotated_methods, public_methods, to_json
from tests.system.installation import Installation
from tests.system.story import EXCEPTIONS, World
from tests.system.tenant import sales_csv
from tests.system.trust_story import WHOLE_STORY

VOLATILE = {
    "last_four": "part of a random key",
    "write_key_last_four": "part of a random key",
    "trace_id": "one per request",
    "next_page_token": "signed for one workspace",
    "etag": "one per change",
    "tree_size": "other entries of the audit log may have come before",
    "leaf_sha256": "over times and ids",
    "root_sha256": "over times and ids",
    "from_root_sha256": "over times and ids",
    "to_root_sha256": "over times and ids",
    "hashes": "over times and ids",
    "note": "over times and ids",
    "verifier_key": "holds a hash of the workspace",
    "index": "other entries of the audit log may have come before",
    "payload_sha256": "over ids",
    "output_sha256": "over ids",
    "expected_sha256": "over ids",
    "actual_sha256": "over ids",
}
"""Fields that differ between two runs by their nature, and why."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|(?<=(?:merge|split)-)[0-9a-f]{32}")
_KEY = re.compile(r"cf[kw]_[A-Za-z0-9_-]{43}")
_NOW = re.compile(r"20(?:2[6-9]|[3-9]\d)-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")  # the story's own data is of 2025


class Normaliser:
    """Puts names in place of ids, keys, times and the workspace; the same id gets the same name everywhere."""

    def __init__(self, workspace: str) -> None:
        self._workspace = workspace
        self._ids: dict[str, str] = {}

    def __call__(self, value: Any, name: str = "") -> Any:
        if name in VOLATILE and value:
            return f"<{name}>"
        if isinstance(value, dict):
            return {key: self(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        return self._text(value) if isinstance(value, str) else value

    def _text(self, value: str) -> str:
        value = _KEY.sub("<key>", value.replace(self._workspace, "<workspace>"))
        value = _NOW.sub("<time>", value)
        return _ID.sub(lambda found: self._ids.setdefault(found[0], f"<id {len(self._ids)}>"), value)


@pytest.fixture(scope="module")
def compared(worlds: tuple[World, World]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answers of both tellings, normalised in the order in which they were given."""
    by_rest, by_grpc = ((Normaliser(world.workspace), world.answers) for world in worlds)
    return by_rest[0](by_rest[1]), by_grpc[0](by_grpc[1])


def test_every_public_method_is_compared_or_stands_in_the_table_of_exceptions():
    assert WHOLE_STORY.keys() == annotated_methods().keys()
    assert EXCEPTIONS.keys() == public_methods().keys() - annotated_methods().keys()
    assert all(EXCEPTIONS.values())


@pytest.mark.parametrize("name", annotated_methods())
def test_answers_the_same_by_rest_and_by_grpc(name: str, compared: tuple[dict[str, Any], dict[str, Any]]):
    by_rest, by_grpc = compared
    assert by_rest[name] == by_grpc[name]


@pytest.mark.parametrize(
    "name", [name for name, method in annotated_methods().items() if method.bindings[0].verb == "GET"]
)
def test_reads_the_very_same_through_the_other_door(
    name: str, worlds: tuple[World, World], rest_door: RestDoor, grpc_door: GrpcDoor
):
    method = annotated_methods()[name]
    for world in worlds:
        request = world.requests[name]
        by_rest = rest_door.call(method, request, key=world.tenant.key)
        by_grpc = grpc_door.call(method, request, key=world.tenant.key)
        assert by_rest.keys() >= {field.name for field in method.output.DESCRIPTOR.fields if not field.has_presence}
        assert _without_tokens(by_rest) == _without_tokens(by_grpc)


def _without_tokens(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "next_page_token"}


def test_imports_the_same_by_rest_and_by_grpc(worlds: tuple[World, World], installation: Installation):
    by_rest = worlds[0].answers["upload"]
    header = imports_pb2.ImportHeader(dataset="sales", format=imports_pb2.Import.CSV, file_name="sales.csv")
    parts = [
        imports_pb2.UploadImportRequest(header=header),
        imports_pb2.UploadImportRequest(chunk=sales_csv(140)),
        imports_pb2.UploadImportRequest(end=imports_pb2.ImportEnd()),
    ]
    method = public_methods()["ImportService/UploadImport"]
    with installation.channel() as channel:
        upload = channel.stream_unary(
            method.name,
            request_serializer=method.input.SerializeToString,
            response_deserializer=method.output.FromString,
        )
        answer = to_json(upload(iter(parts), timeout=30, metadata=(("x-api-key", worlds[0].tenant.key),)))
    same = ("dataset", "format", "file_name", "file_bytes", "file_sha256", "created_by")
    assert {name: answer[name] for name in same} == {name: by_rest[name] for name in same}
