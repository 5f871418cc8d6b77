"""Whatever changes while a pod's connections are open, and whether or not an agent is there to see it: none goes on
with an address that is no longer its own, and none is black-holed for ever."""

import errno
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from tests.netns import datapath_traffic as traffic
from tests.netns.datapath_cluster import MARKS, VERSIONS, Cluster, cluster, topology
from tests.netns.datapath_topology import EGRESS, OUTSIDE, Address, InNamespace, World, node_address, pod_address

from sluice_api.names import proxy_source
from sluice_node.core.desired import Destination, PolicyProgram

__all__ = ["cluster", "topology"]
pytestmark = MARKS

SECOND = {4: ip_address("172.18.1.2"), 6: ip_address("fd00:18::e:2")}
ONE = PolicyProgram(5, "partners", (EGRESS[4], EGRESS[6]))
TWO = PolicyProgram(6, "partners", (SECOND[4], SECOND[6]))
SIZES = {EGRESS[4]: 1024, EGRESS[6]: 512, SECOND[4]: 1024, SECOND[6]: 512}
ELSEWHERE = (Destination((ip_network("192.0.2.0/24"), ip_network("2001:db8:2::/64"))),)
BEFORE = World(policies=(ONE, TWO), pods={"p11": 5, "p21": 5}, sizes=SIZES)

Seen = tuple[Address, int]
CHANGES = {
    "its policy was deleted": BEFORE.but(policies=(TWO,), pods={}, sizes={a: SIZES[a] for a in SECOND.values()}),
    "its label was removed": BEFORE.but(pods={"p21": 5}),
    "its address was passed on": BEFORE.but(policies=(replace(ONE, policy_id=7),), pods={"p12": 7}),
    "another policy selects it": BEFORE.but(pods={"p11": 6, "p21": 5, "p12": 5}),
    "its policy has another address": BEFORE.but(
        policies=(replace(ONE, egress_ips=TWO.egress_ips), replace(TWO, egress_ips=ONE.egress_ips))
    ),
    "its policy has other destinations": BEFORE.but(policies=(replace(ONE, destinations=ELSEWHERE), TWO)),
    "its node has other slices": BEFORE.but(slices={"n1": (50,), "n2": (42,), "n3": (40, 41)}),
}


def right(world: World, seen: Seen) -> bool:
    """Whether p11's connections may be seen so."""
    address, port = seen
    policy = next((p for p in world.policies if p.policy_id == world.pods.get("p11")), None)
    if policy is None or policy.destinations is not None:
        return address == node_address("n1", address.version)
    return address in policy.egress_ips and port in world.ports("n1", address)


def entries(cluster: Cluster, node: str, source: Address) -> list[str]:
    """The connections that a source has open to the host outside, as conntrack shows them."""
    listed = "".join(cluster.topology[node].sh("conntrack", "-L", "-f", f"ipv{v}") for v in VERSIONS)
    targets = [f"dst={OUTSIDE[v]}" for v in VERSIONS]
    return [line for line in listed.splitlines() if f"src={source} " in line and any(t in line for t in targets)]


def change(cluster: Cluster, world: World, *, restarted: bool) -> None:
    if restarted:
        for node in ("n1", "n2", "n3"):
            cluster.topology[node].call(traffic.kernel_forget)
    cluster.apply(world)


