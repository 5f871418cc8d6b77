"""A node whose EgressNode is gone is served while ports are its own, and not one moment longer; a Node that is deleted
changes nothing on its own machine, and owns what is made next under its new uid."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from sluice_node.agent.state import ClusterState
from sluice_node.core.departed import still_served
from sluice_node.core.desired import SliceOwner
from sluice_node.core.links import Links
from sluice_node.core.objects import EgressIP, EgressNode, Key, TunnelEnd
from sluice_node.core.resolve import peers

V4 = ip_address("198.51.100.7")
GONE = EgressNode(
    Key("", "n2"),
    addresses=(ip_address("192.0.2.2"),),
    tunnel=TunnelEnd(ip_address("192.0.2.2"), "02:65:00:00:00:02"),
    gateway_for=frozenset({"p"}),
)
CLAIM = EgressIP(Key("", "a"), V4, "p", Key("ns", "a"), slices=(SliceOwner(V4, 1024, 1024, "n2"),))
OTHER = replace(GONE, key=Key("", "n3"), tunnel=TunnelEnd(ip_address("192.0.2.3"), "02:65:00:00:00:03"))
REPLACEMENT = replace(OTHER, tunnel=TunnelEnd(ip_address("192.0.2.2"), "02:65:00:00:00:03"))


@pytest.mark.parametrize(
    ("present", "claims", "served"),
    [
        ((OTHER,), (CLAIM,), True),
        ((OTHER,), (), False),
        ((OTHER,), (replace(CLAIM, slices=(SliceOwner(V4, 1024, 1024, "n3"),)),), False),
        ((GONE,), (CLAIM,), False),
        ((REPLACEMENT,), (CLAIM,), False),
        ((EgressNode(GONE.key),), (CLAIM,), True),
        ((EgressNode(GONE.key, remove=True),), (CLAIM,), False),
    ],
    ids=[
        "it owns ports",
        "no egress IP",
        "its ports are another's",
        "it is back",
        "another node has its address",
        "it is made anew",
        "it is emptied",
    ],
)
def test_who_is_gone_is_served_while_ports_are_its_own(
    present: tuple[EgressNode, ...], claims: tuple[EgressIP, ...], served: bool
) -> None:
    assert still_served([GONE], present, claims) == ((GONE,) if served else ())


def test_who_had_no_tunnel_end_is_not_served() -> None:
    """An agent that took everything out of its node says so before its EgressNode is deleted."""
    assert still_served([replace(GONE, tunnel=None)], (), (CLAIM,)) == ()


class Bench:
    """The state of n1's agent, filled."""

    def __init__(self) -> None:
        self.changes: list[str] = []
        self.gone: list[Key] = []
        self.state = ClusterState(
            node="n1",
            namespace="sluice-system",
            never_redirected=frozenset(),
            changed=self.changes.append,
            gone=self.gone.append,
        )
        self.state.set_links(Links((("eth0", ip_interface("192.0.2.1/24")),), {4: "eth0"}))
        for store in self.state._stores:
            store.replace({})
        self.node(uid="old")
        self.other()
        self.claim("n2")

    def node(self, *, uid: str, address: str = "192.0.2.1", cidrs: tuple[str, ...] = ("10.244.1.0/24",)) -> None:
        found = [{"type": "InternalIP", "address": address}] if address else []
        self.state.nodes.put(
            {
                "metadata": {"name": "n1", "uid": uid},
                "spec": {"podCIDRs": list(cidrs)},
                "status": {"addresses": found},
            }
        )

    def other(self) -> None:
        tunnel = {"address": "192.0.2.2", "port": 4797, "mac": "02:65:00:00:00:02"}
        status = {"addresses": ["192.0.2.2"], "tunnel": tunnel, "gatewayFor": ["p"]}
        self.state.egress_nodes.put({"metadata": {"name": "n2"}, "status": status})

    def claim(self, owner: str) -> None:
        spec = {"address": str(V4), "pool": "p", "policy": {"namespace": "ns", "name": "a"}}
        status = {"slices": [{"ports": "1024-2047", "node": owner}]}
        self.state.egress_ips.put({"metadata": {"name": str(V4)}, "spec": spec, "status": status})

    def snapshot(self) -> Any:
        found = self.state.snapshot(frozenset())
        assert found is not None
        return found


@pytest.fixture(name="bench")
def _bench() -> Bench:
    return Bench()


def test_the_way_to_a_node_outlives_its_egressnode(bench: Bench) -> None:
    before = peers(bench.snapshot())
    assert [peer.node for peer in before] == ["n2"]
    bench.state.egress_nodes.delete({"metadata": {"name": "n2"}})
    assert bench.gone == [Key("", "n2")]
    assert peers(bench.snapshot()) == before
    assert bench.snapshot().egress_nodes[0].gateway_for == {"p"}
    bench.claim("n3")
    assert peers(bench.snapshot()) == ()
    bench.claim("n2")
    assert peers(bench.snapshot()) == (), "once forgotten it has to report again"


def test_an_egressnode_that_is_made_anew_and_says_nothing_yet_interrupts_nothing(bench: Bench) -> None:
    before = peers(bench.snapshot())
    bench.state.egress_nodes.delete({"metadata": {"name": "n2"}})
    bench.snapshot()
    bench.state.egress_nodes.put({"metadata": {"name": "n2"}})
    assert peers(bench.snapshot()) == before
    assert [node.gateway_for for node in bench.snapshot().egress_nodes] == [{"p"}]
    bench.other()
    assert peers(bench.snapshot()) == before
    assert len(bench.snapshot().egress_nodes) == 1


def test_a_complete_list_without_it_is_as_good_as_a_deletion(bench: Bench) -> None:
    before = peers(bench.snapshot())
    bench.state.egress_nodes.replace({})
    assert peers(bench.snapshot()) == before


def test_a_node_that_is_deleted_changes_nothing_on_its_machine(bench: Bench) -> None:
    before = bench.snapshot()
    bench.changes.clear()
    bench.state.nodes.delete({"metadata": {"name": "n1"}})
    assert bench.snapshot() == before
    assert bench.state.registered is None
    assert bench.changes == []


def test_a_node_that_is_made_anew_keeps_what_it_does_not_say_yet(bench: Bench) -> None:
    bench.state.nodes.delete({"metadata": {"name": "n1"}})
    bench.node(uid="new", address="", cidrs=())
    registered = bench.state.registered
    assert registered is not None
    assert registered.uid == "new"
    assert registered.addresses == (ip_address("192.0.2.1"),)
    assert registered.pod_cidrs == (ip_network("10.244.1.0/24"),)
    bench.node(uid="new", cidrs=("10.244.9.0/24",))
    assert bench.snapshot().node.pod_cidrs == (ip_network("10.244.9.0/24"),)


def test_a_new_uid_wakes_whoever_owns_objects_by_it(bench: Bench) -> None:
    bench.state.nodes.delete({"metadata": {"name": "n1"}})
    bench.changes.clear()
    bench.node(uid="new")
    assert bench.changes
