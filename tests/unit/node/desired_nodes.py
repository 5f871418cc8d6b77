"""A DesiredNode to start from, and a strategy for any."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from sluice_node.core.desired import DesiredNode, Destination, Peer, PolicyProgram, PortRange, SliceOwner

V4, V6 = ip_address("198.51.100.7"), ip_address("2001:db8::7")
POD = ip_address("10.244.1.11")
PEERS = tuple(Peer(f"n{i}", ip_address(f"192.0.2.{i}"), f"02:00:00:00:00:0{i}") for i in (2, 3))
NODE = DesiredNode(
    node="n1",
    uplinks=("eth0",),
    tunnel_address=ip_address("192.0.2.1"),
    tunnel_mac="02:00:00:00:00:01",
    peers=PEERS,
    excluded=frozenset({ip_network("10.244.0.0/16"), ip_network("10.244.1.0/24"), ip_network("fd00::/8")}),
    policies=(PolicyProgram(5, "partners", (V4, V6)), PolicyProgram(9, "other", (V4,))),
    pods={POD: 5},
    live_gateways={"partners": ("n2", "n3"), "other": ("n1",)},
    slices=tuple(SliceOwner(a, 1024 * i, 1024, f"n{i % 3 + 1}") for a in (V4, V6) for i in range(3, 9)),
    proxy_endpoints={(ip_address("192.0.2.2"), 13128): "n2", (ip_address("192.0.2.1"), 13128): "n1"},
)
NUMBERS = {"n2": 1, "n3": 2}


@st.composite
def nodes(draw: st.DrawFn) -> DesiredNode:
    """Any DesiredNode, also such as cannot come about."""
    names = st.sampled_from(["n1", "n2", "n3", "unknown"])
    addresses = st.sampled_from([V4, V6, ip_address("198.51.100.8")])
    sizes = st.sampled_from([128, 1024, 16384])
    owners = st.builds(
        lambda a, size, index, n: SliceOwner(a, size * index, size, n), addresses, sizes, st.integers(1, 3), names
    )
    policy = st.builds(
        PolicyProgram,
        policy_id=st.integers(1, 4),
        pool=st.sampled_from(["partners", "a.b-c"]),
        egress_ips=st.sampled_from([(), (V4,), (V6,), (V4, V6)]),
        destinations=st.sampled_from(
            [None, (), (Destination((ip_network("203.0.113.0/24"),), ports=(PortRange("TCP", 1, 9),)),)]
        ),
        otherwise=st.sampled_from(["NodeAddress", "Drop"]),
    )
    return replace(
        NODE,
        policies=tuple(draw(st.lists(policy, max_size=3, unique_by=lambda p: p.policy_id))),
        pods=draw(st.dictionaries(st.sampled_from([POD, V6]), st.integers(1, 4))),
        blocked_pods=frozenset(draw(st.sets(st.sampled_from([POD, ip_address("10.244.1.12")])))),
        live_gateways=draw(st.dictionaries(st.sampled_from(["partners", "a.b-c"]), st.lists(names, unique=True))),
        slices=tuple(draw(st.lists(owners, max_size=5))),
        is_gateway=draw(st.booleans()),
        uplinks=draw(st.sampled_from([("eth0",), ("eth0", "eth1")])),
    )
