"""A claim of an address that is somebody's harms nobody: whoever had it keeps it, and the node reaches everyone."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from tests.netns import datapath_traffic as traffic
from tests.netns.datapath_cluster import MARKS, Cluster, cluster, topology
from tests.netns.datapath_topology import (
    EGRESS,
    EXCLUDED,
    NODES,
    OUTSIDE,
    Address,
    InNamespace,
    Topology,
    World,
    node_address,
    pod_address,
)

from sluice_node.agent.links import read_links
from sluice_node.core.desired import PolicyProgram, SliceOwner
from sluice_node.core.objects import EgressIP, EgressNode, Endpoints, Key, Node, Pod, Policy, Pool, Selector
from sluice_node.core.resolve import resolve
from sluice_node.core.select import select
from sluice_node.core.snapshot import Snapshot

__all__ = ["cluster", "topology"]
pytestmark = MARKS
ME = "n2"
API = 6443
POLICY = Key("billing", "a")
GATEWAY = {4: ip_address("172.18.0.100"), 6: ip_address("fd00:18::100")}
NODE_ADDRESSES = {node: tuple(node_address(node, v) for v in (4, 6)) for node in NODES}
POD_ADDRESSES = {pod: tuple(pod_address(pod, v) for v in (4, 6)) for pod in ("p21", "p22", "p32")}
POD_RANGES = {node: (ip_network(f"10.244.{node[1]}.0/24"), ip_network(f"fd00:244:{node[1]}::/64")) for node in NODES}
PODS = (
    Pod(Key("sluice-system", "gw"), "1", {}, "default", (), True, ready=True, gateway_for="partners"),
    *(
        Pod(Key(ns, name), "1", {}, "default", POD_ADDRESSES[name])
        for ns, name in (("billing", "p21"), ("other", "p22"))
    ),
)
KINDS: dict[str, Address] = {
    f"{name} IPv{address.version}": address
    for name, addresses in {
        "the node's": NODE_ADDRESSES[ME],
        "another node's": NODE_ADDRESSES["n3"],
        "the API server's": [OUTSIDE[4]],
        "the gateway's": GATEWAY.values(),
        "a container's here": POD_ADDRESSES["p22"],
        "a pod's there": POD_ADDRESSES["p32"],
        "a broadcast address": [ip_address("172.18.255.255")],
    }.items()
    for address in addresses
}


def snapshot(cluster: Cluster, address: Address) -> Snapshot:
    """What the agent of n2 knows when the API server says that the address is an egress IP of a policy of its pool."""
    slices = tuple(SliceOwner(address, 1024 * (index + 40), 1024, node) for index, node in enumerate(NODES))
    claim = EgressIP(Key("", str(address)), address, "partners", POLICY, None, slices)
    return Snapshot(
        node=Node(ME, "uid", NODE_ADDRESSES[ME], ()),
        links=cluster.topology[ME].call(read_links),
        pods=PODS,
        policies=(Policy(POLICY, 1, "1", "partners", Selector(), policy_id=5, addresses=(address,), revision=1),),
        pools={"partners": Pool(Key("", "partners"), 1024, announces=True)},
        egress_ips=(claim,),
        egress_nodes=tuple(
            EgressNode(Key("", node), NODE_ADDRESSES[node], () if node == ME else POD_RANGES[node]) for node in NODES
        ),
        api_endpoints=(Endpoints(Key("default", "kubernetes"), (OUTSIDE[4],)),),
        never_redirected=EXCLUDED,
    )


@pytest.fixture(scope="module", autouse=True)
def _servers(topology: Topology) -> None:
    """Somebody listens wherever the node must be able to go."""
    for space, addresses in (("n1", NODE_ADDRESSES["n1"]), ("n3", NODE_ADDRESSES["n3"]), ("p22", POD_ADDRESSES["p22"])):
        topology[space].call(traffic.serve, list(addresses), API)


def _with_patience(function: Callable[..., Any], target: Address, *port: int) -> Any:
    return function(target, timeout=1, **({"port": port[0]} if port else {}))


def reachable(cluster: Cluster) -> dict[str, bool]:
    """The node's own paths in both families, and those of others to it."""
    found: dict[str, bool] = {}
    for version in (4, 6):
        calls: dict[str, tuple[str, Callable[..., Any], tuple[Any, ...]]] = {
            "the API server": (ME, traffic.tcp, (OUTSIDE[version], 8080))
        }
        calls |= {f"node {node}": (ME, traffic.tcp, (node_address(node, version), API)) for node in ("n1", "n3")}
        calls["a pod"] = (ME, traffic.tcp, (pod_address("p22", version), API))
        calls["its gateway"] = (ME, traffic.ping, (GATEWAY[version],))
        calls["it from a node"] = ("n3", traffic.ping, (node_address(ME, version),))
        calls["it from outside"] = ("out", traffic.ping, (node_address(ME, version),))
        for name, (space, function, arguments) in calls.items():
            try:
                good = bool(cluster.topology[space].call(_with_patience, function, *arguments))
            except InNamespace:
                good = False
            found[f"{name} IPv{version}"] = good
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_who_has_an_address_loses_it_to_a_claim(cluster: Cluster, kind: str) -> None:
    known = snapshot(cluster, KINDS[kind])
    desired = resolve(known, select(known.pods, known.policies))
    cluster.topology[ME].call(traffic.kernel_apply, desired, str(cluster.state / ME))
    assert KINDS[kind] in known.refused
    lost = [name for name, good in reachable(cluster).items() if not good]
    assert lost == []


@pytest.mark.parametrize("kind", ["the API server's IPv4", "the gateway's IPv4", "the node's IPv4"])
def test_without_that_refusal_somebody_would(cluster: Cluster, kind: str) -> None:
    """What the kernel does with an address that is an egress IP to it: the test above can fail."""
    address = KINDS[kind]
    world = World(
        policies=(PolicyProgram(5, "partners", (address,)),), sizes={address: 1024}, gateways=(ME,), holder=ME
    )
    desired = world.desired(ME)
    cluster.topology[ME].call(traffic.kernel_apply, desired, str(cluster.state / ME))
    assert not all(reachable(cluster).values())
    cluster.topology[ME].call(
        traffic.kernel_apply, replace(desired, policies=(), slices=(), announced={}), str(cluster.state / ME)
    )
    assert all(reachable(cluster).values()), "and it heals at once when the claim goes"


@pytest.mark.parametrize("world", [World(), World(policies=(), pods={})], ids=["with pods of it", "without"])
def test_where_an_address_is_is_asked_anew_when_it_is_no_egress_ip_any_more(cluster: Cluster, world: World) -> None:
    node = cluster.topology["n1"]
    cluster.apply(world, nodes=("n1",))
    for version in (4, 6):
        node.ip(f"neigh replace {EGRESS[version]} lladdr 02:00:00:00:00:12 dev eth0 nud reachable")
    desired = replace(world.desired("n1"), policies=(), slices=())
    node.call(traffic.kernel_apply, desired, str(cluster.state / "n1"))
    left = node.sh("ip", "neigh") + node.sh("ip", "-6", "neigh")
    assert not [address for address in EGRESS.values() if f"{address} " in left]
