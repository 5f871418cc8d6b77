"""An uninstall takes everything of Sluice out of every node, and keeps what the user wrote."""

import difflib

import pytest
from tests.cluster.system.world import NAMESPACE, POOL, RESIDENTS, World, kernel_state

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
            wait_for(f"{node} as before", same, 30)
        except ClusterError:
            lines = difflib.unified_diff(world.clean[node], kernel_state(system, node), node, "after", lineterm="", n=0)
            pytest.fail("\n".join(lines))


@pytest.mark.cluster
def test_after_an_uninstall_services_names_and_the_way_out_work_on_every_node(world: World) -> None:
    outside = world.system.outside
    for node in world.system.cluster.nodes:
        pod = world.system.pod(RESIDENTS, f"resident-{node}")
        argv = ["curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"]
        status = world.system.exec(pod, *argv, "https://kubernetes.default.svc/version", check=False)
        assert status in ("200", "401", "403"), (node, status)
        own = {str(a) for a in world.system.cluster.host(node).addresses}
        for answer in world.ask(pod, "tcp", outside, port=443):
            assert answer["address"] in own, (node, answer)
