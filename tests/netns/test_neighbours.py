"""The kernel's neighbour table is read as who was on a link and when, and never as what Sluice answers for itself."""

import os
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from tests.netns.datapath_topology import Namespace

from sluice_node.core.occupied import Neighbour
from sluice_node.kernel import neighbours

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]
MAC = "02:00:00:00:00:0"


@pytest.fixture(name="space")
def _space() -> Iterator[Namespace]:
    space = Namespace(f"sl{os.getpid()}neigh")
    try:
        space.ip(
            "link add eth0 type veth peer name eth1",
            "link add sluice0 type veth peer name other",
            "link set eth0 up",
            "link set eth1 up",
            "link set sluice0 up",
        )
        yield space
    finally:
        space.close()


def test_whoever_answered_is_read_and_nobody_else(space: Namespace) -> None:
    space.ip(
        f"neigh add 192.0.2.7 lladdr {MAC}7 dev eth0 nud permanent",
        f"neigh add 192.0.2.8 lladdr {MAC}8 dev eth0 nud stale",
        f"neigh add 2001:db8::9 lladdr {MAC}9 dev eth0 nud reachable",
        "neigh add 192.0.2.10 dev eth0 nud failed",
        f"neigh add 192.0.2.11 lladdr {MAC}b dev eth0 nud noarp",
        "neigh add proxy 192.0.2.12 dev eth0",
        f"neigh add 192.0.2.13 lladdr {MAC}d dev sluice0 nud permanent",
    )
    found = {entry.address: entry for entry in space.call(neighbours.read)}
    assert {str(address): (entry.mac, entry.interface) for address, entry in found.items()} == {
        "192.0.2.7": (f"{MAC}7", "eth0"),
        "192.0.2.8": (f"{MAC}8", "eth0"),
        "2001:db8::9": (f"{MAC}9", "eth0"),
    }
    permanent: Neighbour = found[ip_address("192.0.2.7")]
    assert permanent.age == 0
    assert all(entry.age < 60 for entry in found.values())
