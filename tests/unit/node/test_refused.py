"""An agent has nothing to do with an address that is somebody's, whatever the API server says."""

import json
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_node.core.desired import Address, DesiredNode, SliceOwner
from sluice_node.core.links import Links
from sluice_node.core.objects import (
    EgressIP,
    EgressNode,
    Endpoints,
    Key,
    Node,
    Pod,
    Policy,
    Pool,
    Selector,
    ServiceCIDR,
    TunnelEnd,
)
from sluice_node.core.report import acknowledged
from sluice_node.core.resolve import react, resolve
from sluice_node.core.resolve_proxy import proxy_line
from sluice_node.core.select import select
from sluice_node.core.snapshot import Snapshot

FREE, FREE_V6 = ip_address("198.51.100.7"), ip_address("2001:db8:5::7")
POLICY = Policy(Key("ns", "a"), 1, "1", "partners", Selector(), policy_id=5, addresses=(FREE, FREE_V6), revision=9)
LATER = Policy(Key("ns2", "b"), 1, "1", "partners", Selector(), policy_id=6, revision=10)
POD = Pod(Key("ns", "pod"), "1", {}, "default", (ip_address("10.1.0.5"), ip_address("fd00:1::5")))
GATEWAY_POD = Pod(
    Key("sluice-system", "gw"), "1", {}, "default", (ip_address("192.0.2.1"),), True, ready=True, gateway_for="partners"
)
BASE = Snapshot(
    node=Node("n1", "uid", (ip_address("192.0.2.1"), ip_address("2001:db8::1")), (ip_network("10.1.0.0/24"),)),
    links=Links(
        (
            ("eth0", IPv4Interface("192.0.2.1/24")),
            ("eth0", IPv6Interface("2001:db8::1/64")),
            ("eth1", IPv4Interface("198.51.100.200/24")),
            ("ppp0", IPv4Interface("203.0.113.1/31")),
        ),
        {4: "eth0", 6: "eth0"},
        frozenset({ip_address("192.0.2.254"), ip_address("2001:db8::fe")}),
        {ip_address("198.51.100.99"): "veth5"},
    ),
    pods=(
        POD,
        GATEWAY_POD,
        replace(POD, key=Key("other", "lan"), addresses=(ip_address("198.51.100.66"),)),
        replace(POD, key=Key("other", "done"), addresses=(ip_address("198.51.100.67"),), finished=True),
    ),
    policies=(POLICY, LATER),
    pools={"partners": Pool(Key("", "partners"), 1024, announces=True, proxy_port=13128)},
    egress_nodes=(
        EgressNode(
            Key("", "n2"),
            (ip_address("192.0.2.2"),),
            (ip_network("10.2.0.0/24"),),
            TunnelEnd(ip_address("198.51.100.2"), "02:65:00:00:00:02"),
        ),
    ),
    service_cidrs=(ServiceCIDR(Key("", "kubernetes"), (ip_network("10.96.0.0/16"), ip_network("fd00:96::/112"))),),
    api_endpoints=(Endpoints(Key("default", "kubernetes"), (ip_address("198.51.100.5"),)),),
    api_server=frozenset({ip_address("198.51.100.6")}),
)

TAKEN: dict[str, str] = {
    "192.0.2.1": "an address of this node",
    "2001:db8::1": "an address of this node",
    "198.51.100.200": "an address of this node, on eth1",
    "192.0.2.2": "an address of node n2",
    "198.51.100.2": "an address of node n2",
    "198.51.100.66": "the address of a pod on this node",
    "10.1.0.77": "the pods of this node",
    "10.2.0.5": "the pods of node n2",
    "10.96.0.1": "the range of Services",
    "fd00:96::1": "the range of Services",
    "198.51.100.5": "the API server's",
    "198.51.100.6": "the API server's",
    "192.0.2.254": "the next hop of a route",
    "2001:db8::fe": "the next hop of a route",
    "198.51.100.99": "a host's behind veth5",
    "192.0.2.255": "the broadcast address of 192.0.2.0/24 on eth0",
    "192.0.2.0": "the network address of 192.0.2.0/24 on eth0",
    "2001:db8::": "the routers' anycast address of 2001:db8::/64 on eth0",
    "255.255.255.255": "reserved or broadcast",
    "0.0.0.1": "of this network only",
    "127.0.0.1": "loopback",
    "169.254.1.1": "link-local",
    "224.0.0.5": "multicast",
    "::1": "loopback",
    "::ffff:c633:6409": "IPv4 address in IPv6 form",
    "fe80::1": "link-local",
    "ff02::1": "multicast",
    "240.0.0.5": "reserved or broadcast",
    "100:0:0:1::5": "identity of Sluice's proxies",
}


