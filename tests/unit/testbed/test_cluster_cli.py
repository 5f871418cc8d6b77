"""The command line says that a cluster is not there, before any program of Kubernetes looks for it elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HACK = Path(__file__).resolve().parents[3] / "hack"


@pytest.mark.parametrize(
    "command", [["kubectl", "get", "nodes"], ["helm", "list"], ["shell-env"], ["status"]], ids=" ".join
)
def test_a_cluster_that_is_not_there_is_named_with_the_remedy(command: list[str], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(HACK),
        "XDG_STATE_HOME": str(tmp_path),
        "SLUICE_TESTBED": "absent",
        "SLUICE_TESTBED_BACKEND": "local",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "testbed", *command], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode != 0
    assert ran.stdout == ""
    assert ran.stderr.splitlines() == ["error: there is no cluster 'absent': start it with `up`"]
