"""The kernel path between real network stacks; what reaches the host outside is the judge."""

from ipaddress import ip_address, ip_network

import pytest
from tests.netns import datapath_traffic as traffic
from tests.netns.datapath_cluster import MARKS, VERSIONS, Cluster, cluster, topology
from tests.netns.datapath_topology import (
    EGRESS,
    FAR,
    NODES,
    OUTSIDE,
    InNamespace,
    World,
    node_address,
    pod_address,
    tunnel_mac,
)

from sluice_api.names import PROXY_UID, proxy_source
from sluice_node.core.desired import Destination, PolicyProgram, PortRange

__all__ = ["cluster", "topology"]
pytestmark = MARKS


@pytest.mark.parametrize("version", VERSIONS)
def test_every_kind_of_traffic_leaves_with_the_egress_ip_in_the_nodes_slice(cluster: Cluster, version: int) -> None:
    """Pods on the gateway and elsewhere, a host near and one far; TCP, UDP, ping."""
    cluster.apply(World())
    cluster.topology["out"].call(traffic.capture_start)
    for pod in ("p11", "p21", "p31"):
        space = cluster.topology[pod]
        for target in (OUTSIDE[version], FAR[version]):
            cluster.assert_ours(space.call(traffic.tcp, target), pod)
            cluster.assert_ours(space.call(traffic.udp, target), pod)
            assert space.call(traffic.ping, target)
    packets = cluster.topology["out"].call(traffic.capture_stop)
    cluster.assert_no_leak(packets)
    assert {packet.protocol for packet in packets} >= {6, 17, 1 if version == 4 else 58}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_node_tells_with_what_address_and_port_a_connection_left(cluster: Cluster, version: int) -> None:
    """Also of one that nobody answers: `helm test` needs no host outside."""
    cluster.apply(World())
    for pod in ("p11", "p21"):
        seen = cluster.topology[pod].call(traffic.tcp, OUTSIDE[version])
        with pytest.raises(InNamespace):
            cluster.topology[pod].call(traffic.udp, OUTSIDE[version], port=9)
        flows = cluster.topology[f"n{pod[1]}"].call(traffic.kernel_opened_by, pod_address(pod, version))
        told = {(flow.protocol, flow.target_port): (flow.seen, flow.seen_port) for flow in flows}
        assert told[6, traffic.PORT] == seen
        cluster.assert_ours(told[17, 9], pod)


@pytest.mark.parametrize("version", VERSIONS)
def test_full_sized_segments_and_path_mtu_discovery_work(cluster: Cluster, version: int) -> None:
    cluster.apply(World())
    for pod in ("p11", "p21"):
        for target in (OUTSIDE[version], FAR[version]):
            assert cluster.topology[pod].call(traffic.bulk, target, 200_000) == 200_000
            cluster.assert_ours(cluster.topology[pod].call(traffic.udp, target, size=4000), pod)


@pytest.mark.parametrize("version", VERSIONS)
def test_unselected_pods_are_untouched(cluster: Cluster, version: int) -> None:
    cluster.apply(World())
    for pod, node in (("p12", "n1"), ("p22", "n2")):
        space = cluster.topology[pod]
        assert space.call(traffic.tcp, OUTSIDE[version])[0] == node_address(node, version)
        assert space.call(traffic.udp, FAR[version])[0] == node_address(node, version)
        assert space.call(traffic.ping, OUTSIDE[version])
    assert cluster.counters("n1") == cluster.counters("n2") == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_traffic_inside_the_cluster_is_untouched(cluster: Cluster, version: int) -> None:
    """Pod to pod, pod to a service address (DNAT), and a connection from outside to a selected pod (NodePort)."""
    cluster.apply(World())
    server = pod_address("p22", version)
    cluster.topology["p22"].call(traffic.serve, [server])
    assert cluster.topology["p11"].call(traffic.tcp, server)[0] == pod_address("p11", version)
    family, service = ("ip", "10.96.0.10") if version == 4 else ("ip6", "fd00:96::10")
    goal = f"{server}:{traffic.PORT}" if version == 4 else f"[{server}]:{traffic.PORT}"
    cluster.topology["n1"].sh(
        "nft",
        "-f",
        "-",
        text=f"table {family} kube {{\nchain pre {{\ntype nat hook prerouting priority dstnat;\n"
        f"{family} daddr {service} tcp dport 80 dnat to {goal}\n}}\n}}\n",
    )
    assert cluster.topology["p11"].call(traffic.tcp, ip_address(service), port=80)[0] == pod_address("p11", version)
    cluster.topology["n1"].sh("nft", "delete", "table", family, "kube")
    inward = pod_address("p11", version)
    cluster.topology["p11"].call(traffic.serve, [inward])
    goal = f"{inward}:{traffic.PORT}" if version == 4 else f"[{inward}]:{traffic.PORT}"
    cluster.topology["n1"].sh(
        "nft",
        "-f",
        "-",
        text=f"table {family} kube {{\nchain pre {{\ntype nat hook prerouting priority dstnat;\n"
        f"{family} daddr {node_address('n1', version)} tcp dport 30080 dnat to {goal}\n}}\n}}\n",
    )
    cluster.topology["out"].call(traffic.tcp, node_address("n1", version), port=30080)
    cluster.topology["n1"].sh("nft", "delete", "table", family, "kube")