def claim(address: Address, policy: Policy = POLICY) -> EgressIP:
    return EgressIP(
        Key("", str(address)), address, "partners", policy.key, None, (SliceOwner(address, 1024, 1024, "n1"),)
    )


def with_claims(*addresses: Address, **changes: Any) -> Snapshot:
    policy = replace(POLICY, addresses=addresses)
    claims = tuple(claim(address) for address in addresses)
    return replace(BASE, policies=(policy, LATER), egress_ips=claims, **changes)


def resolved(snapshot: Snapshot) -> DesiredNode:
    return resolve(snapshot, select(snapshot.pods, snapshot.policies))


def mentions(desired: DesiredNode, address: Address) -> bool:
    """Whether the address would get into any rule, route or answer of the node as an egress IP."""
    return (
        any(address in policy.egress_ips for policy in desired.policies)
        or any(piece.egress_ip == address for piece in desired.slices)
        or address in desired.announced
    )


@pytest.mark.parametrize("text", TAKEN)
def test_an_address_that_is_somebodys_reaches_no_rule_and_the_reason_is_said(text: str) -> None:
    address = ip_address(text)
    other = FREE_V6 if address.version == 4 else FREE
    snapshot = with_claims(address, other)
    desired = resolved(snapshot)
    assert not mentions(desired, address)
    assert not mentions(react(desired, replace(snapshot, alive=frozenset({"n2"}))), address)
    assert TAKEN[text] in snapshot.refused[address]
    assert mentions(desired, other), "the other family's address is used"
    assert desired.pods[POD.addresses[0]] == 5, "the pod stays steered, so that its packets are dropped and do not leak"
    told = [entry["addresses"] for entry in json.loads(proxy_line("partners", snapshot))["policies"]]
    assert told == [[str(other)]], "nor does the proxy hear of it"


def test_pods_of_a_policy_whose_addresses_are_all_refused_send_nothing_out() -> None:
    desired = resolved(with_claims(ip_address("192.0.2.254"), ip_address("2001:db8::1")))
    assert desired.policies == ()
    assert desired.blocked_pods == frozenset(POD.addresses)
    assert desired.slices == ()
    assert desired.announced == {}


@pytest.mark.parametrize("address", ["198.51.100.7", "198.51.100.67", "203.0.113.0", "2001:db8:5::7", "192.0.2.77"])
def test_an_address_of_nobody_is_used(address: str) -> None:
    snapshot = with_claims(ip_address(address))
    assert mentions(resolved(snapshot), ip_address(address))
    assert snapshot.refused == {}


def test_an_address_that_was_taken_back_is_refused_until_it_no_longer_is() -> None:
    snapshot = with_claims(FREE, FREE_V6, withheld={FREE: "it cut off the API server"})
    assert snapshot.refused == {FREE: "it cut off the API server"}
    assert not mentions(resolved(snapshot), FREE)
    assert mentions(resolved(replace(snapshot, withheld={})), FREE)


def test_a_refused_claim_keeps_no_other_policy_waiting() -> None:
    snapshot = with_claims(ip_address("192.0.2.254"), FREE_V6)
    assert acknowledged(snapshot, before=0) == LATER.revision


@pytest.mark.parametrize("text", ["192.0.2.1", "198.51.100.200", "192.0.2.2"])
def test_what_nodes_send_is_never_steered_whatever_a_pods_status_says(text: str) -> None:
    address = ip_address(text)
    pod = replace(POD, addresses=(address, ip_address("10.1.0.6")))
    for addresses in ((FREE, FREE_V6), ()):
        desired = resolved(with_claims(*addresses, pods=(pod, GATEWAY_POD)))
        assert address not in desired.pods.keys() | desired.blocked_pods
        assert ip_address("10.1.0.6") in desired.pods.keys() | desired.blocked_pods


@settings(deadline=None)
@given(st.lists(st.sampled_from([*TAKEN, str(FREE), str(FREE_V6), "198.51.100.8"]), max_size=6, unique=True))
def test_whatever_is_claimed_only_what_is_free_is_used(texts: list[str]) -> None:
    addresses = [ip_address(text) for text in texts]
    desired = resolved(with_claims(*addresses))
    assert not [text for text in texts if text in TAKEN and mentions(desired, ip_address(text))]
    assert {piece.egress_ip for piece in desired.slices} == {a for a in addresses if str(a) not in TAKEN}
