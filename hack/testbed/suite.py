"""Everything that must hold before a change lands, in order of cost: `python -m testbed.suite`.

The cheap steps all run, so that one sees everything that is wrong at once; the clusters come up only when those are
green. Each step is an ordinary command that can be run by hand: it is printed.
Must not: decide anything about a test; a step is green exactly when its command exits with 0.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed import binaries, prerequisites
from testbed.cluster import ClusterError, chosen_backend

BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the suite; `env` is added to the environment."""

    title: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)

    def command_line(self) -> str:
        """The command as one would type it, for people who want to run only this step."""
        return " ".join([*(f"{k}={v}" for k, v in self.env.items()), shlex.join(self.argv)])


def cluster_step(proxy_mode: str, cni: str, tests: Sequence[str]) -> Step:
    """The system tests on one kind of cluster; each kind brings up its own and takes it down."""
    return Step(
        f"cluster: kube-proxy {proxy_mode}, {cni} CNI",
        [str(BIN / "pytest"), *tests, "-q", "-x", "--timeout=900"],
        {"SLUICE_PROXY_MODE": proxy_mode, "SLUICE_CNI": cni},
    )


CHEAP = (
    Step("style", [str(BIN / "ruff"), "check", "."]),
    Step("formatting", [str(BIN / "ruff"), "format", "--check", "."]),
    Step("types", [str(BIN / "mypy")]),
    Step("layers", [str(BIN / "lint-imports")]),
    Step("generated CRDs", [sys.executable, "-m", "sluice_api.crd", "--check"]),
    Step("unit tests", [str(BIN / "pytest"), "tests/unit", "-q"]),
)
DEAR = (
    Step("network namespaces", [str(BIN / "pytest"), "tests/netns", "-q", "--timeout=300"]),
    cluster_step("nftables", "ptp", ["tests/cluster"]),
    cluster_step("iptables", "bridge", ["tests/cluster/system"]),
)


def run(step: Step) -> tuple[bool, float]:
    """Run one step in the foreground; (green?, seconds)."""
    print(f"\n==> {step.title}\n    {step.command_line()}", flush=True)
    started = time.monotonic()
    code = subprocess.run(step.argv, env={**os.environ, **step.env}, check=False).returncode
    return code == 0, time.monotonic() - started


def prepare() -> None:
    """What several steps need and none should have to wait for: Debian's packages and the built programs."""
    if chosen_backend() == "local":
        prerequisites.ensure_local()
        prerequisites.ensure(prerequisites.IMAGES + prerequisites.TESTS)
    binaries.ensure()


def main() -> int:
    """Run the suite; 0 when every step was green."""
    results: list[tuple[Step, bool, float]] = []
    try:
        prepare()
        for steps in (CHEAP, DEAR):
            for step in steps:
                results.append((step, *run(step)))
                if step in DEAR and not results[-1][1]:
                    break
            if not all(green for _, green, _ in results):
                break
    except ClusterError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", flush=True)
        return 130
    finally:
        print()
        for step, green, seconds in results:
            print(f"{'ok  ' if green else 'FAIL'} {seconds:7.1f} s  {step.title}")
    return 0 if all(green for _, green, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
