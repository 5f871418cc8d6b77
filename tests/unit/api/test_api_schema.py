"""The definitions are what the API server demands, and no rule or field of them is without a case that breaks it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.api_table import BAD, CHANGES, GOOD, Good

from sluice_api import crd, reference
from sluice_api.models import KINDS, Kind
from sluice_api.reasons import CONDITIONS, ConditionType, Reason

ROOT = Path(__file__).parents[3]
Schema = dict[str, Any]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def schema_of(kind: Kind) -> Schema:
    found: Schema = crd.document(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema below one, with the path of its field; entries of lists as [], of maps as .*"""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from walk(field, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}.*")


def test_the_definitions_are_those_of_the_models() -> None:
    assert {path.name: path.read_text() for path in (ROOT / "crds").iterdir()} == crd.files(), "run `make crds`"


@pytest.mark.parametrize("name", reference.pages())
def test_the_documents_are_those_of_the_models_and_reasons(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == reference.pages()[name], "run `python -m sluice_api.reference`"


@kinds
def test_schemas_are_structural_and_bounded(kind: Kind) -> None:
    text = json.dumps(schema_of(kind))
    assert not [
        word for word in ("$ref", "$defs", "anyOf", "allOf", '"title"', '"const"', "propertyNames") if word in text
    ]
    for part in ("spec", "status"):
        for path, node in walk(schema_of(kind)["properties"][part], part):
            bounds = {
                "string": {"maxLength", "enum", "format", "pattern"},
                "array": {"maxItems"},
                "integer": {"format"},
            }.get(node.get("type", ""), set())
            assert not bounds or bounds & node.keys(), f"{path} has none of {bounds}"
            assert "additionalProperties" not in node or "maxProperties" in node, path


@kinds
def test_kubectl_explain_has_words_for_every_field(kind: Kind) -> None:
    for part in ("spec", "status"):
        for path, node in walk(schema_of(kind)["properties"][part], part):
            if not path.endswith(("[]", ".*")):
                assert len(node.get("description", "")) > 5, path


@kinds
def test_every_rule_names_a_remedy_and_has_a_case_that_breaks_it(kind: Kind) -> None:
    bad = [(case.kind, case.message) for case in BAD] + [(case.kind, case.message) for case in CHANGES]
    words = {message for name, message in bad if name == kind.name and message}
    for path, node in walk(schema_of(kind)):
        for entry in node.get("x-kubernetes-validations", ()):
            assert any(word in entry["message"] for word in words), f"{path}: {entry['message']}"


@kinds
def test_every_field_of_a_spec_has_a_case_that_is_refused(kind: Kind) -> None:
    refused = {re.sub(r"\[\d+\]", "[]", case.field) for case in BAD if case.kind == kind.name}
    for path, node in walk(schema_of(kind)["properties"]["spec"], "spec"):
        leaf = not node.get("properties") and path != "spec" and not path.endswith(("[]", ".*"))
        if leaf:
            assert any(field == path or field.startswith((f"{path}.", f"{path}[")) for field in refused), path


@pytest.mark.parametrize("case", GOOD, ids=lambda case: f"{case.kind} {json.dumps(case.spec)[:50]}")
def test_the_models_read_what_the_api_server_takes(case: Good) -> None:
    kind = next(kind for kind in KINDS if kind.name == case.kind)
    read = kind.spec.model_validate(case.spec).model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert read == case.spec


@kinds
def test_an_object_that_nobody_looked_at_says_so(kind: Kind) -> None:
    conditions = schema_of(kind)["properties"]["status"]["properties"].get("conditions")
    documented = [row.type for row in CONDITIONS if row.kind == kind.name]
    pending = [(c["type"], c["status"], c["reason"]) for c in conditions["default"]] if conditions else []
    assert pending == [(str(kind), "Unknown", "Pending") for kind in documented]


def test_every_reason_and_condition_has_a_meaning_and_a_place() -> None:
    used = {reason for row in CONDITIONS for reason in (*row.good, *row.bad)}
    assert used == set(Reason)
    assert {row.type for row in CONDITIONS} == set(ConditionType)
    assert all(word.meaning.endswith(".") for word in (*Reason, *ConditionType))


def test_the_check_tells_of_a_definition_that_was_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["crd", "--output", str(tmp_path)])
    assert crd.main() == 0
    monkeypatch.setattr("sys.argv", ["crd", "--check", "--output", str(tmp_path)])
    assert crd.main() == 0
    edited = tmp_path / "sluice.dev_egresspools.yaml"
    edited.write_text(edited.read_text().replace("maxItems: 64", "maxItems: 65"))
    assert crd.main() == 1
    assert "maxItems: 65" in edited.read_text()
