"""What the API server says becomes what the kernel must do, and never more than a claim proves."""

from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network
from typing import Any

import pytest

from sluice_node.core.desired import DesiredNode, Peer, PolicyProgram, SliceOwner
from sluice_node.core.holder import holder
from sluice_node.core.links import Links
from sluice_node.core.objects import (
    EgressIP,
    EgressNode,
    Key,
    Node,
    Pod,
    Policy,
    Pool,
    Selector,
    ServiceCIDR,
    TunnelEnd,
)
from sluice_node.core.resolve import NEVER_REDIRECTED, UnresolvableError, probed, react, resolve, tunnel_mac
from sluice_node.core.select import select
from sluice_node.core.snapshot import Snapshot

V4, V6 = ip_address("198.51.100.7"), ip_address("2001:db8:5::7")
POD_V4, POD_V6 = ip_address("10.1.0.5"), ip_address("fd00:1::5")
POD = Pod(Key("ns", "pod"), "1", {}, "default", (POD_V4, POD_V6))
POLICY = Policy(Key("ns", "a"), 1, "1", "partners", Selector(), policy_id=5, addresses=(V4, V6), revision=9)
POOL = Pool(Key("", "partners"), 1024, announces=True, proxy_port=13128)
LINKS = Links(
    (
        ("eth0", IPv4Interface("192.0.2.1/24")),
        ("eth0", IPv6Interface("2001:db8::1/64")),
        ("eth1", IPv4Interface("198.51.100.200/24")),
    ),
    {4: "eth0", 6: "eth0"},
    names=frozenset({"eth0", "eth1", "bond7"}),
)


def claim(address: Any = V4, *, pool: str = "partners", policy: Key = POLICY.key) -> EgressIP:
    first = 1024 if address.version == 4 else 2048
    return EgressIP(Key("", str(address)), address, pool, policy, None, (SliceOwner(address, first, 1024, "n1"),))


def other(number: int, *gateway_for: str) -> EgressNode:
    address = ip_address(f"192.0.2.{number}")
    return EgressNode(
        Key("", f"n{number}"),
        (address,),
        (ip_network(f"10.{number}.0.0/24"),),
        TunnelEnd(address, tunnel_mac(f"n{number}")),
        frozenset(gateway_for),
    )


def gateway_pod(**changes: Any) -> Pod:
    pod = Pod(Key("sluice-system", "gw"), "1", {}, "default", (ip_address("192.0.2.1"),), True)
    return replace(pod, **({"ready": True, "gateway_for": "partners"} | changes))


BASE = Snapshot(
    node=Node("n1", "uid", (ip_address("192.0.2.1"), ip_address("2001:db8::1")), (ip_network("10.1.0.0/24"),)),
    links=LINKS,
    pods=(POD,),
    policies=(POLICY,),
    pools={"partners": POOL},
    egress_ips=(claim(V4), claim(V6)),
    egress_nodes=(other(2, "partners"), other(3, "partners"), other(4)),
    service_cidrs=(ServiceCIDR(Key("", "kubernetes"), (ip_network("10.96.0.0/16"),)),),
    alive=frozenset({"n2", "n3"}),
)


def resolved(**changes: Any) -> DesiredNode:
    snapshot = replace(BASE, **changes)
    return resolve(snapshot, select(snapshot.pods, snapshot.policies))


def test_a_selected_pod_gets_its_policy() -> None:
    desired = resolved()
    assert desired.pods == {POD_V4: 5, POD_V6: 5}
    assert desired.policies == (PolicyProgram(5, "partners", (V4, V6)),)
    assert desired.blocked_pods == frozenset()
    assert desired.live_gateways == {"partners": ("n2", "n3")}
    assert not desired.is_gateway


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"policies": (replace(POLICY, policy_id=None),)}, "no id yet"),
        ({"policies": (replace(POLICY, addresses=()),)}, "no address yet"),
        ({"egress_ips": ()}, "a status without a claim proves nothing"),
        ({"egress_ips": (claim(policy=Key("ns", "b")),)}, "the claim is another policy's"),
    ],
)
def test_pods_of_a_policy_that_may_use_nothing_are_blocked(changes: dict[str, Any], why: str) -> None:
    desired = resolved(**changes)
    assert desired.blocked_pods == {POD_V4, POD_V6}, why
    assert (desired.pods, desired.policies) == ({}, ())


