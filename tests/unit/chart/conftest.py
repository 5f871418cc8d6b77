"""Renders the chart with the real helm, once per set of values, and hands the objects to the tests."""

import json
import os
import subprocess
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.binaries import HELM, built

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "sluice"
REGISTRY = "registry.example"
Object = dict[str, Any]
Render = Callable[..., list[Object]]


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs helm with the chart; never against a cluster, never with a user's own helm configuration."""
    binary, home = built(HELM, "helm"), tmp_path_factory.mktemp("helm-home")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": os.devnull}

    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary, command, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    return run


@pytest.fixture(scope="session")
def render(helm: Callable[..., subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> Render:
    """`render({"operator": {"replicas": 1}})` -> the objects of the release, in namespace sluice-system."""
    folder = tmp_path_factory.mktemp("values")

    @lru_cache
    def rendered(values: str) -> str:
        file = folder / f"{abs(hash(values))}.json"
        file.write_text(values)
        result = helm("template", "egress", str(CHART), "--namespace", "sluice-system", "--values", str(file))
        assert result.returncode == 0, result.stderr
        return result.stdout

    def objects(values: Object | None = None) -> list[Object]:
        given = {**(values or {})}
        given["image"] = {"registry": REGISTRY, **given.get("image", {})}
        text = rendered(json.dumps(given, sort_keys=True))
        return [document for document in yaml.safe_load_all(text) if document]

    return objects
