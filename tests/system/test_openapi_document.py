"""The description of the REST API is valid and says what is there."""

import re

from tests.system.doors import annotated_methods
from tests.system.installation import Installation, until
from tests.system.tenant import ok


def test_openapi_document_is_valid_and_names_every_annotated_method(installation: Installation):
    from openapi_spec_validator import validate  # compiles grammars for seconds: not in every worker

    with installation.http() as client:
        document = ok(client.get("/openapi.json"))
    validate(document)
    assert document["openapi"].startswith("3.1")
    offered = {(verb.upper(), path) for path, item in document["paths"].items() for verb in item}
    missing = {
        name
        for name, method in annotated_methods().items()
        for binding in method.bindings
        if not any(verb == binding.verb and _shape(path) == _shape(binding.path) for verb, path in offered)
    }
    assert missing == set()
    assert {("POST", "/v1/imports"), ("POST", "/v1/batch"), ("GET", "/healthz"), ("GET", "/readyz")} <= offered


def _shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_health_is_open_to_everybody(installation: Installation):
    with installation.http() as client:
        for path in ("/healthz", "/readyz"):  # a service that has no second for an answer is not ready for that moment
            until(lambda path=path: client.get(path).is_success or None, seconds=60, what=path)
