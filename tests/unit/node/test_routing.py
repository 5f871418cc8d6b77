"""Every marked packet finds its way into the tunnel, and a node holds only what its part needs."""

from ipaddress import ip_address, ip_network

import pytest

from sluice_api.names import PROXY_SOURCES_V4, PROXY_SOURCES_V6
from sluice_node.core.desired import DesiredNode, Peer
from sluice_node.core.routing import (
    LOCAL,
    PREFERENCES,
    PROTOCOL,
    TABLE,
    Answer,
    Neighbour,
    Plumbing,
    Route,
    plumbing,
    tunnel_mtu,
)

PEER = Peer("b", ip_address("192.0.2.2"), "02:00:00:00:00:02")


def desired(**changes: object) -> DesiredNode:
    base: dict[str, object] = {
        "node": "a",
        "uplinks": ("eth0",),
        "tunnel_address": ip_address("192.0.2.1"),
        "tunnel_mac": "02:00:00:00:00:01",
        "peers": (PEER,),
    }
    return DesiredNode(**(base | changes))  # type: ignore[arg-type]


def held(**changes: object) -> Plumbing:
    return plumbing(desired(**changes), mtu=1450, ipv6=True)


@pytest.mark.parametrize(("underlay", "mtu"), [("192.0.2.1", 1450), ("2001:db8::1", 1430)])
def test_the_tunnel_leaves_room_for_its_own_headers(underlay: str, mtu: int) -> None:
    assert tunnel_mtu(ip_address(underlay), 1500) == mtu


def test_marked_packets_go_into_the_tunnel_or_nowhere() -> None:
    for version in (4, 6):
        rules = {rule.preference: rule.table for rule in held().rules if rule.version == version}
        assert rules == {PREFERENCES[0]: TABLE, PREFERENCES[1]: None}
        (route,) = (r for r in held().routes if r.table == TABLE and r.destination.version == version)
        assert (route.destination.prefixlen, route.device) == (0, "sluice0")
        assert route.via in {neighbour.address for neighbour in held().neighbours}


def test_peers_are_known_by_their_mac() -> None:
    assert held().ends == {Neighbour(PEER.address, PEER.mac)}
    assert held(peers=()).ends == frozenset()


def test_everything_bears_our_protocol_number() -> None:
    assert {route.protocol for route in held(is_gateway=True).routes} == {PROTOCOL}


def test_only_a_gateway_has_identity_sources_and_marks_sockets() -> None:
    local = {Route(block, "lo", table=LOCAL, kind="local") for block in (PROXY_SOURCES_V4, PROXY_SOURCES_V6)}
    assert local <= held(is_gateway=True).routes
    assert not local & held().routes
    assert ("ipv4/tcp_fwmark_accept", "1") in held(is_gateway=True).settings
    assert ("ipv4/tcp_fwmark_accept", "1") not in held().settings


def test_a_holder_answers_at_once_and_has_the_address_behind_the_tunnel() -> None:
    """Without the route the kernel would not answer: it is a proxy only for what is not on the same interface."""
    addresses = [ip_address("198.51.100.7"), ip_address("2001:db8::7")]
    plan = held(announced=dict.fromkeys(addresses, "eth1"))
    assert plan.answers == {Answer(address, "eth1") for address in addresses}
    assert {Route(ip_network(address), "sluice0") for address in addresses} <= plan.routes
    assert {
        ("ipv4/neigh/eth1/proxy_delay", "0"),
        ("ipv6/neigh/eth1/proxy_delay", "0"),
        ("ipv6/conf/eth1/proxy_ndp", "1"),
    } <= plan.settings


def test_without_ipv6_in_the_kernel_nothing_of_it_is_wanted() -> None:
    plan = plumbing(desired(is_gateway=True, announced={ip_address("2001:db8::7"): "eth0"}), mtu=1450, ipv6=False)
    assert {route.destination.version for route in plan.routes} == {4}
    assert {rule.version for rule in plan.rules} == {4}
    assert plan.answers == frozenset()
    assert not [path for path, _ in plan.settings if path.startswith("ipv6")]
