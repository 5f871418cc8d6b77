"""Gateways agree on the holder without a word, and only what must move moves."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from sluice_node.core.holder import holder

_NODES = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=8, unique=True)
_ADDRESSES = st.ip_addresses()


def test_the_choice_is_the_same_in_every_release() -> None:
    nodes = ["n1", "n2", "n3"]
    chosen = [holder(ip_address(f"198.51.100.{number}"), nodes) for number in range(1, 9)]
    assert chosen == ["n2", "n3", "n1", "n1", "n3", "n1", "n1", "n1"]


def test_nobody_holds_without_gateways() -> None:
    assert holder(ip_address("198.51.100.1"), []) is None


@given(address=_ADDRESSES, nodes=_NODES, data=st.data())
def test_the_order_in_which_gateways_are_seen_does_not_matter(address, nodes, data) -> None:  # type: ignore[no-untyped-def]
    assert holder(address, nodes) == holder(address, data.draw(st.permutations(nodes)))


@given(address=_ADDRESSES, nodes=_NODES, gone=st.integers(0, 7))
def test_only_what_the_dead_gateway_held_moves(address, nodes, gone) -> None:  # type: ignore[no-untyped-def]
    before = holder(address, nodes)
    dead = nodes[gone % len(nodes)]
    after = holder(address, [node for node in nodes if node != dead])
    assert before in (after, dead)


def test_egress_ips_spread_over_gateways() -> None:
    nodes = ["n1", "n2", "n3", "n4"]
    held = [holder(ip_address(0xC6336400 + number), nodes) for number in range(1000)]
    assert all(200 < held.count(node) < 300 for node in nodes)
