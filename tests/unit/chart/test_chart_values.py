"""Every value is described, has a place in the schema, and a misspelled one is refused."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

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
    if not values or not isinstance(values, dict) or parts is None or path.endswith("resources"):
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
        ("image.registry=https://registry.example", "a registry without scheme"),
        ("image.registry=Registry Example", "a registry without scheme"),
        ("image.pullSecrets={My_Secret}", "pullSecrets"),
        ("operator.image.digest=sha256:abc", "a digest"),
        ("operator.image.repository=/operator", "a repository below image.registry"),
        ("operator.resources.requests.cpu=banana", "a quantity of Kubernetes"),
        ("agent.resources.limits.memory=12 Mi", "a quantity of Kubernetes"),
        ("agent.resources.limits.memory=-1", "a quantity of Kubernetes"),
        ("operator.extraArgs={debug}", "extraArgs"),
        ("operator.extraEnv[0].value=x", "name"),
        ("operator.strategy.type=Replace", "strategy"),
        ("operator.podLabels.team=a b", "a value of a label"),
        ("commonLabels.-x=y", "-x"),
        ("gateway.serviceAccount.nmae=x", "nmae"),
        ("logLevel=loud", "logLevel"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("uninstall.timeoutSeconds=10", "timeoutSeconds"),
        ("agent.maxUnavailable=0", "maxUnavailable"),
        ("logFormat=xml", "logFormat"),
        ("agent.resources.limits=null", "resources"),
        ("metrics.serviceMonitor.interval=fast", "interval"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(
    helm: Callable[..., subprocess.CompletedProcess[str]], setting: str, complaint: str
) -> None:
    result = helm("template", "egress", str(CHART), "--set", "image.registry=r.example", "--set", setting)
    assert result.returncode != 0
    assert complaint in result.stderr


def network_schema() -> dict[str, Any]:
    definition: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())["$defs"]["cidr"]
    return definition


def accepts(text: str) -> bool:
    words = network_schema()["else"]["const"]
    return text != words and bool(jsonschema.Draft202012Validator(network_schema()).is_valid(text))


@pytest.mark.parametrize(
    "text",
    ["10.0.0.300/99", "10.0.0.0/33", "10.0.0/8", "10.0.0.0", "010.0.0.0/8", "::/129", ":::/64", "1:2:3/64",
     "2001:db8::1::/64", "12345::/16", "1:2:3:4:5:6:7:8:9/64", "example.org", "10.0.0.0/8 ", ""],
)  # fmt: skip
def test_what_is_no_network_is_refused(text: str) -> None:
    assert not accepts(text)


@given(st.ip_addresses(network="0.0.0.0/0") | st.ip_addresses(network="::/0"), st.integers(0, 128), st.booleans())
def test_every_network_is_admitted_however_it_is_written(address: Any, length: int, long: bool) -> None:
    text = f"{address.exploded if long else address}/{min(length, address.max_prefixlen)}"
    assert accepts(text), text


@given(st.from_regex(r"^[0-9a-f:.]{2,20}/[0-9]{1,3}$", fullmatch=True))
def test_nothing_else_is_admitted(text: str) -> None:
    try:
        ip_network(text, strict=False)
    except ValueError:
        assert not accepts(text), text


def test_a_refused_network_is_named_with_what_is_wanted(
    helm: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    result = helm("lint", str(CHART), "--set", "agent.excludedCIDRs={10.0.0.300/99}")
    assert "at '/agent/excludedCIDRs/0': value must be 'a network in CIDR notation" in result.stdout + result.stderr
