"""The operations of the schema registry's API: how each asks its method, and what clients are told of the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import orjson
from counterfoil.contracts.v1 import schemas_pb2 as pb
from google.protobuf.message import Message

from counterfoil_gateway.problems import C, Problem

ALL: Final = -1
"""How clients ask for a list without a limit."""
_TRUE: Final = frozenset({"true", "1", "yes"})
_POLICIES: Final = {"strict": "confluent_strict", "lenient": "confluent_lenient"}
"""How Confluent's registry names its policies."""


@dataclass(frozen=True)
class Asked:
    """A request: the variables of its path, its parameters, its body."""

    found: Mapping[str, str]
    query: Sequence[tuple[str, str]]
    body: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """Return the subject; empty where the path names none."""
        return self.found.get("subject", "")

    @property
    def version(self) -> str:
        """Return the version; empty where the path names none."""
        return self.found.get("version", "")

    def text(self, name: str) -> str:
        """Return a parameter's last value; empty when it is not there."""
        return next((value for key, value in reversed(self.query) if key == name), "")

    def flag(self, *names: str) -> bool:
        """Say whether one of the parameters is true, in whichever case."""
        return any(self.text(name).lower() in _TRUE for name in names)

    def number(self, name: str, default: int) -> int:
        """Return a whole number; raise Problem when it is none."""
        return _number(self.text(name) or str(default), name)


