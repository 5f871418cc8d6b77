"""A connection is cut when it bears the wrong address, and only then."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_api.names import proxy_source
from sluice_node.core.desired import DesiredNode, Destination, PolicyProgram, PortRange, SliceOwner
from sluice_node.core.flows import Flow, Judge, Prefixes, suspects

POD, OTHER = ip_address("10.244.1.11"), ip_address("10.244.1.12")
NODE, EGRESS = ip_address("192.0.2.1"), ip_address("198.51.100.7")
OUTSIDE, SERVICE = ip_address("203.0.113.10"), ip_address("10.96.0.10")
HTTPS = Destination((ip_network("203.0.113.0/24"),), ports=(PortRange("TCP", 443, 443),))


def node(**changes: object) -> DesiredNode:
    base: dict[str, object] = {
        "node": "a",
        "uplinks": ("eth0",),
        "tunnel_address": NODE,
        "tunnel_mac": "02:00:00:00:00:01",
        "excluded": frozenset({ip_network("10.96.0.0/12"), ip_network("10.244.0.0/16")}),
        "policies": (PolicyProgram(5, "partners", (EGRESS,)),),
        "pods": {POD: 5},
        "slices": (SliceOwner(EGRESS, 2048, 1024, "a"), SliceOwner(EGRESS, 3072, 1024, "b")),
    }
    return DesiredNode(**(base | changes))  # type: ignore[arg-type]


def flow(**changes: object) -> Flow:
    base: dict[str, object] = {
        "source": POD,
        "target": OUTSIDE,
        "protocol": 6,
        "target_port": 443,
        "seen": EGRESS,
        "seen_port": 2048,
    }
    return Flow(**(base | changes))  # type: ignore[arg-type]


def test_a_connection_in_its_slice_stays() -> None:
    assert not Judge(node()).is_stale(flow())


@pytest.mark.parametrize(
    "wrong", [{"seen": NODE}, {"seen": POD}, {"seen_port": 3072}, {"seen_port": 40000}, {"seen": ip_address("1.2.3.4")}]
)
def test_a_selected_pods_connection_with_another_address_or_port_goes(wrong: dict[str, object]) -> None:
    assert Judge(node()).is_stale(flow(**wrong))


def test_connections_to_excluded_destinations_always_stay() -> None:
    for seen in (POD, NODE, EGRESS):
        assert not Judge(node()).is_stale(flow(target=SERVICE, seen=seen))


def test_an_unselected_pods_connection_goes_only_if_it_bears_an_egress_ip() -> None:
    assert Judge(node()).is_stale(flow(source=OTHER))
    assert not Judge(node()).is_stale(flow(source=OTHER, seen=NODE))
    former = Judge(node(policies=(), pods={}, slices=()), former=frozenset({EGRESS}))
    assert former.is_stale(flow())


def test_destinations_decide_as_they_do_for_packets() -> None:
    judge = Judge(node(policies=(PolicyProgram(5, "partners", (EGRESS,), destinations=(HTTPS,)),)))
    assert not judge.is_stale(flow())
    assert judge.is_stale(flow(seen=NODE))
    assert judge.is_stale(flow(target_port=80))
    assert not judge.is_stale(flow(target_port=80, seen=NODE))
    assert not judge.is_stale(flow(protocol=17, seen=NODE))


def test_a_proxys_identity_is_judged_like_a_pod() -> None:
    source = proxy_source(5, 4)
    assert not Judge(node(is_gateway=True)).is_stale(flow(source=source))
    assert Judge(node(is_gateway=True)).is_stale(flow(source=source, seen=NODE))


def test_only_what_changed_is_suspected() -> None:
    old = node(pods={POD: 5, OTHER: 6}, policies=(*node().policies, PolicyProgram(6, "partners", ())))
    assert suspects(old, old) == (frozenset(), frozenset())
    assert suspects(old, node(pods={POD: 5}, policies=old.policies)) == (frozenset({OTHER}), frozenset())
    assert suspects(old, node(pods=old.pods, policies=old.policies[1:])) == (frozenset({POD}), frozenset({EGRESS}))
    assert suspects(None, old) == (frozenset({POD, OTHER}), frozenset())


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32))), st.integers(0, 2**32 - 1))
def test_prefix_lookup_agrees_with_ipaddress(networks: list[tuple[int, int]], number: int) -> None:
    known = [ip_network((number_, length), strict=False) for number_, length in networks]
    address = ip_address(number)
    assert (address in Prefixes(known)) == any(address in network for network in known)
