"""docs/reference tells every setting, RPC, metric and error; `make check` finds what is not current."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from counterfoil_chassis.errors import CounterfoilError
from counterfoil_gateway import api as apis
from pydantic_settings import BaseSettings

from tools import docs

ROOT = Path(__file__).parents[2]
FOLDERS = {
    member: ROOT / ("services" if member in ("governance", "contracts", "ingest", "graph", "models") else "") / member
    for member in docs.PACKAGES
}


def sources(member: str) -> Iterator[Path]:
    return (FOLDERS[member] / f"counterfoil_{member}").rglob("*.py")


def page(name: str) -> str:
    return (docs.PAGES / name).read_text()


def test_every_setting_is_read_by_something_and_says_what_it_is_for() -> None:
    texts = {member: "\n".join(file.read_text() for file in sources(member)) for member in docs.PACKAGES}
    for member, settings in docs.classes(BaseSettings):
        for name, field in settings.model_fields.items():
            assert field.description, f"{settings.__name__}.{name} of {member}"
            where = texts["chassis"] if name in inherited(settings) else ""
            assert re.search(rf"(settings|self)\.{name}\b", where + texts[member]), f"nothing reads {member}'s {name}"


def inherited(settings: type[BaseSettings]) -> set[str]:
    return {name for base in settings.__mro__[1:] for name in getattr(base, "model_fields", {})}


def test_every_reason_of_an_error_is_documented_with_its_meaning() -> None:
    text = page("errors.md")
    for _, error in docs.classes(CounterfoilError):
        if "reason" in vars(error):
            row = next((line for line in text.splitlines() if line.startswith(f"| `{error.reason}` |")), "")
            assert row, error.reason
            assert error.__doc__, error.__name__
    for file in (*sources("gateway"), *sources("chassis")):
        told = page("audit.md") if file.name == "audit_verify.py" else text  # what a verifier finds is told there
        for reason in reasons_given(ast.parse(file.read_text())):
            assert f"`{reason}`" in told, f"{reason} of {file}"


def reasons_given(tree: ast.AST) -> Iterator[str]:
    """Yield what is passed as a reason: third to `Problem`, or by that name to anything."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        if isinstance(node.func, ast.Name) and node.func.id == "Problem":
            given += node.args[2:3]
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value.isupper():
                yield value.value


def test_every_metric_has_one_sentence_of_help_a_good_name_and_bounded_labels() -> None:
    found = list(docs.metrics())
    assert len(found) > 20
    for _, family, labels in found:
        assert re.fullmatch(r"counterfoil_[a-z_]+", family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert not {"workspace", "path", "key", "principal", "person"} & set(labels), family.name
    names = [family.name for _, family, _ in found]
    assert len(set(names)) == len(names)


def test_every_metric_is_measured_by_something() -> None:
    for member in docs.PACKAGES:
        for module in docs.modules(f"counterfoil_{member}"):
            if not module.__name__.endswith(".metrics"):
                continue
            declared = {name for name, value in vars(module).items() if name.isupper() and hasattr(value, "describe")}
            users = docs.PACKAGES if member == "chassis" else (member,)
            text = "\n".join(file.read_text() for user in users for file in sources(user) if file.name != "metrics.py")
            own = Path(module.__file__).read_text()
            for name in declared:
                used = re.search(rf"\b{name}\b", text) or len(re.findall(rf"\b{name}\b", own)) > 1
                assert used, f"nothing measures {module.__name__}.{name}"


def test_every_rpc_and_service_has_a_comment_and_somebody_who_may_call_it() -> None:
    comments = apis.load(apis.image()).comments
    rows = [line for line in page("rpcs.md").splitlines() if line.startswith("| `")]
    methods = [method for service in docs.services_in(apis.image()) for method in service.methods]
    assert len(rows) == len(methods)
    for method in methods:
        assert comments.get(method.full_name, "").strip(), method.full_name
        assert comments.get(method.containing_service.full_name, "").strip(), method.containing_service.full_name
        options = method.GetOptions()
        assert options.Extensions[docs.options_pb2.scope] or options.Extensions[docs.options_pb2.services], (
            method.full_name
        )
