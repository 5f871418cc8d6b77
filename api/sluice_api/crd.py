"""Makes crds/ from the models: `python -m sluice_api.crd [--check] [--output crds]`.

The rules of a structural schema (apiextensions.k8s.io/v1): no references, no unions but for "may be absent", no titles.
Invariant: the same models give the same bytes, so that a difference in crds/ is a change of the API.
"""

import argparse
import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sluice_api import names
from sluice_api.models import KINDS, Kind
from sluice_api.models.common import Model

_OPEN = "x-kubernetes-preserve-unknown-fields"
_HEADER = "# Generated from sluice_api.models by `make crds`; do not edit.\n"


def schema_of(model: type[Model]) -> dict[str, Any]:
    """The structural schema of a model."""
    document = model.model_json_schema(by_alias=True, mode="validation")
    flat: dict[str, Any] = _structural(document, document.get("$defs", {}))
    return flat


def _structural(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Resolve references and take away what a structural schema must not have."""
    if isinstance(node, list):
        return [_structural(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    if "anyOf" in node:
        (choice,) = (option for option in node["anyOf"] if option != {"type": "null"})
        return _structural({**choice, **{k: v for k, v in node.items() if k not in ("anyOf", "default")}}, definitions)
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("title", "$defs", "propertyNames") or (key == "additionalProperties" and value is False):
            continue
        if key == "properties":
            out[key] = {name: _structural(field, definitions) for name, field in value.items()}
        elif key == "additionalProperties" and value is True:
            out[_OPEN] = True
        elif key == "const":
            out["enum"] = [value]
        elif key in ("default", "enum", "x-kubernetes-validations"):
            out[key] = value
        else:
            out[key] = _structural(value, definitions)
    return out


def _defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """An object whose fields have defaults gets the default {}, so that they apply when it is absent."""
    for field in schema.get("properties", {}).values():
        _defaults(field)
        nested = any("default" in inner for inner in field.get("properties", {}).values())
        if nested and "default" not in field and not field.get("required"):
            field["default"] = {}
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            _defaults(inner)
    return schema


def document(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    status = _defaults(schema_of(kind.status))
    status["default"] = {}
    status["description"] = "How it is; written by Sluice."
    schema: dict[str, Any] = {
        "type": "object",
        "description": kind.description,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # the name is there for rules to point at: without it their messages say <nil>
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": {**_defaults(schema_of(kind.spec)), "description": "What is wanted."},
            "status": status,
        },
    }
    if kind.spec_required:
        schema["required"] = ["spec"]
    if kind.rules:
        schema["x-kubernetes-validations"] = list(kind.rules)
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": c.name, "type": c.type, "jsonPath": c.path} | ({"priority": 1} if c.wide else {})
            for c in kind.columns
        ],
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    singular = kind.name.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{names.GROUP}", "labels": {"app.kubernetes.io/part-of": "sluice"}},
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": singular,
                "shortNames": [kind.short],
                "categories": ["egress"],
            },
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def files() -> dict[str, str]:
    """Name and content of every file of crds/."""
    import yaml  # noqa: PLC0415 - only this command needs it, not the programs that import the models

    return {
        f"{names.GROUP}_{kind.plural}.yaml": _HEADER + yaml.safe_dump(document(kind), sort_keys=False, width=120)
        for kind in KINDS
    }


def main() -> int:
    """Write the files, or with --check say how they differ from what is there; 1 when they do."""
    parser = argparse.ArgumentParser(prog="python -m sluice_api.crd", description="Make crds/ from the models.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the files are not up to date")
    parser.add_argument("--output", type=Path, default=Path("crds"), help="folder (default: crds)")
    options = parser.parse_args()
    differs = False
    for name, text in files().items():
        path = options.output / name
        before = path.read_text() if path.exists() else ""
        if before == text:
            continue
        differs = True
        if options.check:
            lines = difflib.unified_diff(before.splitlines(), text.splitlines(), str(path), "models", lineterm="")
            print("\n".join(lines))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path}")
    return 1 if options.check and differs else 0


if __name__ == "__main__":
    sys.exit(main())
