"""Everything that must hold before a change lands, in order of cost: `python -m testbed.suite`.

Every step runs, whatever became of those before it, so that one sees everything that is wrong at once. Each step is an
ordinary command that can be run by hand: it is printed, and so are its minutes.
Must not: decide anything about a test; a step is green exactly when its command exits with 0.
"""

import os
import shlex
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed import leftovers
from testbed.errors import TestbedError, ended
from testbed.interruption import Interrupted, run_to_its_end
from testbed.prepare import prepare

BIN = Path(sys.executable).parent
CLUSTERS = (os.environ.get("SLUICE_TESTBED", "test"),)
"""Names of the clusters that steps bring up (and the tests of the testbed bring up and down themselves)."""
ENOUGH_FAILURES = 10
"""After that many failures of one step its cause is plain, and the rest would only cost time."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the suite; `env` is added to the environment."""

    title: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)

    def command_line(self) -> str:
        """The command as one would type it, for people who want to run only this step."""
        return " ".join([*(f"{k}={v}" for k, v in self.env.items()), shlex.join(self.argv)])


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a step; `seconds` it took."""

    step: Step
    green: bool
    seconds: float

    def __str__(self) -> str:
        return f"{'ok  ' if self.green else 'FAIL'} {self.seconds / 60:5.1f} min  {self.step.title}"


def cluster_step(proxy_mode: str, cni: str, tests: Sequence[str]) -> Step:
    """The system tests on one kind of cluster; each kind brings up its own and takes it down."""
    return Step(
        f"cluster: kube-proxy {proxy_mode}, {cni} CNI",
        [str(BIN / "pytest"), *tests, "-q", f"--maxfail={ENOUGH_FAILURES}", "--timeout=900"],
        {"SLUICE_PROXY_MODE": proxy_mode, "SLUICE_CNI": cni},
    )


STEPS = (
    Step("style", [str(BIN / "ruff"), "check", "."]),
    Step("formatting", [str(BIN / "ruff"), "format", "--check", "."]),
    Step("types", [str(BIN / "mypy")]),
    Step("layers", [str(BIN / "lint-imports")]),
    Step("generated CRDs", [sys.executable, "-m", "sluice_api.crd", "--check"]),
    Step("unit tests", [str(BIN / "pytest"), "tests/unit", "-q"]),
    Step("bare machine", [str(BIN / "pytest"), "tests/bare", "-q", "--timeout=900"]),
    Step("network namespaces", [str(BIN / "pytest"), "tests/netns", "-q", "--timeout=300"]),
    cluster_step("nftables", "ptp", ["tests/cluster"]),
    # what the documentation says is the same on every cluster: once is enough
    cluster_step(
        "iptables",
        "bridge",
        ["tests/cluster/system", "--ignore=tests/cluster/system/test_system_documented.py"],
    ),
)


def run(step: Step, *, mark: str) -> Result:
    """Run one step in the foreground, its processes marked.

    Raises Interrupted when it was told to end, after it has cleaned up.
    """
    print(f"\n==> {step.title}\n    {step.command_line()}", flush=True)
    started = time.monotonic()
    code = run_to_its_end(step.argv, env={**os.environ, **step.env, leftovers.MARK: mark})
    return Result(step, code == 0, time.monotonic() - started)


def main() -> int:
    """Run the suite; 0 when every step was green and nothing was left behind."""
    results: list[Result] = []
    started, mark, before = time.monotonic(), uuid.uuid4().hex, leftovers.standing()
    failure: TestbedError | None = None
    code = 0
    try:
        prepare(tests=True)
        for step in STEPS:
            results.append(run(step, mark=mark))
    except TestbedError as error:
        failure = error
    except Interrupted as interruption:
        print(f"\ninterrupted; {len(STEPS) - len(results)} steps were not finished", flush=True)
        code = interruption.exit_code
    left = leftovers.left(before, leftovers.standing(), others=leftovers.other_clusters(CLUSTERS))
    left += leftovers.processes(mark)
    print()
    for result in results:
        print(result)
    for line in left:
        print(f"FAIL left behind: {line}")
    print(f"     {(time.monotonic() - started) / 60:5.1f} min  in all", flush=True)
    if failure:
        raise failure
    return code or int(bool(left) or not all(result.green for result in results))


if __name__ == "__main__":
    sys.exit(ended(main))
