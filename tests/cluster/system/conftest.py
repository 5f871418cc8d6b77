"""One cluster with Sluice on it for all tests of this folder, with traffic pods on every node.

SLUICE_PROXY_MODE and SLUICE_CNI choose the kind of cluster, SLUICE_TESTBED its name; SLUICE_KEEP=1 leaves it running
for a look.
"""

import os
from collections.abc import Iterator
from typing import cast

import pytest
from tests.cluster.system.world import RESIDENTS, World, kernel_state, populate

from testbed.cluster import ClusterOptions, Cni, ProxyMode
from testbed.system import running, traffic_pod, wait_for


def say(text: str) -> None:
    """Progress of the fixtures."""
    print(f"\n==> {text}", flush=True)


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """A cluster with Sluice, a pool, a policy and pods."""
    options = ClusterOptions(
        name=os.environ.get("SLUICE_TESTBED", "test"),
        proxy_mode=cast(ProxyMode, os.environ.get("SLUICE_PROXY_MODE", "nftables")),
        cni=cast(Cni, os.environ.get("SLUICE_CNI", "ptp")),
    )
    with running(options, say=say, keep=os.environ.get("SLUICE_KEEP") == "1") as system:
        # a pod that stays on each node: what a CNI makes for a node's first pod is then there before and after
        system.namespace(RESIDENTS)
        system.start_pods(*(traffic_pod(RESIDENTS, f"resident-{n}", node=n, labels={}) for n in system.cluster.nodes))
        for node in system.cluster.nodes:
            host = system.cluster.host(node)
            # an address has no routes until duplicate address detection is through with it
            wait_for(
                f"no tentative address on {node}",
                lambda host=host: not host.run(["ip", "-6", "address", "show", "tentative"]).stdout.strip(),
                20,
            )
        clean = {node: kernel_state(system, node) for node in system.cluster.nodes}
        say("installing Sluice")
        system.install()
        yield populate(system, clean)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Faults come after what needs everything healthy, then the uninstall, and last what installs Sluice itself."""
    last = {
        "test_system_agents": 1,
        "test_system_troubles": 1,
        "test_system_faults": 1,
        "test_system_uninstall": 2,
        "test_system_documented": 3,
    }
    items.sort(key=lambda item: last.get(item.path.stem, 0))