def test_a_family_without_a_claim_has_no_address() -> None:
    assert resolved(egress_ips=(claim(V4),)).policies == (PolicyProgram(5, "partners", (V4,)),)


def test_of_two_policies_with_one_id_only_one_is_programmed() -> None:
    twin = replace(POLICY, key=Key("other", "a"), addresses=(ip_address("198.51.100.8"),))
    twin_pod = replace(POD, key=Key("other", "pod"), addresses=(ip_address("10.1.0.6"),))
    claims = (*BASE.egress_ips, claim(twin.addresses[0], policy=twin.key))
    desired = resolved(policies=(POLICY, twin), pods=(POD, twin_pod), egress_ips=claims)
    assert len(desired.policies) == 1
    assert desired.blocked_pods == {ip_address("10.1.0.6")}


def test_while_a_policy_moves_to_another_pool_its_old_claims_serve() -> None:
    moving = replace(POLICY, pool="new")
    assert resolved(policies=(moving,)).policies == (PolicyProgram(5, "partners", (V4, V6)),)
    claims = (claim(V4, pool="new"), claim(V6))
    assert resolved(policies=(moving,), egress_ips=claims).policies == (PolicyProgram(5, "new", (V4,)),)


def test_a_policy_without_pods_here_is_not_programmed_unless_its_proxies_are_here() -> None:
    assert resolved(pods=()).policies == ()
    assert resolved(pods=(gateway_pod(),)).policies == (PolicyProgram(5, "partners", (V4, V6)),)


def test_nothing_inside_the_cluster_is_redirected() -> None:
    extra = frozenset({ip_network("172.20.0.0/16")})
    excluded = resolved(never_redirected=extra).excluded
    expected = {"10.1.0.0/24", "10.2.0.0/24", "10.96.0.0/16", "192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128"}
    assert {ip_network(text) for text in expected} | NEVER_REDIRECTED | extra <= excluded


@pytest.mark.parametrize(
    ("pod", "is_live", "is_host"),
    [
        (gateway_pod(), True, True),
        (gateway_pod(ready=False), False, True),
        (gateway_pod(terminating=True), False, True),
        (gateway_pod(finished=True), False, False),
        (gateway_pod(key=Key("tenant", "gw")), False, False),
        (gateway_pod(gateway_for=None), False, False),
    ],
    ids=["ready", "starting", "draining", "ended", "of another namespace", "no gateway"],
)
def test_a_node_is_gateway_while_a_pod_is_ready_and_host_while_it_lives(pod: Pod, is_live: bool, is_host: bool) -> None:
    desired = resolved(pods=(POD, pod), egress_nodes=(), alive=frozenset())
    assert desired.live_gateways == {"partners": ("n1",) if is_live else ()}
    assert desired.is_gateway is is_host
    assert bool(desired.announced) is is_live
    assert bool(desired.proxy_endpoints) is is_live


def test_a_gateway_that_does_not_answer_is_not_used() -> None:
    assert resolved(alive=frozenset({"n3", "n4"})).live_gateways == {"partners": ("n3",)}


def test_the_short_way_gives_what_the_long_way_gives() -> None:
    pods = (POD, gateway_pod())
    for alive in (frozenset[str](), frozenset({"n2"}), frozenset({"n2", "n3"})):
        assert react(resolved(pods=pods), replace(BASE, pods=pods, alive=alive)) == resolved(pods=pods, alive=alive)


def test_each_egress_ip_has_one_holder_among_gateways_that_see_each_other() -> None:
    gateways = ("n1", "n2", "n3")
    for address in (V4, V6):
        mine = address in resolved(pods=(gateway_pod(),)).announced
        assert mine is (holder(address, gateways) == "n1")


