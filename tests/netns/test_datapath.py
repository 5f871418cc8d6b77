"""The kernel path between real network stacks; what reaches the host outside is the judge."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import datapath_topology as topo
from tests.netns import datapath_traffic as traffic
from tests.netns.datapath_topology import EGRESS, FAR, NODES, OUTSIDE, Topology, World

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]


class Cluster:
    """The topology with a World programmed into it."""

    def __init__(self, topology: Topology, state: Path) -> None:
        self.topology = topology
        self.state = state
        self.world = World()

    def apply(self, world: World) -> None:
        self.world = world
        for node in NODES:
            self.topology[node].call(traffic.kernel_apply, world.desired(node), str(self.state / node))


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    made = topo.build(f"sl{os.getpid()}-")
    try:
        made["out"].call(traffic.serve, list(OUTSIDE.values()))
        made["far"].call(traffic.serve, list(FAR.values()))
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(topology: Topology, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(topology, tmp_path)
    yield made
    for node in NODES:
        topology[node].call(traffic.kernel_remove)
        topology[node].call(traffic.kernel_forget)


def test_one_packet(cluster: Cluster) -> None:
    cluster.apply(World())
    print(cluster.topology["p11"].call(traffic.tcp, OUTSIDE[4]))
    print(cluster.topology["p11"].call(traffic.tcp, OUTSIDE[6]))
    print(cluster.topology["p11"].call(traffic.ping, OUTSIDE[6]))