@pytest.mark.parametrize("version", VERSIONS)
def test_destinations_and_what_is_otherwise(cluster: Cluster, version: int) -> None:
    far = Destination(
        (ip_network("0.0.0.0/0"), ip_network("::/0")),
        excluded=(ip_network(OUTSIDE[4]), ip_network(OUTSIDE[6])),
        ports=(PortRange("TCP", 8000, 8080), PortRange("TCP", 8080, 8090)),
    )
    policy = PolicyProgram(5, "partners", (EGRESS[4], EGRESS[6]), destinations=(far,))
    cluster.apply(World(policies=(policy,)))
    space = cluster.topology["p11"]
    cluster.assert_ours(space.call(traffic.tcp, FAR[version]), "p11")
    assert space.call(traffic.udp, FAR[version])[0] == node_address("n1", version)
    assert space.call(traffic.tcp, OUTSIDE[version])[0] == node_address("n1", version)
    strict = PolicyProgram(5, "partners", (EGRESS[4], EGRESS[6]), destinations=(far,), otherwise="Drop")
    cluster.apply(World(policies=(strict,)))
    cluster.assert_ours(space.call(traffic.tcp, FAR[version]), "p11")
    with pytest.raises(InNamespace, match="TimeoutError"):
        space.call(traffic.udp, FAR[version], timeout=0.2)
    assert cluster.counters("n1")["otherwise"] >= 1


@pytest.mark.parametrize("version", VERSIONS)
def test_what_cannot_leave_rightly_is_dropped_by_its_own_counter(cluster: Cluster, version: int) -> None:
    """No gateway, no address of the family, no slice, a policy not ready, a protocol without ports."""
    space = cluster.topology["p11"]
    one_family = PolicyProgram(5, "partners", (EGRESS[10 - version],))
    cases = (
        ("no_gateway", World(live=())),
        ("no_address", World(policies=(one_family,))),
        ("no_slice", World(slices={"n1": (), "n2": (42,), "n3": ()})),
        ("pending", World(pods={}, blocked=("p11",))),
        ("pending", World(pods={"p11": 99})),
    )
    cluster.topology["out"].call(traffic.capture_start)
    for counter, world in cases:
        cluster.apply(world)
        before = cluster.counters("n1").get(counter, 0)
        for client in (traffic.tcp, traffic.udp):
            with pytest.raises(InNamespace, match="TimeoutError"):
                space.call(client, OUTSIDE[version], timeout=0.1)
        assert not space.call(traffic.ping, OUTSIDE[version], timeout=0.1)
        assert cluster.counters("n1").get(counter, 0) >= before + 3, counter
    assert not [p for p in cluster.topology["out"].call(traffic.capture_stop) if p.target == OUTSIDE[version]]


@pytest.mark.parametrize("version", VERSIONS)
def test_connections_survive_the_death_of_a_gateway(cluster: Cluster, version: int) -> None:
    """n2 holds the address and forwards; it dies; n3 takes both over; the same connections go on."""
    cluster.apply(World(gateways=("n2", "n3"), live=("n2",)))
    seen = {}
    for pod in ("p11", "p31"):
        for number in range(5):
            seen[pod, number] = cluster.topology[pod].call(traffic.open_flow, f"flow{number}", OUTSIDE[version])
    cluster.topology["lan"].ip("link set n2 nomaster")
    cluster.apply(World(gateways=("n2", "n3"), live=("n3",), holder="n3"), nodes=("n1", "n3"))
    for (pod, number), before in seen.items():
        assert cluster.topology[pod].call(traffic.use_flow, f"flow{number}") == before
        cluster.assert_ours(before, pod)
    cluster.assert_ours(cluster.topology["p11"].call(traffic.tcp, OUTSIDE[version]), "p11")


