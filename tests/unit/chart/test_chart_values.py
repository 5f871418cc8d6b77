"""Every value is described, has a place in the schema, and a misspelled one is refused."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[3] / "charts" / "sluice"
KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z]+):(?P<rest>.*)$")


def described() -> dict[str, str]:
    """Dotted path of each value that has a comment above it in values.yaml -> the comment."""
    found: dict[str, str] = {}
    path: list[str] = []
    comment: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.lstrip("# "))
            continue
        match = KEY.match(line)
        if match:
            path = [*path[: len(match["indent"]) // 2], match["key"]]
            if comment:
                found[".".join(path)] = " ".join(comment)
        comment = []
    return found


def leaves(
    values: Any, schema: dict[str, Any], definitions: dict[str, Any], path: str = ""
) -> Iterator[tuple[str, Any]]:
    """Dotted path and default of every value that the schema does not take apart any further."""
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    parts = schema.get("properties")
    if not isinstance(values, dict) or parts is None or path.endswith("resources"):
        yield path.lstrip("."), values
        return
    for key, value in values.items():
        assert key in parts, f"{path}.{key} is not in the schema"
        yield from leaves(value, parts[key], definitions, f"{path}.{key}")


def all_leaves() -> dict[str, Any]:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    return dict(leaves(values, schema, schema["$defs"]))


def objects_of(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects_of(part)


def test_every_value_has_a_comment() -> None:
    assert sorted(all_leaves()) == sorted(described())


def test_the_readme_says_of_every_value_what_values_yaml_says() -> None:
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split(" | "))
        for line in (CHART / "README.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    defaults, comments = all_leaves(), described()
    expected = [(f"`{path}`", f"`{json.dumps(default)}`", comments[path]) for path, default in defaults.items()]
    assert rows == expected


def test_the_schema_is_strict_everywhere() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    found = list(objects_of(schema))
    assert len(found) > 10
    assert all(part["additionalProperties"] is False for part in found)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("agent.tolerance=1", "tolerance"),
        ("operator.replicas=0", "replicas"),
        ("image.tag=latest", "tag"),
        ("image.registry=registry.example/", "registry"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("uninstall.timeoutSeconds=10", "timeoutSeconds"),
        ("agent.maxUnavailable=0", "maxUnavailable"),
        ("agent.excludedCIDRs={example.org}", "excludedCIDRs"),
        ("logFormat=xml", "logFormat"),
        ("agent.resources.limits=null", "resources"),
        ("metrics.serviceMonitor.interval=fast", "interval"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(
    helm: Callable[..., subprocess.CompletedProcess[str]], setting: str, complaint: str
) -> None:
    result = helm("template", "egress", str(CHART), "--set", setting)
    assert result.returncode != 0
    assert complaint in result.stderr
