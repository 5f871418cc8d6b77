"""The kernel path keeps to its own: garbage, strangers, restarts, forged packets, and leaving a node as it was."""

import struct
from ipaddress import ip_address, ip_network

import pytest
from tests.netns import datapath_traffic as traffic
from tests.netns.datapath_cluster import MARKS, VERSIONS, Cluster, cluster, topology
from tests.netns.datapath_topology import (
    EGRESS,
    NODES,
    OUTSIDE,
    Address,
    InNamespace,
    World,
    node_address,
    pod_address,
    tunnel_mac,
)

from sluice_api.names import TUNNEL_PORT
from sluice_node.core.desired import Destination, PolicyProgram
from sluice_node.core.frames import checksum, mac_bytes

__all__ = ["cluster", "topology"]
pytestmark = MARKS

GARBAGE_IP = (
    "link add sluice0 type bridge",
    "link set sluice0 up",
    "rule add pref 600 from 10.9.9.9 lookup 7100",
    "rule add pref 600 fwmark 0x77 lookup main",
    "rule add pref 777 from 10.9.9.9 lookup main protocol 101",
    "route add unreachable default table 7100",
    "route add 10.99.0.0/16 dev eth0 table 7100",
    "route add 10.98.0.0/16 dev eth0 proto 101",
    "route add 2001:db8:99::/64 dev eth0 proto 101",
    "neigh add proxy 172.18.9.9 dev eth0 protocol 101",
)
GARBAGE_NFT = """
table inet sluice {
 chain steer {
  type filter hook forward priority 0; policy drop;
 }
 set pods4 { type inet_service; }
}
table netdev sluice {
 chain odd {
 }
}
"""


def state_of(cluster: Cluster, node: str) -> dict[str, str]:
    """Everything on a node that Sluice could have touched, as text; link-local addresses come and go by themselves."""
    space = cluster.topology[node]
    commands = {
        "rules": "nft -s list ruleset",
        "links": "ip -br link",
        "addresses": "ip -br addr",
        "routes": "ip route show table all",
        "routes6": "ip -6 route show table all",
        "policy": "ip rule",
        "policy6": "ip -6 rule",
        "proxies": "ip neigh show proxy",
        "proxies6": "ip -6 neigh show proxy",
        "settings": "sysctl net.ipv4.tcp_fwmark_accept net.ipv4.neigh.eth0.proxy_delay net.ipv6.neigh.eth0.proxy_delay"
        " net.ipv6.conf.eth0.proxy_ndp net.ipv4.conf.all.rp_filter net.ipv4.conf.eth0.rp_filter",
    }
    texts = {name: space.sh(*command.split()) for name, command in commands.items()}
    return {name: "\n".join(line for line in text.splitlines() if "fe80:" not in line) for name, text in texts.items()}


def test_removal_leaves_the_node_as_it_was(cluster: Cluster) -> None:
    before = {node: state_of(cluster, node) for node in NODES}
    cluster.apply(World(gateways=NODES))
    cluster.topology["p11"].call(traffic.tcp, OUTSIDE[4])
    for node in NODES:
        assert state_of(cluster, node) != before[node]
        cluster.topology[node].call(traffic.kernel_forget)
        cluster.topology[node].call(traffic.kernel_clean_up, str(cluster.state / node))
        assert state_of(cluster, node) == before[node]
        flows = cluster.topology[node].sh("conntrack", "-L")
        assert str(EGRESS[4]) not in flows


def test_garbage_under_our_names_is_replaced_and_foreign_objects_stay(cluster: Cluster) -> None:
    node = cluster.topology["n1"]
    foreign = ("rule add pref 500 from 10.9.9.9 lookup main", "route add 10.97.0.0/16 dev eth0 proto 99")
    node.ip(*GARBAGE_IP, *foreign, "neigh add proxy 172.18.8.8 dev eth0")
    node.sh(*["ip", "-6", "rule", "add", "pref", "601", "from", "2001:db8::9", "lookup", "main"])
    node.sh("nft", "-f", "-", text=GARBAGE_NFT)
    cluster.apply(World())
    cluster.assert_ours(cluster.topology["p11"].call(traffic.tcp, OUTSIDE[4]), "p11")
    assert node.call(traffic.kernel_check)
    state = state_of(cluster, "n1")
    assert [line for line in state["policy"].splitlines() if "10.9.9.9" in line] == ["500:\tfrom 10.9.9.9 lookup main"]
    assert "2001:db8::9" not in state["policy6"]
    assert "10.99.0.0" not in state["routes"]
    assert "10.98.0.0" not in state["routes"]
    assert "2001:db8:99::" not in state["routes6"]
    assert "10.97.0.0" in state["routes"]
    assert "172.18.8.8" in state["proxies"]
    assert "172.18.9.9" not in state["proxies"]
    node.ip("rule del pref 500", "route del 10.97.0.0/16 dev eth0 proto 99", "neigh del proxy 172.18.8.8 dev eth0")


