"""An uninstall takes everything of Sluice out of every node, and keeps what the user wrote."""

import difflib

import pytest
from tests.cluster.system.world import NAMESPACE, POOL, World, kernel_state

from testbed.cluster import ClusterError
from testbed.system import NAMESPACE as SLUICE
from testbed.system import wait_for


@pytest.mark.cluster
def test_uninstall_leaves_every_node_as_it_was_before_the_install(world: World) -> None:
    system = world.system
    system.delete("namespace", NAMESPACE)
    print(system.uninstall())
    assert system.get("egresspool", POOL)
    system.kubectl("delete", "namespace", SLUICE)
    for node in system.cluster.nodes:

        def same(node: str = node) -> bool:
            return kernel_state(system, node) == world.clean[node]

        try:
            # kube-proxy takes the chains of Services that are gone away a little later
            wait_for(f"{node} as before", same, 90, every=2)
        except ClusterError:
            lines = difflib.unified_diff(world.clean[node], kernel_state(system, node), node, "after", lineterm="", n=0)
            pytest.fail("\n".join(lines))