@dataclass(frozen=True)
class Operation:
    """One verb and path: the method behind it, how it is asked, and what is made of its answer."""

    verb: str
    path: str
    """After the prefix."""
    rpc: str
    summary: str
    request: Callable[[Asked], Message] | None
    """None = the answer is known."""
    answer: Callable[[Any, Asked], Any]
    name: str = ""
    """In the API document; the method's, if it is empty."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    has_body: bool = False
    pages: bool = False
    """Whether the method returns a part of a list: clients ask for all of it."""
    action: str = ""

    @property
    def segments(self) -> tuple[str, ...]:
        """Return literals and `{variable}`."""
        return tuple(self.path.removeprefix("/").split("/"))


def schema_json(schema: pb.Schema) -> dict[str, Any]:
    """Return a schema as clients of registries know it."""
    found: dict[str, Any] = {"schemaType": schema.schema_type, "schema": schema.text, "guid": schema.guid}
    if schema.references:
        found["references"] = [
            {"name": each.name, "subject": each.subject, "version": each.version} for each in schema.references
        ]
    for name, raw in (("metadata", schema.metadata), ("ruleSet", schema.rule_set)):
        if raw:
            found[name] = orjson.loads(raw)
    return found


def _version_json(version: pb.SchemaVersion, _asked: Asked) -> dict[str, Any]:
    named_so = {"subject": version.subject, "version": version.version, "id": version.schema.schema_id}
    return {**named_so, **schema_json(version.schema), **({"deleted": True} if version.deleted else {})}


def _schema_json(schema: pb.Schema, _asked: Asked) -> dict[str, Any]:
    return schema_json(schema)


def _number(text: str, name: str) -> int:
    plain = text.removeprefix("-")
    if not (plain.isascii() and plain.isdigit()) or len(plain) > 10 or int(plain) >= 1 << 31:
        raise Problem(C.INVALID_ARGUMENT, f"{name} is not a whole number below 2^31", "BAD_FIELD")
    return int(text)


def _new(body: Mapping[str, Any]) -> pb.NewSchema:
    """Return the schema of a body; a request that names no type means Avro."""
    try:
        schema = pb.NewSchema(
            schema_type=body.get("schemaType") or "AVRO",
            text=body["schema"],
            metadata=_raw(body.get("metadata")),
            rule_set=_raw(body.get("ruleSet") or body.get("ruleset")),
        )
        for each in body.get("references") or ():
            schema.references.add(name=each["name"], subject=each["subject"], version=each["version"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = (
            "the body is an object of `schema` and `schemaType` (texts), `references` (objects of name, subject and "
            f"version), `metadata` and `ruleSet`; this one is not: {error}"
        )
        raise Problem(C.INVALID_ARGUMENT, text, "BAD_FIELD") from None
    return schema


def _raw(value: Any) -> bytes:
    return b"" if value is None else orjson.dumps(value)


def _schema_id(asked: Asked) -> int:
    return _number(asked.found["schema_id"], "the id")


def schema_request(asked: Asked) -> Message:
    """Return the request for a schema by its id; raise Problem when that is no number."""
    return pb.GetSchemaRequest(schema_id=_schema_id(asked))


def _register(asked: Asked) -> Message:
    given = {name: asked.body.get(name) or 0 for name in ("id", "version")}
    if not all(type(each) is int and -1 <= each < 1 << 31 for each in given.values()):
        raise Problem(C.INVALID_ARGUMENT, "id and version are whole numbers", "BAD_FIELD")
    return pb.RegisterSchemaVersionRequest(
        subject=asked.subject,
        schema=_new(asked.body),
        normalize=asked.flag("normalize"),
        schema_id=max(given["id"], 0),
        version=max(given["version"], 0),
    )


def _check(asked: Asked) -> Message:
    return pb.CheckSchemaRequest(
        subject=asked.subject, version=asked.version, schema=_new(asked.body), normalize=asked.flag("normalize")
    )


def _checked(answer: pb.CheckSchemaResponse, asked: Asked) -> dict[str, Any]:
    messages = {"messages": list(answer.messages)} if asked.flag("verbose") else {}
    return {"is_compatible": answer.compatible, **messages}


def _with_metadata(asked: Asked) -> Message:
    keys = [value for key, value in asked.query if key == "key"]
    values = [value for key, value in asked.query if key == "value"]
    if len(keys) != len(values):
        raise Problem(C.INVALID_ARGUMENT, "each key has a value", "BAD_FIELD")
    return pb.FindLatestSchemaVersionRequest(
        subject=asked.subject, properties=dict(zip(keys, values, strict=True)), deleted=asked.flag("deleted")
    )


def _set_config(asked: Asked) -> Message:
    body = asked.body
    unknown = [name for name in _CONFIG_ELSEWHERE if body.get(name) is not None]
    if unknown:
        text = f"{', '.join(unknown)}: not kept here; leave it out"
        raise Problem(C.INVALID_ARGUMENT, text, "BAD_FIELD")
    request = pb.SetSubjectConfigRequest(subject=asked.subject)
    level = body.get("compatibility") or body.get("compatibilityLevel")
    if level is not None:
        request.level = _enum(pb.CompatibilityLevel, "COMPATIBILITY_LEVEL_", level)
    policy = body.get("compatibilityPolicy")
    if policy is not None:
        request.policy = _enum(pb.CompatibilityPolicy, "COMPATIBILITY_POLICY_", policy)
    if isinstance(body.get("normalize"), bool):
        request.normalize = body["normalize"]
    if isinstance(body.get("compatibilityGroup"), str):
        request.compatibility_group = body["compatibilityGroup"]
    return request


_CONFIG_ELSEWHERE: Final = (
    "alias", "defaultMetadata", "overrideMetadata", "defaultRuleSet", "overrideRuleSet", "validateFields",
    "validateNames", "validateRules",
)  # fmt: skip
"""What other registries take in a configuration."""


def _enum(kind: Any, prefix: str, value: Any) -> Any:
    """Return a level or policy by its name; raise Problem 42203."""
    text = str(value)
    name = prefix + _POLICIES.get(text.lower(), text).upper()
    known = [each.name for each in kind.DESCRIPTOR.values if each.number]
    if name not in known:
        names = ", ".join(each.removeprefix(prefix) for each in known)
        raise Problem(C.INVALID_ARGUMENT, f"{text[:80]!r} is none of {names}", "COMPATIBILITY_LEVEL_INVALID")
    return kind.Value(name)


def _config(key: str) -> Callable[[pb.SubjectConfig, Asked], dict[str, Any]]:
    def answer(config: pb.SubjectConfig, _asked: Asked) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if config.level:
            found[key] = pb.CompatibilityLevel.Name(config.level).removeprefix("COMPATIBILITY_LEVEL_")
        if config.policy:
            policy = pb.CompatibilityPolicy.Name(config.policy).removeprefix("COMPATIBILITY_POLICY_")
            found["compatibilityPolicy"] = policy.lower()
        if config.HasField("normalize"):
            found["normalize"] = config.normalize
        if config.compatibility_group:
            found["compatibilityGroup"] = config.compatibility_group
        return found

    return answer


def _set_mode(asked: Asked) -> Message:
    mode = asked.body.get("mode")
    known = [each.name for each in pb.SubjectMode.Mode.DESCRIPTOR.values if each.number]
    if mode not in known:
        text = f"{str(mode)[:80]!r} is none of {', '.join(known)}"
        raise Problem(C.INVALID_ARGUMENT, text, "SUBJECT_MODE_INVALID")
    value = pb.SubjectMode.Mode.Value(cast("str", mode))
    return pb.SetSubjectModeRequest(subject=asked.subject, mode=value, force=asked.flag("force"))


def _mode(mode: pb.SubjectMode, _asked: Asked) -> dict[str, Any]:
    return {"mode": pb.SubjectMode.Mode.Name(mode.mode)}


def _deletion(asked: Asked) -> Message:
    permanent = asked.flag("permanent")
    if not asked.version:
        return pb.DeleteSchemaSubjectRequest(subject=asked.subject, permanent=permanent)
    return pb.DeleteSchemaVersionRequest(subject=asked.subject, version=asked.version, permanent=permanent)


def _version(asked: Asked) -> Message:
    deleted = asked.flag("deleted")
    return pb.GetSchemaVersionRequest(subject=asked.subject, version=asked.version, deleted=deleted)


def _of_schema(asked: Asked) -> Message:
    return pb.ListVersionsOfSchemaRequest(
        schema_id=_schema_id(asked), subject=asked.text("subject"), deleted=asked.flag("deleted")
    )


_DELETED: Final = {"deleted": "Whether those that were softly deleted count, too."}
_ONLY: Final = {**_DELETED, "deletedOnly": "Whether those alone count.", "deleted_only": "The same."}
_PAGE: Final = {"offset": "How many to leave out.", "limit": "At most this many; -1 = all."}
_PERMANENT: Final = {"permanent": "For good; it has to be softly deleted."}
_NORMALIZE: Final = {"normalize": "Whether its canonical form counts."}
_GLOBAL: Final = {"defaultToGlobal": "Return what holds where the subject says nothing itself."}
_VERBOSE: Final = {**_NORMALIZE, "verbose": "Say what is not compatible, with a record that shows it."}
_FORCE: Final = {"force": "Begin to import although there are schemas."}

_LIST_VERSIONS: Final = Operation(
    "GET",
    "/subjects/{subject}/versions",
    "ListSchemaVersions",
    "List the numbers of a subject's versions.",
    lambda asked: pb.ListSchemaVersionsRequest(
        subject=asked.subject, deleted=asked.flag("deleted"), deleted_only=asked.flag("deletedOnly", "deleted_only")
    ),
    lambda answer, _: list(answer.versions),
    parameters={**_ONLY, **_PAGE},
    pages=True,
)
_LIST_SUBJECTS: Final = Operation(
    "GET",
    "/subjects",
    "ListSchemaSubjects",
    "List the subjects.",
    lambda asked: pb.ListSchemaSubjectsRequest(
        prefix=asked.text("subjectPrefix"),
        deleted=asked.flag("deleted"),
        deleted_only=asked.flag("deletedOnly", "deleted_only"),
    ),
    lambda answer, _: list(answer.subjects),
    parameters={"subjectPrefix": "What their names begin with.", **_ONLY, **_PAGE},
    pages=True,
)


def _known(path: str, summary: str, name: str, value: Any) -> Operation:
    """Return an operation whose answer is the same for everybody who may read schemas."""
    return Operation("GET", path, "ListSchemaSubjects", summary, None, lambda *_: value, name=name)


def _subject_versions(answer: pb.ListVersionsOfSchemaResponse, _asked: Asked) -> list[dict[str, Any]]:
    return [{"subject": each.subject, "version": each.version} for each in answer.versions]


def _only_subjects(answer: pb.ListVersionsOfSchemaResponse, _asked: Asked) -> list[str]:
    return list(dict.fromkeys(each.subject for each in answer.versions))


def _configuring(where: str, whose: str, named_so: str) -> Sequence[Operation]:
    """Return the operations on the configuration and the mode of one subject, or of every subject."""
    config, mode = f"/config{where}", f"/mode{where}"
    return (
        Operation(
            "GET",
            config,
            "GetSubjectConfig",
            f"Return the compatibility level of {whose}.",
            lambda asked: pb.GetSubjectConfigRequest(
                subject=asked.subject, default_to_global=asked.flag("defaultToGlobal")
            ),
            _config("compatibilityLevel"),
            name=f"Get{named_so}Config",
            parameters=_GLOBAL,
        ),
        Operation(
            "PUT",
            config,
            "SetSubjectConfig",
            f"Set the compatibility level or policy of {whose}.",
            _set_config,
            _config("compatibility"),
            name=f"Set{named_so}Config",
            has_body=True,
        ),
        Operation(
            "DELETE",
            config,
            "DeleteSubjectConfig",
            f"Forget the compatibility level of {whose}.",
            lambda asked: pb.DeleteSubjectConfigRequest(subject=asked.subject),
            _config("compatibilityLevel"),
            name=f"Delete{named_so}Config",
        ),
        Operation(
            "GET",
            mode,
            "GetSubjectMode",
            f"Return the mode of {whose}.",
            lambda asked: pb.GetSubjectModeRequest(
                subject=asked.subject, default_to_global=asked.flag("defaultToGlobal")
            ),
            _mode,
            name=f"Get{named_so}Mode",
            parameters=_GLOBAL,
        ),
        Operation(
            "PUT",
            mode,
            "SetSubjectMode",
            f"Set the mode of {whose}.",
            _set_mode,
            _mode,
            name=f"Set{named_so}Mode",
            parameters=_FORCE,
            has_body=True,
        ),
        Operation(
            "DELETE",
            mode,
            "DeleteSubjectMode",
            f"Forget the mode of {whose}.",
            lambda asked: pb.DeleteSubjectModeRequest(subject=asked.subject),
            _mode,
            name=f"Delete{named_so}Mode",
        ),
    )


OPERATIONS: Final[Sequence[Operation]] = (
    _known("/", "Say that a registry is here.", "GetSchemaRegistry", {}),
    _known("/contexts", "List the contexts: the default one.", "ListSchemaContexts", ["."]),
    _known("/schemas/types", "List the schema types.", "ListSchemaTypes", ["JSON"]),
    _known(
        "/associations/subjects/{subject}",
        "List what a subject is associated with: nothing is.",
        "ListSubjectAssociations",
        [],
    ),
    _known(
        "/associations/resources/{namespace}/{resource}",
        "List the subjects that are associated with a resource: none is, so that clients name them by their strategy.",
        "ListResourceAssociations",
        [],
    ),
    _LIST_SUBJECTS,
    _LIST_VERSIONS,
    Operation(
        "POST",
        "/subjects/{subject}/versions",
        "RegisterSchemaVersion",
        "Register a schema as the newest version of a subject.",
        _register,
        _version_json,
        parameters=_NORMALIZE,
        has_body=True,
    ),
    Operation(
        "POST",
        "/subjects/{subject}",
        "FindSchemaVersion",
        "Return the version under which a subject has a schema.",
        lambda asked: pb.FindSchemaVersionRequest(
            subject=asked.subject,
            schema=_new(asked.body),
            normalize=asked.flag("normalize"),
            deleted=asked.flag("deleted"),
        ),
        _version_json,
        parameters={**_NORMALIZE, **_DELETED},
        has_body=True,
    ),
    Operation(
        "DELETE",
        "/subjects/{subject}",
        "DeleteSchemaSubject",
        "Delete a subject, softly or for good.",
        _deletion,
        lambda answer, _: list(answer.versions),
        parameters=_PERMANENT,
    ),
    Operation(
        "GET",
        "/subjects/{subject}/metadata",
        "FindLatestSchemaVersion",
        "Return the newest version whose metadata has certain properties.",
        _with_metadata,
        _version_json,
        parameters={"key": "A property's name; may be repeated.", "value": "Its value.", **_DELETED},
    ),
    Operation(
        "GET",
        "/subjects/{subject}/versions/{version}",
        "GetSchemaVersion",
        "Return a version of a subject.",
        _version,
        _version_json,
        parameters=_DELETED,
    ),
    Operation(
        "GET",
        "/subjects/{subject}/versions/{version}/schema",
        "GetSchemaVersion",
        "Return the schema of a version, and nothing else.",
        _version,
        lambda answer, _: answer.schema.text.encode(),
        name="GetSchemaOfVersion",
        parameters=_DELETED,
    ),
    Operation(
        "DELETE",
        "/subjects/{subject}/versions/{version}",
        "DeleteSchemaVersion",
        "Delete a version of a subject, softly or for good.",
        _deletion,
        lambda answer, _: answer.version,
        parameters=_PERMANENT,
    ),
    Operation(
        "GET",
        "/subjects/{subject}/versions/{version}/referencedby",
        "ListReferringSchemas",
        "List the ids of the schemas that refer to a version.",
        lambda asked: pb.ListReferringSchemasRequest(subject=asked.subject, version=asked.version),
        lambda answer, _: list(answer.schema_ids),
        parameters=_PAGE,
        pages=True,
    ),
    Operation(
        "GET",
        "/schemas/ids/{schema_id}",
        "GetSchema",
        "Return a schema by its id.",
        schema_request,
        _schema_json,
        parameters={"subject": "Has no effect: ids hold for the whole registry."},
    ),
    Operation(
        "GET",
        "/schemas/ids/{schema_id}/schema",
        "GetSchema",
        "Return a schema by its id, and nothing else.",
        schema_request,
        lambda answer, _: answer.text.encode(),
        name="GetSchemaText",
    ),
    Operation(
        "GET",
        "/schemas/ids/{schema_id}/subjects",
        "ListVersionsOfSchema",
        "List the subjects that have a schema.",
        _of_schema,
        _only_subjects,
        name="ListSubjectsOfSchema",
        parameters={"subject": "The one subject to look at.", **_DELETED, **_PAGE},
        pages=True,
    ),
    Operation(
        "GET",
        "/schemas/ids/{schema_id}/versions",
        "ListVersionsOfSchema",
        "List the versions that are a schema.",
        _of_schema,
        _subject_versions,
        parameters={"subject": "The one subject to look at.", **_DELETED, **_PAGE},
        pages=True,
    ),
    Operation(
        "GET",
        "/schemas/guids/{guid}",
        "GetSchemaByGuid",
        "Return a schema by its GUID.",
        lambda asked: pb.GetSchemaByGuidRequest(guid=asked.found["guid"]),
        _schema_json,
    ),
    Operation(
        "POST",
        "/compatibility/subjects/{subject}/versions",
        "CheckSchema",
        "Say whether a schema could be registered under a subject.",
        _check,
        _checked,
        parameters=_VERBOSE,
        has_body=True,
    ),
    Operation(
        "POST",
        "/compatibility/subjects/{subject}/versions/{version}",
        "CheckSchema",
        "Say whether a schema is compatible with one version.",
        _check,
        _checked,
        name="CheckSchemaWithVersion",
        parameters=_VERBOSE,
        has_body=True,
    ),
    *_configuring("", "every subject", "Global"),
    *_configuring("/{subject}", "a subject", "Subject"),
)
