"""A cluster of three nodes as a fixture: the topology, and what the tests want programmed into it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.netns import datapath_topology as topo
from tests.netns import datapath_traffic as traffic
from tests.netns.datapath_topology import EGRESS, FAR, NODES, OUTSIDE, Address, Topology, World

VERSIONS = (4, 6)
MARKS = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]


class Cluster:
    """The topology with a World programmed into it."""

    def __init__(self, topology: Topology, state: Path) -> None:
        self.topology = topology
        self.state = state
        self.world = World()

    def apply(self, world: World, nodes: tuple[str, ...] = NODES) -> None:
        self.world = world
        for node in nodes:
            self.topology[node].start(traffic.kernel_apply, world.desired(node), str(self.state / node))
        for node in nodes:
            self.topology[node].result()

    def counters(self, node: str) -> dict[str, int]:
        """Packets dropped by reason on a node; only those that are not zero."""
        return {k: v for k, v in self.topology[node].call(traffic.kernel_counters).items() if v}

    def assert_ours(self, seen: tuple[Address, int], pod: str) -> None:
        """What a server saw is the policy's egress IP with a port of the pod's node."""
        address, port = seen
        assert address == EGRESS[address.version]
        assert port in self.world.ports(f"n{pod[1]}", address)

    def assert_no_leak(self, packets: list[traffic.Packet]) -> None:
        """Nothing came out that bears a selected pod's or its node's address instead of an egress IP."""
        outside = set(OUTSIDE.values()) | set(FAR.values())
        for packet in packets:
            if packet.target in outside:
                assert packet.source == EGRESS[packet.source.version], packet
                if packet.port is not None:
                    owned = set().union(*(self.world.ports(node, packet.source) for node in NODES))
                    assert packet.port in owned, packet


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
        topology["lan"].ip(f"link set {node} master br0")
        topology[node].call(traffic.kernel_remove)
        topology[node].call(traffic.kernel_forget)