@pytest.mark.parametrize(
    ("pool", "interface"),
    [
        (POOL, "eth1"),
        (replace(POOL, interface="bond7"), "bond7"),
        (replace(POOL, interface="eth7"), None),
        (replace(POOL, announces=False), None),
    ],
    ids=["the interface whose network it is in", "the pool's choice", "one that is not there", "not at all"],
)
def test_an_egress_ip_is_announced_where_it_belongs(pool: Pool, interface: str | None) -> None:
    desired = resolved(pods=(gateway_pod(),), egress_nodes=(), pools={"partners": pool})
    assert desired.announced.get(V4) == interface


def test_an_egress_ip_of_no_local_network_is_announced_towards_the_default_route() -> None:
    assert resolved(pods=(gateway_pod(),), egress_nodes=()).announced[V6] == "eth0"


def test_an_address_that_rests_is_nobodys() -> None:
    resting = (replace(claim(V4), resting=True), claim(V6))
    desired = resolved(egress_ips=resting, pods=(POD, gateway_pod()), egress_nodes=())
    assert desired.policies[0].egress_ips == (V6,)
    assert desired.announced.keys() == {V6}
    assert {owner.egress_ip for owner in desired.slices} == {V6}


def test_peers_are_the_others_and_none_that_pretends_to_be_this_node() -> None:
    thief = replace(other(9), tunnel=TunnelEnd(ip_address("192.0.2.1"), tunnel_mac("n9")))
    forger = replace(other(8), tunnel=TunnelEnd(ip_address("192.0.2.8"), tunnel_mac("n1")))
    newborn = EgressNode(Key("", "n7"))
    peers = resolved(egress_nodes=(other(1), other(2), newborn, forger, thief)).peers
    assert peers == (Peer("n2", ip_address("192.0.2.2"), tunnel_mac("n2")),)


def test_the_tunnel_mac_follows_from_the_name_alone() -> None:
    assert tunnel_mac("n1") == tunnel_mac("n1") != tunnel_mac("n2")
    assert tunnel_mac("n1").startswith("02:65:")
    assert int(tunnel_mac("n1")[:2], 16) & 0b11 == 0b10, "locally administered, unicast"


def test_slices_of_all_nodes_are_known() -> None:
    theirs = SliceOwner(V4, 4096, 1024, "n4")
    both = replace(claim(V4), slices=(*claim(V4).slices, theirs))
    assert theirs in resolved(egress_ips=(both,)).slices


def test_proxies_are_found_at_every_address_of_a_gateway() -> None:
    endpoints = resolved().proxy_endpoints
    assert endpoints == {(ip_address("192.0.2.2"), 13128): "n2", (ip_address("192.0.2.3"), 13128): "n3"}


def test_an_address_of_this_node_is_never_anothers_proxy() -> None:
    thief = replace(other(2, "partners"), addresses=BASE.node.addresses)
    endpoints = resolved(pods=(gateway_pod(),), egress_nodes=(thief,)).proxy_endpoints
    assert set(endpoints.values()) == {"n1"}


def test_only_gateways_of_pools_in_use_are_probed() -> None:
    desired = resolved()
    assert [peer.node for peer in probed(BASE, desired)] == ["n2", "n3"]
    assert probed(BASE, resolved(pods=())) == ()


def test_the_interface_of_the_tunnel_comes_first_among_the_uplinks() -> None:
    pool = replace(POOL, interface="eth7")
    assert resolved(pools={"partners": pool}).uplinks == ("eth0", "eth7")


@pytest.mark.parametrize(
    "changes",
    [{"node": replace(BASE.node, addresses=())}, {"links": Links()}],
    ids=["no InternalIP", "not on this host"],
)
def test_a_node_that_cannot_be_programmed_is_said_not_guessed(changes: dict[str, Any]) -> None:
    with pytest.raises(UnresolvableError):
        resolved(**changes)
