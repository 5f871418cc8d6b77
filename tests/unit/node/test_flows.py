"""A connection is cut when it bears the wrong address, and only then."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_api.names import proxy_source
from sluice_node.core.desired import DesiredNode, Destination, PolicyProgram, PortRange, SliceOwner
from sluice_node.core.flows import Flow, Judge, Prefixes, Suspects, suspects

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


def test_connections_to_excluded_destinations_stay() -> None:
    for seen in (POD, NODE):
        assert not Judge(node()).is_stale(flow(target=SERVICE, seen=seen))


def test_a_connection_that_bears_an_egress_ip_to_what_came_to_be_inside_goes() -> None:
    assert Judge(node()).is_stale(flow(target=SERVICE))


def test_an_unselected_pods_connection_goes_only_if_it_bears_an_egress_ip() -> None:
    assert Judge(node()).is_stale(flow(source=OTHER))
    assert not Judge(node()).is_stale(flow(source=OTHER, seen=NODE))
    bare = node(policies=(), pods={}, slices=())
    assert Judge(bare, former=frozenset({EGRESS})).is_stale(flow())
    assert Judge(replace(bare, pool_ranges=frozenset({ip_network("198.51.100.0/28")}))).is_stale(flow())
    assert not Judge(bare).is_stale(flow())


def test_a_pool_that_holds_the_nodes_own_address_makes_no_masqueraded_connection_stale() -> None:
    judge = Judge(
        node(own_addresses=frozenset({NODE}), pool_ranges=frozenset({ip_network("192.0.2.0/24")})),
        former=frozenset({NODE}),
    )
    assert not judge.is_stale(flow(source=OTHER, seen=NODE))
    assert judge.is_stale(flow(source=OTHER, seen=ip_address("192.0.2.99")))


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
    assert suspects(old, old) == Suspects()
    assert suspects(old, node(pods={POD: 5}, policies=old.policies)) == Suspects(frozenset({OTHER}))
    assert suspects(old, replace(old, policies=old.policies[1:])) == Suspects(frozenset({POD}), frozenset({EGRESS}))
    assert suspects(old, replace(old, live_gateways={"partners": ("b",)})) == Suspects()
    mine = replace(old, slices=old.slices[1:])
    assert suspects(old, mine) == Suspects(seen=frozenset({EGRESS}))
    assert suspects(mine, old) == Suspects()
    assert suspects(old, replace(old, slices=old.slices[:1])) == Suspects()
    inside = old.excluded | {ip_network("203.0.113.0/24")}
    assert suspects(old, replace(old, excluded=inside)) == Suspects(targets=frozenset({ip_network("203.0.113.0/24")}))
    assert suspects(replace(old, pods={}), replace(old, pods={}, excluded=inside)) == Suspects()


def test_a_proxys_connections_are_suspected_with_their_policy() -> None:
    sources = frozenset({proxy_source(5, 4), proxy_source(5, 6)})
    gateway = node(pods={}, is_gateway=True)
    assert suspects(gateway, replace(gateway, policies=())) == Suspects(sources, frozenset({EGRESS}))
    assert suspects(gateway, replace(gateway, is_gateway=False)) == Suspects(sources)


def test_after_a_start_every_connection_is_judged() -> None:
    assert flow(source=OTHER, seen=NODE) in suspects(None, node())


SOURCES = (POD, OTHER, proxy_source(1, 4), proxy_source(2, 4))
TARGETS = (OUTSIDE, SERVICE, ip_address("203.0.113.11"))
EGRESS_IPS = (EGRESS, ip_address("198.51.100.8"))
POOL = frozenset({ip_network("198.51.100.0/28")})


@st.composite
def states(draw: st.DrawFn) -> DesiredNode:
    """A node in any state that matters to connections."""
    programs = st.builds(
        PolicyProgram,
        policy_id=st.integers(1, 2),
        pool=st.just("partners"),
        egress_ips=st.sampled_from([(), *((address,) for address in EGRESS_IPS)]),
        destinations=st.sampled_from([None, (HTTPS,)]),
    )
    owners = st.builds(
        SliceOwner, st.sampled_from(EGRESS_IPS), st.sampled_from([2048, 3072]), st.just(1024), st.sampled_from("ab")
    )
    excluded = st.sets(st.sampled_from([ip_network("10.96.0.0/12"), ip_network("203.0.113.11/32")]))
    return node(
        policies=tuple(draw(st.lists(programs, max_size=2, unique_by=lambda program: program.policy_id))),
        pods=draw(st.dictionaries(st.sampled_from([POD, OTHER]), st.integers(1, 2))),
        slices=tuple(draw(st.lists(owners, max_size=4, unique_by=lambda owner: (owner.egress_ip, owner.first)))),
        excluded=frozenset(draw(excluded)),
        is_gateway=draw(st.booleans()),
    )


FLOWS = st.builds(
    Flow,
    source=st.sampled_from(SOURCES),
    target=st.sampled_from(TARGETS),
    protocol=st.sampled_from([1, 6, 17]),
    target_port=st.sampled_from([80, 443]),
    seen=st.sampled_from([NODE, *EGRESS_IPS]),
    seen_port=st.sampled_from([2048, 3072, 40000]),
)


def program_of(state: DesiredNode, flow: Flow) -> PolicyProgram | None:
    """The policy whose egress IP a new connection like this would get, by the rules' own words; None: none."""
    number = state.pods.get(flow.source, 0)
    if state.is_gateway and flow.source in SOURCES[2:]:
        number = SOURCES[2:].index(flow.source) + 1
    policy = next((policy for policy in state.policies if policy.policy_id == number), None)
    inside = any(flow.target in network for network in state.excluded)
    https = flow.protocol == 6 and flow.target_port == 443 and flow.target != SERVICE
    return None if inside or (policy is not None and policy.destinations and not https) else policy


def could_be_new(state: DesiredNode, flow: Flow) -> bool:
    """Whether NAT could make this connection if it began now."""
    policy = program_of(state, flow)
    if policy is None:
        return flow.seen not in EGRESS_IPS
    own = [owner for owner in state.slices if owner.node == "a" and owner.egress_ip == flow.seen]
    return flow.seen in policy.egress_ips and any(o.first <= flow.seen_port < o.first + o.size for o in own)


@settings(max_examples=300)
@given(states(), states(), st.lists(FLOWS, max_size=8), st.booleans())
def test_exactly_the_connections_that_would_not_be_made_now_go(
    old: DesiredNode, new: DesiredNode, flows: list[Flow], restarted: bool
) -> None:
    """Whatever the step, and whether or not the agent saw the state before it: those that the old state could have
    made, and after a start any."""
    known = flows if restarted else [flow for flow in flows if could_be_new(old, flow)]
    new = replace(new, pool_ranges=POOL) if restarted else new
    where = suspects(None if restarted else old, new)
    judge = Judge(new, former=where.seen)
    gone = {flow for flow in known if flow in where and judge.is_stale(flow)}
    assert gone == {flow for flow in known if not could_be_new(new, flow)}


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32))), st.integers(0, 2**32 - 1))
def test_prefix_lookup_agrees_with_ipaddress(networks: list[tuple[int, int]], number: int) -> None:
    known = [ip_network((number_, length), strict=False) for number_, length in networks]
    address = ip_address(number)
    assert (address in Prefixes(known)) == any(address in network for network in known)