@pytest.mark.parametrize("version", VERSIONS)
def test_flows_are_spread_over_gateways_and_survive_a_planned_move(cluster: Cluster, version: int) -> None:
    cluster.apply(World(gateways=NODES))
    before = [cluster.topology["p11"].call(traffic.open_flow, f"move{n}", OUTSIDE[version]) for n in range(16)]
    for gateways, holder in ((("n1",), "n1"), (("n3",), "n3"), (("n2", "n3"), "n2")):
        cluster.apply(World(gateways=NODES, live=gateways, holder=holder))
        after = [cluster.topology["p11"].call(traffic.use_flow, f"move{n}") for n in range(16)]
        assert after == before
    for node in NODES:
        assert "leak" not in cluster.counters(node)


def test_an_edited_policy_cuts_nothing_that_it_still_covers(cluster: Cluster) -> None:
    cluster.apply(World())
    before = cluster.topology["p11"].call(traffic.open_flow, "edited", OUTSIDE[4])
    everything = Destination((ip_network("0.0.0.0/0"),))
    for destinations in ((everything,), (Destination((ip_network(OUTSIDE[4]),)), everything), None):
        policy = PolicyProgram(5, "partners", (EGRESS[4], EGRESS[6]), destinations=destinations)
        cluster.apply(World(policies=(policy,)))
        assert cluster.topology["p11"].call(traffic.use_flow, "edited") == before


def test_a_new_holder_announces_each_address_three_times(cluster: Cluster) -> None:
    """Once at once and once with each check, which is every second."""
    cluster.apply(World(gateways=("n2", "n3")))
    cluster.topology["out"].call(traffic.capture_start)
    cluster.apply(World(gateways=("n2", "n3"), holder="n3"))
    for _ in range(4):
        assert cluster.topology["n3"].call(traffic.kernel_check)
    everyone = ip_address("ff02::1")
    heard = [p for p in cluster.topology["out"].call(traffic.capture_stop) if p.target == everyone]
    assert [p.source for p in heard if p.source == EGRESS[6]] == [EGRESS[6]] * 3


def test_proxy_identity_leaves_as_the_policy_and_nowhere_else(cluster: Cluster) -> None:
    """A program without privileges bound to the identity source, on a gateway that is live and on one that is not."""
    cluster.apply(World(gateways=("n2", "n3"), live=("n2",)))
    for version in VERSIONS:
        for node in ("n2", "n3"):
            space = cluster.topology[node]
            identity = proxy_source(5, version)
            for target in (OUTSIDE[version], FAR[version]):
                seen = space.call(traffic.tcp, target, source=identity, uid=PROXY_UID)
                cluster.assert_ours(seen, f"p{node[1]}0")
            assert space.call(traffic.bulk, OUTSIDE[version], 300_000, source=identity) == 300_000
            assert space.call(traffic.bulk, FAR[version], 300_000, source=identity) == 300_000
            for target in (node_address("n1", version), pod_address("p11", version)):
                with pytest.raises(InNamespace):
                    space.call(traffic.tcp, target, source=identity, uid=PROXY_UID, timeout=0.2)
            with pytest.raises(InNamespace):
                space.call(traffic.tcp, OUTSIDE[version], source=proxy_source(6, version), uid=PROXY_UID, timeout=0.2)
            with pytest.raises(InNamespace, match="ConnectionRefused"):
                space.call(traffic.tcp, OUTSIDE[version], uid=PROXY_UID, timeout=0.5)
            assert space.call(traffic.tcp, OUTSIDE[version])[0] == node_address(node, version)


def test_the_proxy_sees_the_policy_of_its_client(cluster: Cluster) -> None:
    """Through the tunnel, at the local gateway, and none for a pod that is not selected."""
    cluster.apply(World())
    for version in VERSIONS:
        proxy = node_address("n2", version)
        cluster.topology["n2"].call(traffic.serve, [proxy], 13128)
        assert cluster.topology["p11"].call(traffic.mark_at, proxy, port=13128) == 5
        assert cluster.topology["p21"].call(traffic.mark_at, proxy, port=13128) == 5
        assert cluster.topology["p12"].call(traffic.mark_at, proxy, port=13128) == 0
        assert cluster.topology["p22"].call(traffic.mark_at, proxy, port=13128) == 0


def test_probes_come_back_from_a_gateways_kernel(cluster: Cluster) -> None:
    cluster.apply(World())
    macs = [tunnel_mac("n2"), tunnel_mac("n3"), "02:73:6c:00:00:09"]
    back = cluster.topology["n1"].call(traffic.probes, tunnel_mac("n1"), macs, seconds=0.3)
    assert back == {tunnel_mac("n2"): 1, tunnel_mac("n3"): 1}
    cluster.topology["lan"].ip("link set n2 nomaster")
    back = cluster.topology["n1"].call(traffic.probes, tunnel_mac("n1"), macs, seconds=0.3)
    assert back == {tunnel_mac("n3"): 1}
