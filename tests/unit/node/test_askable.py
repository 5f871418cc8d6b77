"""A gateway asks for the addresses that come next, on the right interface, however large its pools are."""

import time
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Any

import pytest
from tests.unit.node.desired_nodes import NODE as DESIRED

from sluice_api.addresses import PoolAddresses
from sluice_node.core.askable import AHEAD, MOST, Askable, askable, first_held
from sluice_node.core.desired import Address
from sluice_node.core.links import Links
from sluice_node.core.objects import EgressIP, Key, Node, Pod, Pool
from sluice_node.core.snapshot import Snapshot

ADDRESSES = PoolAddresses.parse(["198.51.100.0/24", "2001:db8:5::/120"], ["198.51.100.2"])
POOL = Pool(Key("", "partners"), 1024, announces=True, addresses=ADDRESSES)
GATEWAY = Pod(Key("sluice-system", "gw"), "1", {}, "default", (), True, ready=True, gateway_for="partners")
SNAPSHOT = Snapshot(
    node=Node("n1", "uid", (ip_address("192.0.2.1"),), ()),
    links=Links(
        (("eth0", IPv4Interface("192.0.2.1/24")), ("eth1", IPv4Interface("198.51.100.1/24")),
         ("eth0", IPv6Interface("2001:db8::1/64"))),
        {4: "eth0", 6: "eth0"},
    ),
    pods=(GATEWAY,),
    pools={"partners": POOL},
)  # fmt: skip
NOTHING_HELD = replace(DESIRED, announced={})


def claim(address: Address, holder: str | None = None) -> EgressIP:
    return EgressIP(Key("", str(address)), address, "partners", Key("ns", "a"), holder)


def asked(occupied: tuple[str, ...] = (), **changes: Any) -> Askable:
    return askable(replace(SNAPSHOT, **changes), NOTHING_HELD, {ip_address(text) for text in occupied})


def test_the_lowest_that_nobody_has_claimed_are_asked_for() -> None:
    first, third = ip_address("198.51.100.3"), ip_address("198.51.100.5")
    found = asked(egress_ips=(claim(third),))
    v4 = sorted(address for address in found.wanted if address.version == 4)
    assert (v4[0], len(v4)) == (first, AHEAD - 1), "198.51.100.1 is this node's own, .2 is excluded"
    assert third not in v4
    assert {found.wanted[address] for address in v4} == {"eth1"}
    assert len(found.wanted) == 2 * AHEAD - 1


def test_what_is_asked_for_is_what_the_operator_would_give_next() -> None:
    last = ip_address("198.51.100.250")
    found = asked(pools={"partners": replace(POOL, last_ipv4=last)})
    v4 = [address for address in found.wanted if address.version == 4]
    assert v4[:4] == [last + 1, last + 2, last + 3, last + 4]
    assert v4[4] == ip_address("198.51.100.3"), "from the end it starts over"


def test_an_address_that_is_somebodys_takes_no_others_place_and_is_asked_for_again() -> None:
    found = asked(("198.51.100.3", "198.51.100.4"))
    assert {ip_address("198.51.100.3"), ip_address("198.51.100.18"), ip_address("198.51.100.19")} <= found.wanted.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"pods": ()},
        {"pods": (replace(GATEWAY, ready=False),)},
        {"pools": {"partners": replace(POOL, announces=False)}},
        {"pools": {"partners": replace(POOL, addresses=None)}},
        {"pools": {}},
        {"links": Links()},
    ],
    ids=["no gateway", "not ready", "not announced", "refused spec", "pool gone", "no interface"],
)
def test_only_gateways_of_announced_pools_ask(changes: dict[str, Any]) -> None:
    found = asked(**changes)
    assert (found.wanted, found.decoys) == ({}, {})


def test_the_interface_is_the_pools_choice_and_what_is_heard_there_is_narrowed() -> None:
    found = asked(pools={"partners": replace(POOL, interface="bond0")})
    assert set(found.wanted.values()) == {"bond0"}
    assert set(found.decoys.values()) == {"bond0"}
    assert found.ranges["bond0"][1:] == (
        (int(ip_address("198.51.100.1")), int(ip_address("198.51.100.1"))),
        (int(ip_address("198.51.100.3")), int(ip_address("198.51.100.254"))),
    )


def test_each_interface_that_is_asked_has_its_decoys() -> None:
    found = asked()
    assert found.decoys[ip_address("198.51.100.0")] == "eth1"
    assert set(found.decoys.values()) == set(found.wanted.values())


def test_only_who_holds_an_address_first_asks_for_it() -> None:
    new, old = ip_address("198.51.100.9"), ip_address("198.51.100.10")
    snapshot = replace(SNAPSHOT, egress_ips=(claim(new), claim(old, holder="n2")))
    desired = replace(DESIRED, announced={new: "eth1", old: "eth1"})
    assert first_held(snapshot, desired) == {new}
    found = askable(snapshot, desired, ())
    assert found.held == {new: "eth1", old: "eth1"}


def test_the_cost_is_small_and_bounded_for_the_largest_pools() -> None:
    large = PoolAddresses.parse(["10.64.0.0/16"])
    pools = {f"p{n}": replace(POOL, key=Key("", f"p{n}"), addresses=large) for n in range(100)}
    pods = tuple(replace(GATEWAY, key=Key("sluice-system", name), gateway_for=name) for name in pools)
    assert len(asked(pools=pools, pods=pods).wanted) <= MOST
    full = tuple(claim(ip_address("10.64.0.1") + offset) for offset in range(20_000))
    started = time.process_time()
    asked(pools={"partners": replace(POOL, addresses=large)}, egress_ips=full)
    assert time.process_time() - started < 1