@pytest.mark.parametrize("restarted", [False, True], ids=["seen", "while the agent was down"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_pods_connections_begin_anew_when(cluster: Cluster, what: str, restarted: bool) -> None:
    pod, world = cluster.topology["p11"], CHANGES[what]
    cluster.apply(BEFORE)
    for version in VERSIONS:
        for kind in ("tcp", "udp"):
            seen = pod.call(traffic.open_flow, f"{kind}{version}", OUTSIDE[version], kind=kind)
            assert right(BEFORE, seen)
        assert pod.call(traffic.ping, OUTSIDE[version])
    change(cluster, world, restarted=restarted)
    lost = {node: cluster.counters(node).get("leak", 0) for node in ("n1", "n2")}
    for version in VERSIONS:
        with pytest.raises(InNamespace, match="ConnectionReset"):
            pod.call(traffic.use_flow, f"tcp{version}")
        assert right(world, pod.call(traffic.use_flow, f"udp{version}"))
        assert pod.call(traffic.ping, OUTSIDE[version])
    assert {node: cluster.counters(node).get("leak", 0) for node in ("n1", "n2")} == lost


@pytest.mark.parametrize("restarted", [False, True], ids=["seen", "while the agent was down"])
@pytest.mark.parametrize("what", ["its policy was deleted", "its policy has another address"])
def test_a_proxys_connections_end_when(cluster: Cluster, what: str, restarted: bool) -> None:
    gateway, source = cluster.topology["n2"], {v: proxy_source(5, v) for v in (4, 6)}
    cluster.apply(BEFORE)
    for version in VERSIONS:
        seen = gateway.call(traffic.open_flow, f"p{version}", OUTSIDE[version], source=source[version])
        assert seen[0] == EGRESS[version]
    change(cluster, CHANGES[what], restarted=restarted)
    for version in VERSIONS:
        assert entries(cluster, "n2", source[version]) == []
        # Reset by the far end where the policy still is, and refused on the spot where it is not.
        with pytest.raises(InNamespace, match=r"ConnectionReset|PermissionError|TimeoutError"):
            gateway.call(traffic.use_flow, f"p{version}")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("restarted", [False, True], ids=["seen", "while the agent was down"])
def test_connections_of_a_pod_that_is_gone_are_not_the_next_ones(
    cluster: Cluster, version: int, restarted: bool
) -> None:
    """The address is another pod's by now, which sends from the same port to the same place."""
    pod = cluster.topology["p11"]
    cluster.apply(BEFORE)
    assert right(BEFORE, pod.call(traffic.open_flow, "reused", OUTSIDE[version], kind="udp"))
    change(cluster, BEFORE.but(pods={"p21": 5}), restarted=restarted)
    assert entries(cluster, "n1", pod_address("p11", version)) == []
    assert pod.call(traffic.use_flow, "reused")[0] == node_address("n1", version)


@pytest.mark.parametrize("restarted", [False, True], ids=["seen", "while the agent was down"])
def test_connections_to_what_came_to_be_inside_the_cluster_leave_the_egress_ip(
    cluster: Cluster, restarted: bool
) -> None:
    pod, node = cluster.topology["p11"], cluster.topology["n1"]
    cluster.apply(BEFORE)
    for version in VERSIONS:
        assert right(BEFORE, pod.call(traffic.open_flow, f"in{version}", OUTSIDE[version], kind="udp"))
    inside = BEFORE.desired("n1")
    inside = replace(inside, excluded=inside.excluded | {ip_network(address) for address in OUTSIDE.values()})
    for desired, expected in ((inside, node_address), (BEFORE.desired("n1"), lambda _, version: EGRESS[version])):
        if restarted:
            node.call(traffic.kernel_forget)
        node.call(traffic.kernel_apply, desired, str(cluster.state / "n1"))
        for version in VERSIONS:
            assert pod.call(traffic.use_flow, f"in{version}")[0] == expected("n1", version)


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_leaves_with_the_old_address_between_the_rules_and_the_connections(cluster: Cluster, what: str) -> None:
    """The agent ends right after the rules were changed, and the next one makes up for it."""
    pod, out, world = cluster.topology["p11"], cluster.topology["out"], CHANGES[what]
    cluster.apply(BEFORE)
    for version in VERSIONS:
        assert right(BEFORE, pod.call(traffic.open_flow, f"gap{version}", OUTSIDE[version], kind="udp"))
    cluster.topology["n1"].call(traffic.kernel_apply_stopped, world.desired("n1"), str(cluster.state / "n1"))
    out.call(traffic.capture_start)
    for version in VERSIONS:
        pod.call(traffic.poke_flow, f"gap{version}", 5)
    packets = [p for p in out.call(traffic.capture_stop) if p.target in OUTSIDE.values()]
    assert not [packet for packet in packets if not right(world, (packet.source, packet.port or 0))]
    cluster.topology["n1"].call(traffic.kernel_forget)
    cluster.apply(world)
    for version in VERSIONS:
        assert right(world, pod.call(traffic.use_flow, f"gap{version}"))


def test_connections_made_under_rules_that_were_never_reported_begin_anew(cluster: Cluster) -> None:
    """An apply fails after its rules were taken, and what is wanted next is what was there before."""
    pod, node = cluster.topology["p11"], cluster.topology["n1"]
    between = CHANGES["another policy selects it"]
    cluster.apply(BEFORE)
    node.call(traffic.kernel_apply_stopped, between.desired("n1"), str(cluster.state / "n1"))
    for version in VERSIONS:
        assert right(between, pod.call(traffic.open_flow, f"made{version}", OUTSIDE[version], kind="udp"))
    cluster.apply(BEFORE)
    for version in VERSIONS:
        assert right(BEFORE, pod.call(traffic.use_flow, f"made{version}"))


def test_connections_that_are_none_of_sluices_survive_a_start(cluster: Cluster) -> None:
    """Those of unselected pods, inside the cluster, and of a node whose own address is within a pool's range."""
    cluster.topology["p31"].call(serve_once, [pod_address("p31", v) for v in VERSIONS])
    cluster.apply(BEFORE)
    held: dict[str, Seen] = {}
    for version in VERSIONS:
        inside = pod_address("p31", version)
        held[f"other{version}"] = cluster.topology["p12"].call(traffic.open_flow, f"other{version}", OUTSIDE[version])
        held[f"within{version}"] = cluster.topology["p12"].call(traffic.open_flow, f"within{version}", inside, 8091)
    world = BEFORE.desired("n1")
    ranges = frozenset({ip_network("172.18.0.0/16"), ip_network("fd00:18::/64")})
    own = frozenset(node_address("n1", version) for version in VERSIONS)
    node = cluster.topology["n1"]
    node.call(traffic.kernel_forget)
    report = node.call(
        traffic.kernel_apply, replace(world, pool_ranges=ranges, own_addresses=own), str(cluster.state / "n1")
    )
    assert report.flows_cut == 0
    for name, seen in held.items():
        assert cluster.topology["p12"].call(traffic.use_flow, name) == seen


def serve_once(addresses: list[Address]) -> None:
    """Serve, unless an earlier test does already."""
    try:
        traffic.serve(addresses, 8091)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
