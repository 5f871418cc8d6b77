"""What the ruleset of a node says, and how little of it changes at a time.

That the rules do what they say is shown by packets, in tests/netns.
"""

import re
from dataclasses import replace
from ipaddress import ip_network
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.node.desired_nodes import NODE, NUMBERS, PEERS, POD, V4, V6, nodes

from sluice_node.core.desired import DesiredNode, Destination, PortRange, SliceOwner
from sluice_node.core.diff import transaction
from sluice_node.core.marks import SELF, peer_mark
from sluice_node.core.ruleset import ruleset
from sluice_node.core.steering import matches, merged_ranges
from sluice_node.core.tables import Ruleset, Set
from sluice_node.core.view import View, networks_text


def rules(node: DesiredNode = NODE) -> Ruleset:
    return ruleset(View(node, NUMBERS, 1450))[0]


def chain(name: str, node: DesiredNode = NODE) -> tuple[str, ...]:
    return next(c.rules for t in rules(node).tables for c in t.chains if c.name == name)


def lookup(name: str, node: DesiredNode = NODE) -> Set:
    return next(s for t in rules(node).tables for s in t.sets if s.name == name)


@settings(max_examples=40)
@given(nodes())
def test_every_rule_refers_only_to_what_is_there(node: DesiredNode) -> None:
    for table in rules(node).tables:
        texts = [rule for c in table.chains for rule in c.rules]
        texts += [value for s in table.sets for value in s.elements.values() if value]
        for text in texts:
            assert set(re.findall(r"(?:goto|jump) ([\w.-]+)", text)) <= {c.name for c in table.chains}
            assert set(re.findall(r"@((?!th,|nh,)\w+)", text)) <= {s.name for s in table.sets}
            assert set(re.findall(r"counter name (\w+)", text)) <= set(table.counters)


@settings(max_examples=40)
@given(nodes())
def test_no_chain_and_set_is_there_twice(node: DesiredNode) -> None:
    for table in rules(node).tables:
        names = [c.name for c in table.chains] + [s.name for s in table.sets]
        assert len(names) == len(set(names))


def test_equal_input_gives_equal_rules() -> None:
    shuffled = replace(NODE, policies=NODE.policies[::-1], slices=NODE.slices[::-1], peers=PEERS[::-1])
    assert transaction(rules(), rules(shuffled)) == ""


def test_sets_of_slices_are_used_again_only_if_they_hold() -> None:
    view = View(NODE, NUMBERS, 1450)
    first, slices = ruleset(view)
    pods = View(replace(NODE, pods={}), NUMBERS, 1450)
    assert all(a is b for a, b in zip(ruleset(pods, (view, slices))[1], slices, strict=True))
    for changes in ({"slices": NODE.slices[1:]}, {"peers": PEERS[1:]}, {"node": "n2"}):
        changed = View(replace(NODE, **changes), NUMBERS, 1450)
        assert ruleset(changed, (view, slices)) == ruleset(changed)
        assert ruleset(changed)[0] != first


def test_a_gateways_death_changes_one_rule_a_pool() -> None:
    change = transaction(rules(), rules(replace(NODE, live_gateways=NODE.live_gateways | {"partners": ("n3",)})))
    assert change.splitlines() == [
        "flush chain inet sluice pool_partners",
        "add rule inet sluice pool_partners goto to_2",
    ]