def test_a_second_apply_changes_nothing(cluster: Cluster) -> None:
    world = World(gateways=("n1", "n2"))
    cluster.apply(world)
    for node in NODES:
        state = str(cluster.state / node)
        report = cluster.topology[node].call(traffic.kernel_apply, world.desired(node), state)
        assert not report.changed
        assert cluster.topology[node].call(traffic.kernel_check)


@pytest.mark.parametrize(
    "vandalism",
    [
        "nft flush ruleset",
        "nft flush set inet sluice egress_ips4",
        "nft delete table netdev sluice",
        "nft insert rule inet sluice guard accept",
        "ip rule del pref 600",
        "ip -6 rule del pref 601",
        "ip route flush table 7100",
        "ip link set sluice0 down",
        "ip link del sluice0",
        "ip neigh del proxy 172.18.1.1 dev eth0",
        "ip link set eth0 mtu 1400",
        "sysctl -qw net.ipv6.conf.eth0.proxy_ndp=0",
    ],
)
def test_what_strangers_break_is_seen_and_mended(cluster: Cluster, vandalism: str) -> None:
    cluster.apply(World())
    node = cluster.topology["n2"]
    assert node.call(traffic.kernel_check)
    tables = node.sh("nft", "list", "table", "ip", "nat")
    node.sh(*vandalism.split())
    assert not node.call(traffic.kernel_check)
    cluster.apply(World(), nodes=("n2",))
    assert node.call(traffic.kernel_check)
    if "ruleset" in vandalism:
        node.sh("nft", "-f", "-", text=tables)
    node.ip("link set eth0 mtu 1500")
    cluster.assert_ours(cluster.topology["p11"].call(traffic.tcp, OUTSIDE[4]), "p11")
    cluster.assert_ours(cluster.topology["p21"].call(traffic.tcp, OUTSIDE[6]), "p21")


def test_changes_of_others_are_not_taken_for_ours(cluster: Cluster) -> None:
    cluster.apply(World())
    node = cluster.topology["n1"]
    node.sh("nft", "-f", "-", text="table ip other {\nchain c {\n}\n}\n")
    node.sh("nft", "delete", "table", "ip", "other")
    assert node.call(traffic.kernel_check)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_agent_that_starts_again_cuts_nothing(cluster: Cluster, version: int) -> None:
    cluster.apply(World())
    before = cluster.topology["p11"].call(traffic.open_flow, "restart", OUTSIDE[version])
    for node in NODES:
        cluster.topology[node].call(traffic.kernel_forget)
    assert cluster.topology["p11"].call(traffic.use_flow, "restart") == before
    cluster.apply(World())
    assert cluster.topology["p11"].call(traffic.use_flow, "restart") == before
    for node in NODES:
        assert "leak" not in cluster.counters(node)


def test_nothing_leaks_while_everything_changes(cluster: Cluster) -> None:
    """Pods send all the time, on old flows and new ones, while gateways, holder, policy and agents come and go."""
    base = World(gateways=NODES)
    everything = Destination((ip_network("0.0.0.0/0"), ip_network("::/0")))
    edited = PolicyProgram(5, "partners", (EGRESS[4], EGRESS[6]), destinations=(everything,), otherwise="Drop")
    cluster.apply(base)
    cluster.topology["out"].call(traffic.capture_start)
    pods = [cluster.topology[name] for name in ("p11", "p21")]
    for pod in pods:
        pod.call(traffic.stream_start, [OUTSIDE[4], OUTSIDE[6]], seconds=20)
    for turn in range(2):
        for live in (("n2",), ("n3",), (), ("n1", "n3")):
            cluster.apply(base.but(live=live, holder="n3" if turn else "n2"))
        cluster.apply(base.but(policies=(edited,)))
        for node in NODES:
            cluster.topology[node].call(traffic.kernel_forget)
        cluster.apply(base)
    for pod in pods:
        pod.call(traffic.stream_stop)
    packets = cluster.topology["out"].call(traffic.capture_stop)
    cluster.assert_no_leak(packets)
    assert len([packet for packet in packets if packet.target in OUTSIDE.values()]) > 100


@pytest.mark.parametrize("version", VERSIONS)
def test_connections_end_when_their_pod_becomes_selected_or_is_no_longer(cluster: Cluster, version: int) -> None:
    """Open ones are reset by the far end rather than hang; those inside the cluster go on."""
    pod, inside = cluster.topology["p11"], pod_address("p31", version)
    cluster.topology["p31"].call(traffic.serve, [inside], 8090)
    cluster.apply(World(pods={}))
    assert pod.call(traffic.open_flow, "before", OUTSIDE[version])[0] == node_address("n1", version)
    within = pod.call(traffic.open_flow, "within", inside, 8090)
    cluster.apply(World(pods={"p11": 5}))
    with pytest.raises(InNamespace, match="ConnectionReset"):
        pod.call(traffic.use_flow, "before")
    assert pod.call(traffic.use_flow, "within") == within
    cluster.assert_ours(pod.call(traffic.open_flow, "after", OUTSIDE[version]), "p11")
    cluster.apply(World(pods={}))
    with pytest.raises(InNamespace, match="ConnectionReset"):
        pod.call(traffic.use_flow, "after")
    assert pod.call(traffic.use_flow, "within") == within


