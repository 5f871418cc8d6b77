"""A node tells which addresses of pools it sees in use, no others, and not its own gateways' doing."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sluice_api.addresses import PoolAddresses
from sluice_api.occupied import MOST_OCCUPIED, Occupant, digest, occupant
from sluice_api.timers import SIGHTING
from sluice_node.core.links import Links
from sluice_node.core.objects import EgressIP, EgressNode, Key, Node, Pod, Pool
from sluice_node.core.occupied import Neighbour, Sightings, look, survey
from sluice_node.core.snapshot import Snapshot

STRANGER, ROUTER, GATEWAY = "02:00:00:00:00:07", "02:00:00:00:00:01", "02:00:00:00:00:05"


def _pool(name: str, *addresses: str, exclude: tuple[str, ...] = (), generation: int = 1) -> Pool:
    return Pool(Key("", name), 1024, True, addresses=PoolAddresses.parse(addresses, exclude), generation=generation)


def _pod(address: str, **fields: Any) -> Pod:
    return Pod(Key("a", f"pod-{address}"), "2026", {}, "default", (ip_address(address),), **fields)


BASE = Snapshot(
    node=Node("n1", "uid", (ip_address("192.0.2.5"),), ()),
    links=Links(
        (("eth0", ip_interface("192.0.2.5/24")), ("eth0", ip_interface("2001:db8::5/64"))),
        {4: "eth0"},
        frozenset({ip_address("192.0.2.1")}),
        {ip_address("192.0.2.200"): "veth1"},
    ),
    pools={"p": _pool("p", "192.0.2.0-192.0.2.255", "2001:db8::/120")},
)


def _told(snapshot: Snapshot, sightings: Sightings | None = None, *, now: float = 0.0) -> dict[str, str]:
    found = survey(snapshot, (sightings or Sightings()).current(now))["occupied"]
    return {entry["address"]: entry["by"] for entry in found}


def _after(snapshot: Snapshot, *table: Neighbour, now: float = 1000.0) -> dict[str, str]:
    sightings = Sightings()
    look(sightings, snapshot, table, read_at=now, now=now)
    return _told(replace(snapshot, links=Links()), sightings, now=now)


def test_interfaces_ends_of_subnets_next_hops_and_hosts_behind_the_node_are_told() -> None:
    assert _told(BASE) == {
        "192.0.2.0": "network address of 192.0.2.0/24 on eth0",
        "192.0.2.1": "gateway of a route",
        "192.0.2.5": "interface eth0",
        "192.0.2.200": "host behind veth1",
        "192.0.2.255": "broadcast address of 192.0.2.0/24 on eth0",
        "2001:db8::5": "interface eth0",
    }


def test_the_interface_on_which_kube_proxy_keeps_the_addresses_of_services_is_not_the_nodes() -> None:
    """Else a tenant's `externalIPs` would count as the node's own, and stop a pool for all."""
    links = Links((("kube-ipvs0", ip_interface("192.0.2.50/32")),))
    assert _told(replace(BASE, links=links)) == {}


def test_what_no_pool_may_give_is_not_told() -> None:
    pools = {"p": _pool("p", "192.0.2.0-192.0.2.9", exclude=("192.0.2.5", "192.0.2.0")), "q": _pool("q", "10.0.0.0/24")}
    assert _told(replace(BASE, pools=pools)) == {"192.0.2.1": "gateway of a route"}
    unreadable = replace(_pool("p", "192.0.2.5"), addresses=None)
    assert _told(replace(BASE, pools={"p": unreadable})) == {}


def test_pods_are_told_without_a_name_and_those_on_the_host_network_are_the_node() -> None:
    pods = (_pod("192.0.2.66"), _pod("192.0.2.67", host_network=True), _pod("192.0.2.68", finished=True))
    assert _after(replace(BASE, pods=pods)) == {"192.0.2.66": "pod"}


def test_a_machine_on_the_link_is_told_with_its_mac_address() -> None:
    entry = Neighbour(ip_address("192.0.2.77"), STRANGER, "eth0", 3.0)
    assert _after(BASE, entry) == {"192.0.2.77": f"neighbour {STRANGER} on eth0"}


def test_what_was_not_heard_for_long_is_not_told() -> None:
    assert _after(BASE, Neighbour(ip_address("192.0.2.77"), STRANGER, "eth0", SIGHTING)) == {}


def test_an_egress_ip_that_its_holder_answers_for_is_no_conflict_not_even_after_it_was_released() -> None:
    claim = EgressIP(Key("", "192.0.2.77"), ip_address("192.0.2.77"), "p", Key("a", "one"))
    claimed = replace(BASE, egress_ips=(claim,))
    sightings = Sightings()
    entry = Neighbour(ip_address("192.0.2.77"), GATEWAY, "eth1", 0.0)
    look(sightings, BASE, (entry,), read_at=0.0, now=0.0)
    assert "192.0.2.77" in _told(BASE, sightings)
    look(sightings, claimed, (entry,), read_at=1.0, now=1.0)
    assert "192.0.2.77" not in _told(claimed, sightings)
    assert "192.0.2.77" not in _told(BASE, sightings), "what was seen while it was claimed does not come back"


def test_a_mac_address_of_a_node_or_of_a_router_says_nothing() -> None:
    """An egress IP of a moment ago, and a router that answers for everything."""
    node = EgressNode(Key("", "n2"), addresses=(ip_address("192.0.2.6"),))
    table = (
        Neighbour(ip_address("192.0.2.6"), GATEWAY, "eth0", 0.0),
        Neighbour(ip_address("192.0.2.80"), GATEWAY, "eth0", 0.0),
        Neighbour(ip_address("192.0.2.1"), ROUTER, "eth0", 0.0),
        Neighbour(ip_address("192.0.2.81"), ROUTER, "eth0", 0.0),
    )
    assert _after(replace(BASE, egress_nodes=(node,)), *table) == {}


def test_a_neighbour_that_comes_and_goes_is_one_report() -> None:
    sightings, entry = Sightings(), Neighbour(ip_address("192.0.2.77"), STRANGER, "eth0", 0.0)
    told = []
    for second in range(0, int(2 * SIGHTING), 30):
        table = (entry,) if second % 60 == 0 else ()
        look(sightings, BASE, table, read_at=second, now=second)
        told.append(_told(BASE, sightings, now=second))
    assert all(each == told[0] for each in told)
    gone = 2 * SIGHTING + SIGHTING
    look(sightings, BASE, (), read_at=gone, now=gone)
    assert "192.0.2.77" not in _told(BASE, sightings, now=gone)


def test_a_table_that_was_read_once_does_not_stay_fresh_for_ever() -> None:
    sightings, entry = Sightings(), Neighbour(ip_address("192.0.2.77"), STRANGER, "eth0", 0.0)
    for now in (0.0, SIGHTING / 2, SIGHTING + 1):
        look(sightings, BASE, (entry,), read_at=0.0, now=now)
    assert "192.0.2.77" not in _told(BASE, sightings, now=SIGHTING + 1)


def test_a_report_is_bounded_and_in_order() -> None:
    sightings = Sightings()
    for number in range(1000):
        sightings.note(ip_address("2001:db8::") + number % 256 + (number << 64), "neighbour x", at=0.0)
        sightings.note(ip_address("192.0.2.0") + number % 256, "neighbour x", at=0.0)
    told = list(_told(BASE, sightings))
    assert len(told) == MOST_OCCUPIED
    assert told == [str(ip_address("192.0.2.0") + number) for number in range(256)]


def test_the_digest_speaks_of_names_and_generations() -> None:
    said = survey(BASE, {})["surveyed"]
    assert said == digest([("p", 1)])
    assert said != survey(replace(BASE, pools={"p": _pool("p", "192.0.2.9", generation=2)}), {})["surveyed"]
    assert digest([("a", 1), ("b", 2)]) == digest([("b", 2), ("a", 1)])


def test_every_text_says_what_has_the_address() -> None:
    pods = (_pod("192.0.2.66"),)
    sightings = Sightings()
    look(
        sightings, replace(BASE, pods=pods), (Neighbour(ip_address("192.0.2.77"), STRANGER, "eth0", 0.0),),
        read_at=0.0, now=0.0,
    )  # fmt: skip
    assert {occupant(by) for by in _told(BASE, sightings).values()} == set(Occupant)
    assert occupant("something new") is None


BLOCKS = st.lists(st.tuples(st.sampled_from([4, 6]), st.integers(0, 60), st.integers(0, 9)), min_size=1, max_size=6)


@given(BLOCKS, st.lists(st.tuples(st.sampled_from([4, 6]), st.integers(0, 80)), max_size=30))
def test_an_address_is_told_exactly_when_a_pool_may_give_it(
    blocks: list[tuple[int, int, int]], seen: list[tuple[int, int]]
) -> None:
    base = {4: ip_address("198.51.100.0"), 6: ip_address("2001:db8::")}
    pools = {
        f"p{number}": _pool(f"p{number}", f"{base[version] + first}-{base[version] + first + size}")
        for number, (version, first, size) in enumerate(blocks)
    }
    snapshot = replace(BASE, links=Links(), pools=pools)
    sightings = Sightings()
    for version, number in seen:
        sightings.note(base[version] + number, "neighbour x", at=0.0)
    expected = {
        str(base[version] + number)
        for version, number in seen
        if any(v == version and first <= number <= first + size for v, first, size in blocks)
    }
    assert set(_told(snapshot, sightings)) == expected
