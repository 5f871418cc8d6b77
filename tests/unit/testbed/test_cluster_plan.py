"""The address plan of a local cluster: what must never overlap, escape or collide."""

from ipaddress import ip_network
from itertools import combinations
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.cluster import ClusterError, ClusterOptions
from testbed.local import network
from testbed.local.plan import (
    EGRESS,
    LAN,
    PODS,
    SERVICES,
    TRANSFER,
    Plan,
    checked,
    netns_prefix,
)

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


def plan(nodes: int = 3, family: Literal["dual", "ipv4", "ipv6"] = "dual", link: int = 0) -> Plan:
    return Plan(ClusterOptions(nodes=nodes, ip_family=family), link)


def test_no_two_ranges_of_the_plan_overlap() -> None:
    ranges = [net for pair in (LAN, TRANSFER, PODS, SERVICES, EGRESS) for net in pair]
    for a, b in combinations(ranges, 2):
        assert a.version != b.version or not a.overlaps(b), (a, b)


@pytest.mark.parametrize("nodes", [1, 9, 16])
def test_each_node_has_pod_ranges_and_addresses_of_its_own_inside_the_clusters(nodes: int) -> None:
    p = plan(nodes)
    ranges = [net for node in p.nodes for net in p.pod_ranges(node)]
    assert len(set(ranges)) == 2 * nodes
    for net in ranges:
        assert any(net.version == whole.version and net.subnet_of(whole) for whole in p.pods)  # type: ignore[arg-type]
    addresses = [a for host in p.hosts for a in (*host.lan, *host.loopback)]
    assert len(set(addresses)) == len(addresses)


def test_the_agreed_addresses_stay_what_tests_rely_on() -> None:
    p = plan()
    assert [str(a) for a in p.host("n1").lan] == ["198.18.0.11", "fd00:18::11"]
    assert [str(a) for a in p.host("cp").lan] == ["198.18.0.10", "fd00:18::10"]
    assert [str(a) for a in p.host("outside").lan] == ["198.18.0.200", "fd00:18::200"]
    assert [str(a) for a in p.addresses_of("outside")] == ["203.0.113.10", "2001:db8:113::10"]
    assert [str(a) for a in p.addresses_of("far")] == ["203.0.113.20", "2001:db8:114::20"]
    assert [str(n) for n in p.pod_ranges("n2")] == ["10.244.2.0/24", "fd00:10:244:2::/64"]
    assert [str(a) for a in p.dns] == ["10.96.0.10", "fd00:10:96::a"]


@pytest.mark.parametrize(("family", "version"), [("ipv4", 4), ("ipv6", 6)])
def test_a_cluster_of_one_family_has_nothing_of_the_other(family: Literal["ipv4", "ipv6"], version: int) -> None:
    p = plan(family=family)
    for host in p.hosts:
        items = [*host.lan, *host.loopback, *(r.to for r in host.routes), *p.addresses_of(host.name)]
        assert {item.version for item in items} == {version}
    assert {net.version for net in (*p.pods, *p.services, *p.pod_ranges("n1"))} == {version}
    assert p.api_address.version == version


def test_every_host_but_the_control_plane_leaves_by_the_router_and_the_control_plane_by_nothing() -> None:
    p = plan()
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    for name, gateway in (("n1", "198.18.0.200"), ("far", "192.0.2.1")):
        gateways = [str(r.via) for r in p.host(name).routes if r.to in everything]
        assert gateways[0] == gateway
    for name in ("cp", "outside"):
        assert not [r for r in p.host(name).routes if r.to in everything]


def test_a_node_reaches_the_pods_of_every_other_node_and_not_its_own_by_the_lan() -> None:
    p = plan()
    routed = {r.to for r in p.host("n2").routes}
    assert set(p.pod_ranges("n1")) <= routed
    assert set(p.pod_ranges("n3")) <= routed
    assert not routed & set(p.pod_ranges("n2"))


def test_the_router_resolves_egress_addresses_on_the_lan_itself() -> None:
    on_link = {r.to: r for r in plan().host("outside").routes}
    for net in EGRESS:
        assert (on_link[net].via, on_link[net].device) == (None, "eth0")


@given(NAMES, NAMES)
def test_no_cluster_finds_namespaces_of_another(a: str, b: str) -> None:
    if a != b:
        assert not Plan(ClusterOptions(name=b)).netns("n1").startswith(netns_prefix(a))


@given(NAMES)
def test_a_name_that_is_accepted_fits_a_device_name(name: str) -> None:
    assert len(Plan(checked(ClusterOptions(name=name))).link_device) <= 15


@given(st.integers(0, 63), st.integers(0, 63))
def test_two_clusters_have_different_links_to_the_machine(a: int, b: int) -> None:
    mine, other = plan(link=a).link_addresses, plan(link=b).link_addresses
    assert mine[0].network == mine[1].network
    assert (mine[0].network == other[0].network) == (a == b)
    assert all(i.ip.is_link_local for i in mine)


@pytest.mark.parametrize("name", ["", "A", "a.b", "a/b", "-a", "a-", "thirteen-long"])
def test_names_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="cluster name"):
        checked(ClusterOptions(name=name))


@pytest.mark.parametrize("nodes", [0, -1, 61])
def test_node_counts_that_cannot_be_are_refused(nodes: int) -> None:
    with pytest.raises(ClusterError, match="nodes"):
        checked(ClusterOptions(nodes=nodes))


def test_an_unknown_host_is_named_with_those_there_are() -> None:
    with pytest.raises(ClusterError, match=r"no host 'n4'.*n1, n2, n3"):
        plan().host("n4")


def test_a_partition_is_by_the_plugs_of_the_link_that_both_hosts_are_on() -> None:
    assert network.plugs_between(plan(), "n1", "n2") == ("n1", "n2")
    assert network.plugs_between(plan(), "n1", "outside") == ("n1", "outside")
    assert network.plugs_between(plan(), "outside", "far") == ("outside-far", "far")
    for a, b in (("n1", "far"), ("n1", "n1")):
        with pytest.raises(ClusterError, match="not on one link"):
            network.plugs_between(plan(), a, b)


def test_the_far_host_is_behind_a_narrow_link_at_both_ends() -> None:
    p = plan()
    narrow = [port for host in p.hosts for port in host.ports if port.bridge == "far0"]
    assert [port.mtu for port in narrow] == [1300, 1300]
    for port in narrow:
        assert network.port_commands(port, switch="x")[0].count("mtu 1300") == 2


def test_addresses_in_ipv6_are_usable_at_once() -> None:
    (line,) = [c for c in network.port_commands(plan().host("n1").ports[0], switch="x") if "fd00" in c]
    assert line.endswith("nodad")


def test_pods_are_masqueraded_to_everything_but_pods_and_services() -> None:
    rules = network.masquerade_rules(plan())
    assert 'ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 10.96.0.0/16 } oifname "eth0" masquerade' in rules
    assert rules.count("masquerade\n") == 2


def test_only_routers_forward() -> None:
    forwarding = {h.name for h in plan(1).hosts if network.sysctls(h).get("net.ipv4.ip_forward") == "1"}
    assert forwarding == {"outside", "n1"}