def _udp(source: Address, target: Address, *, sport: int, dport: int, payload: bytes = b"forged") -> bytes:
    """An IPv4 UDP packet without checksum."""
    udp = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, source.packed, target.packed)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def _in_tunnel(outer: Address, to: Address, *, mac: str, to_mac: str, inner: bytes) -> bytes:
    frame = mac_bytes(to_mac) + mac_bytes(mac) + b"\x08\x00" + inner
    vxlan = bytes.fromhex("8800000500006500") + frame
    return _udp(outer, to, sport=40000, dport=TUNNEL_PORT, payload=vxlan)


def test_forged_tunnel_packets_go_nowhere(cluster: Cluster) -> None:
    """From strangers, from a peer with another's slice, from a pod, to services inside; each in its counter."""
    cluster.apply(World())
    gateway, lan = node_address("n2", 4), "02:00:00:00:00:12"
    good = {"mac": tunnel_mac("n1"), "to_mac": tunnel_mac("n2")}

    def inner(port: int, target: Address = OUTSIDE[4], source: Address = EGRESS[4]) -> bytes:
        return _udp(source, target, sport=port, dport=9)

    def on_lan(packet: bytes, source_mac: str) -> bytes:
        return mac_bytes(lan) + mac_bytes(source_mac) + b"\x08\x00" + packet

    cases = {
        "unknown outer address": (
            "stranger",
            _in_tunnel(ip_address("172.18.0.77"), gateway, inner=inner(40960), **good),
        ),
        "a peer's address with another's MAC": (
            "stranger",
            _in_tunnel(node_address("n3", 4), gateway, inner=inner(40960), **good),
        ),
        "another node's slice": ("spoofed", _in_tunnel(node_address("n1", 4), gateway, inner=inner(45056), **good)),
        "no egress IP": (
            "spoofed",
            _in_tunnel(node_address("n1", 4), gateway, inner=inner(40960, source=pod_address("p11", 4)), **good),
        ),
        "into the cluster": (
            "spoofed",
            _in_tunnel(
                node_address("n1", 4),
                gateway,
                inner=inner(40960, source=ip_address("240.0.0.5"), target=pod_address("p22", 4)),
                **good,
            ),
        ),
        "reply to a port of nobody": ("unsolicited", _udp(OUTSIDE[4], EGRESS[4], sport=9, dport=1024)),
        "identity from the LAN": ("forged_identity", _udp(ip_address("240.0.0.5"), gateway, sport=9, dport=9)),
    }
    cluster.topology["out"].call(traffic.capture_start)
    for name, (counter, packet) in cases.items():
        before = cluster.counters("n2").get(counter, 0)
        cluster.topology["out"].call(traffic.send_frames, "eth0", [on_lan(packet, "02:00:00:00:01:00")])
        assert cluster.counters("n2").get(counter, 0) == before + 1, name
    allowed = _in_tunnel(node_address("n1", 4), gateway, inner=inner(40960), **good)
    cluster.topology["out"].call(traffic.send_frames, "eth0", [on_lan(allowed, "02:00:00:00:01:00")])
    packets = [p for p in cluster.topology["out"].call(traffic.capture_stop) if p.target == OUTSIDE[4]]
    assert packets == [traffic.Packet(EGRESS[4], OUTSIDE[4], 17, 40960)]


def test_pods_cannot_speak_to_the_tunnel_or_as_the_egress_ip(cluster: Cluster) -> None:
    cluster.apply(World())
    pod = cluster.topology["p12"]
    mac = pod.sh("cat", "/sys/class/net/eth0/address").strip()
    router = cluster.topology["n1"].sh("cat", "/sys/class/net/veth2/address").strip()

    def frame(packet: bytes) -> bytes:
        return mac_bytes(router) + mac_bytes(mac) + b"\x08\x00" + packet

    own = pod_address("p12", 4)
    forged = _in_tunnel(
        own,
        node_address("n2", 4),
        mac=tunnel_mac("n1"),
        to_mac=tunnel_mac("n2"),
        inner=_udp(EGRESS[4], OUTSIDE[4], sport=40960, dport=9),
    )
    cluster.topology["out"].call(traffic.capture_start)
    pod.call(traffic.send_frames, "eth0", [frame(forged), frame(_udp(EGRESS[4], OUTSIDE[4], sport=40960, dport=9))])
    assert cluster.counters("n1").get("stranger", 0) == 1
    assert not [p for p in cluster.topology["out"].call(traffic.capture_stop) if p.target == OUTSIDE[4]]


def test_the_tunnel_works_over_ipv6(cluster: Cluster) -> None:
    cluster.apply(World(underlay=6))
    for version in VERSIONS:
        cluster.assert_ours(cluster.topology["p11"].call(traffic.tcp, OUTSIDE[version]), "p11")
        assert cluster.topology["p11"].call(traffic.bulk, OUTSIDE[version], 100_000) == 100_000
    back = cluster.topology["n1"].call(traffic.probes, tunnel_mac("n1"), [tunnel_mac("n2")], seconds=0.3)
    assert back == {tunnel_mac("n2"): 1}
