"""Schemas as they are sent: parsed within bounds, told apart by what they say."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
from counterfoil_chassis.canonical import canonical_json

from counterfoil_contracts.schema_entities import JSON, Reference, SchemaContent
from counterfoil_contracts.schema_errors import (
    SchemaInvalidError,
    SchemaMetadataInvalidError,
    SchemaRuleSetInvalidError,
    SchemaTooLargeError,
    SchemaTypeUnsupportedError,
    SchemaVersionInvalidError,
    SubjectInvalidError,
)

LARGEST: Final = 1 << 20
"""Bytes of a schema."""
DEEPEST: Final = 128
"""Values within one another in a schema."""
LATEST: Final = "latest"
_LONGEST_SUBJECT: Final = 255
_LONGEST_VERSION: Final = (1 << 31) - 1
_METADATA: Final = frozenset({"tags", "properties", "sensitive"})
_RULE_LISTS: Final = frozenset({"migrationRules", "domainRules", "encodingRules"})
_DEFAULT_CONTEXT: Final = ":.:"


def subject_of(name: str) -> str:
    """Return the subject that a name means, the default context left out; raise SubjectInvalidError."""
    plain = name.removeprefix(_DEFAULT_CONTEXT)
    if plain.startswith(":."):
        raise SubjectInvalidError("There is one context here, the default one: leave the context out of the subject.")
    if not plain or plain != plain.strip() or not plain.isprintable() or plain in ("__GLOBAL", "__EMPTY"):
        raise SubjectInvalidError("A subject has a name of printable characters with no space around it.")
    if len(plain) > _LONGEST_SUBJECT:
        raise SubjectInvalidError(f"A subject's name has at most {_LONGEST_SUBJECT} characters.")
    return plain


def version_of(text: str) -> int | None:
    """Return the number of a version, None for the newest; raise SchemaVersionInvalidError."""
    if text in (LATEST, "-1"):
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or not 1 <= int(text) <= _LONGEST_VERSION:
        raise SchemaVersionInvalidError(
            f"{text[:40]!r} is no version: name a number from 1 to 2^31-1, or `latest`.",
            metadata={"version": text[:40]},
        )
    return int(text)


def parsed(
    text: str, *, schema_type: str, references: Sequence[Reference], metadata: bytes, rule_set: bytes
) -> SchemaContent:
    """Return a schema with its value; raise what says why it is none. Nothing that it refers to is looked at."""
    if schema_type != JSON:
        named = schema_type or "AVRO, which a request that names none means,"
        raise SchemaTypeUnsupportedError(
            f"The schema type {named} is not served here. Register JSON Schema, with schemaType JSON.",
            metadata={"schema_type": schema_type[:40]},
        )
    if len(text) > LARGEST or len(text.encode()) > LARGEST:
        raise SchemaTooLargeError(f"The schema is over {LARGEST} bytes. Split it, and refer to its parts.")
    content = SchemaContent(
        text=text,
        references=tuple(references),
        metadata=_metadata(metadata),
        rule_set=_rule_set(rule_set),
        guid="",
        document=_document(text),
    )
    return replace(content, guid=_guid(content))


def normalised(content: SchemaContent) -> SchemaContent:
    """Return the schema with its text in canonical form (RFC 8785), and its references by name."""
    try:
        text = canonical_json(content.document).decode()
    except ValueError:
        raise SchemaInvalidError(
            "The schema has a number beyond 2^53, which has no canonical form. Register it without normalising."
        ) from None
    ordered = tuple(sorted(content.references, key=lambda each: (each.name, each.subject, each.version)))
    normal = replace(content, text=text, references=ordered, document=orjson.loads(text))
    return replace(normal, guid=_guid(normal))


def with_references(content: SchemaContent, references: Sequence[Reference]) -> SchemaContent:
    """Return the schema with other references."""
    changed = replace(content, references=tuple(references))
    return replace(changed, guid=_guid(changed))


def _guid(content: SchemaContent) -> str:
    """Return a UUID of the content; of the text it is the value that counts, in the order of its keys."""
    named = [[each.name, each.subject, each.version] for each in content.references]
    parts = (
        orjson.dumps(content.document),
        orjson.dumps(named),
        content.metadata,
        content.rule_set,
    )
    digest = hashlib.sha256(b"\0".join(parts)).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


def _document(text: str) -> Any:
    try:
        document = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
        raise SchemaInvalidError(f"The schema is not JSON: {error}.") from None
    if not isinstance(document, dict | bool):
        raise SchemaInvalidError("A JSON Schema is an object, true or false.")
    if _is_deeper(document, DEEPEST):
        raise SchemaInvalidError(
            f"The schema is nested deeper than {DEEPEST} levels. Name its parts and refer to them."
        )
    return document


def _is_deeper(value: Any, most: int) -> bool:
    """Say whether a value is nested deeper; level by level, since recursion is what it guards."""
    level = [value]
    for _ in range(most + 1):
        opened = (each for each in level if isinstance(each, dict | list))
        level = [part for each in opened for part in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return False
    return True


def _metadata(raw: bytes) -> bytes:
    """Return metadata in one spelling; raise SchemaMetadataInvalidError."""
    value = _object(raw, SchemaMetadataInvalidError, "metadata")
    if value is None:
        return b""
    tags, properties, sensitive = (value.get(name) or {} for name in ("tags", "properties", "sensitive"))
    if (
        not value.keys() <= _METADATA
        or not isinstance(tags, dict)
        or not all(_is_texts(each) for each in tags.values())
        or not isinstance(properties, dict)
        or not all(isinstance(each, str) for each in properties.values())
        or not (_is_texts(sensitive) or sensitive == {})
    ):
        raise SchemaMetadataInvalidError(
            "The metadata are an object of `tags` (lists of texts by path), `properties` (texts by name) and "
            "`sensitive` (names of properties)."
        )
    kept = {name: part for name, part in sorted(value.items()) if part}
    return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS) if kept else b""


def _rule_set(raw: bytes) -> bytes:
    """Return rules in one spelling; raise SchemaRuleSetInvalidError."""
    value = _object(raw, SchemaRuleSetInvalidError, "ruleSet")
    if value is None:
        return b""
    lists = {name: value.get(name) or [] for name in _RULE_LISTS}
    said = {name for name, part in value.items() if part}
    if not said <= _RULE_LISTS | {"enableAt"} or not all(
        isinstance(rules, list) and all(isinstance(rule, dict) and _is_named(rule) for rule in rules)
        for rules in lists.values()
    ):
        raise SchemaRuleSetInvalidError(
            "A ruleSet is an object of `migrationRules`, `domainRules` and `encodingRules`, each a list of rules that "
            "have a name."
        )
    kept = {name: part for name, part in value.items() if part}
    return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS) if kept else b""


def _object(
    raw: bytes, error: type[SchemaMetadataInvalidError | SchemaRuleSetInvalidError], name: str
) -> Mapping[str, Any] | None:
    if not raw:
        return None
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as cause:
        raise error(f"The {name} is not JSON: {cause}.") from None
    if value is None:
        return None
    if not isinstance(value, dict) or _is_deeper(value, DEEPEST):
        raise error(f"The {name} is not an object, or nested too deeply.")
    return value


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_named(rule: Mapping[str, Any]) -> bool:
    return isinstance(rule.get("name"), str) and bool(rule["name"])