def test_a_changed_policy_touches_its_own_chain_only() -> None:
    edited = replace(NODE.policies[0], destinations=(Destination((ip_network("203.0.113.0/24"),)),))
    change = transaction(rules(), rules(replace(NODE, policies=(edited, NODE.policies[1]))))
    assert change.splitlines() == [
        "flush chain inet sluice match_5",
        "add rule inet sluice match_5 ip daddr { 203.0.113.0/24 } goto take_5",
    ]


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        ((), ("counter name no_gateway drop",)),
        (("unknown",), ("counter name no_gateway drop",)),
        (("n2",), ("goto to_1",)),
        (("n1",), ("accept",)),
        (("n2", "unknown", "n1"), ("symhash mod 2 0 goto to_1", "accept")),
    ],
)
def test_flows_go_to_live_gateways_that_are_peers(live: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert chain("pool_partners", replace(NODE, live_gateways={"partners": live})) == expected


def test_no_map_or_interval_is_of_a_kind_that_crashes_older_nft() -> None:
    for table in rules().tables:
        assert not [s.name for s in table.sets if not s.spec.startswith("typeof ")]
        assert not [rule for c in table.chains for rule in c.rules if "map {" in rule]


def test_only_packets_that_are_chosen_get_a_mark() -> None:
    for name in ("policy_5", "match_5", "cluster", "blocked", "steer"):
        assert not [rule for rule in chain(name) if "mark set" in rule]


def test_a_family_without_an_address_is_dropped() -> None:
    assert chain("take_9")[0] == "meta nfproto ipv6 counter name no_address drop"
    assert not [rule for rule in chain("take_5") if "no_address" in rule]


def test_pods_without_a_programmable_policy_are_blocked() -> None:
    node = replace(NODE, pods={POD: 5, V6: 77}, blocked_pods=frozenset({POD}))
    assert lookup("pods4", node).elements == {str(POD): "goto blocked"}
    assert lookup("pods6", node).elements == {str(V6): "goto blocked"}


def test_adjacent_slices_are_one_range_and_others_share_by_size() -> None:
    def with_slices(*firsts: tuple[int, int]) -> tuple[str, ...]:
        return chain("translate_9", replace(NODE, slices=tuple(SliceOwner(V4, f, s, "n1") for f, s in firsts)))

    assert "snat ip to 198.51.100.7:2048-4095" in with_slices((3072, 1024), (2048, 1024))[0]
    first, second = with_slices((2048, 1024), (3072, 1024), (8192, 1024))[:2]
    assert first.endswith("symhash mod 3 0-1 goto translate_9_4_0")
    assert second.endswith("meta nfproto ipv4 goto translate_9_4_1")
    assert with_slices()[-1] == "counter name no_slice drop"


def test_a_reply_finds_the_owner_of_its_slice() -> None:
    owners = lookup("owners4_1024").elements
    assert owners[f"{V4} . 0x3"] == f"{SELF:#x}"
    assert owners[f"{V4} . 0x4"] == f"{peer_mark(1):#x}"
    assert set(lookup("own4_1024").elements) == {f"{V4} . 0x3", f"{V4} . 0x6"}
    assert f"{PEERS[0].mac} . {V4} . 0x4" in lookup("senders4_1024").elements
    assert not [key for key in lookup("senders4_1024").elements if key.endswith((" . 0x3", " . 0x6"))]


def test_slices_of_unlike_size_are_cut_to_the_smallest() -> None:
    node = replace(NODE, slices=(SliceOwner(V4, 2048, 1024, "n2"), SliceOwner(V4, 4096, 512, "n3")))
    assert set(lookup("owners4_512", node).elements) == {f"{V4} . {key}" for key in ("0x4", "0x5", "0x8")}


def test_slices_of_nodes_that_are_no_peers_belong_to_nobody() -> None:
    node = replace(NODE, slices=(SliceOwner(V4, 2048, 1024, "gone"),))
    assert lookup("owners4_1024", node).elements == {}


def test_identity_sources_are_known_on_gateways_only() -> None:
    assert lookup("identities4").elements == {}
    gateway = replace(NODE, is_gateway=True)
    assert lookup("identities4", gateway).elements == {"240.0.0.5": "goto identity_5", "240.0.0.9": "goto identity_9"}
    assert chain("identity_5", gateway)[-1] == "counter name identity drop"


def test_networks_that_overlap_are_one_element() -> None:
    assert networks_text(NODE.excluded, 4) == ["10.244.0.0/16"]
    assert networks_text([ip_network("192.0.2.1/32")], 4) == ["192.0.2.1"]


def test_destinations_become_one_rule_a_protocol() -> None:
    destination = Destination(
        (ip_network("0.0.0.0/0"),),
        excluded=(ip_network("10.0.0.0/8"),),
        ports=(PortRange("TCP", 443, 443), PortRange("TCP", 8000, 8100), PortRange("UDP", 53, 53)),
    )
    start = "ip daddr { 0.0.0.0/0 } ip daddr != { 10.0.0.0/8 }"
    assert list(matches((destination,), "goto t")) == [
        f"{start} tcp dport {{ 443, 8000-8100 }} goto t",
        f"{start} udp dport {{ 53 }} goto t",
    ]
    assert list(matches(None, "goto t")) == ["goto t"]
    assert list(matches((), "goto t")) == []


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9))))
def test_merged_ranges_hold_the_same_numbers_and_stay_apart(pairs: list[tuple[int, int]]) -> None:
    ranges = [(first, first + more) for first, more in pairs]
    merged = merged_ranges(iter(ranges))
    assert {n for a, b in merged for n in range(a, b + 1)} == {n for a, b in ranges for n in range(a, b + 1)}
    assert all(left[1] + 1 < right[0] for left, right in pairwise(merged))
