"""The chart carries exactly the generated definitions, and a user's objects outlive the release."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
GENERATED = ROOT / "crds"
COPY = ROOT / "charts" / "sluice" / "files" / "crds"
KEEP = {"helm.sh/resource-policy": "keep"}

Render = Callable[..., list[dict[str, Any]]]


def definitions(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == "CustomResourceDefinition"}


def test_the_copy_in_the_chart_equals_the_generated_definitions() -> None:
    generated = {path.name: path.read_text() for path in GENERATED.glob("*.yaml")}
    copied = {path.name: path.read_text() for path in COPY.glob("*.yaml")}
    assert copied == generated, "run `make crds`"
    assert len(generated) == 4


def test_the_chart_renders_the_definitions_unchanged_but_for_the_annotation(render: Render) -> None:
    expected = definitions([yaml.safe_load(path.read_text()) for path in GENERATED.glob("*.yaml")])
    rendered = definitions(render())
    for item in rendered.values():
        assert KEEP.items() <= item["metadata"]["annotations"].items()
        del item["metadata"]["annotations"]["helm.sh/resource-policy"]
    for item in [*expected.values(), *rendered.values()]:
        if not item["metadata"].get("annotations"):
            item["metadata"].pop("annotations", None)
    assert rendered == expected


def test_definitions_may_be_left_to_somebody_else(render: Render) -> None:
    assert definitions(render({"crds": {"enabled": False}})) == {}


@pytest.mark.parametrize("keep", [True, False])
def test_definitions_are_kept_at_uninstall_as_told(render: Render, keep: bool) -> None:
    found = definitions(render({"crds": {"keep": keep}}))
    assert len(found) == 4
    for item in found.values():
        assert ("helm.sh/resource-policy" in item["metadata"].get("annotations", {})) is keep
