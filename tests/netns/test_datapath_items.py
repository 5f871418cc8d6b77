"""What the kernel refuses of one address, peer or policy keeps nothing else from being programmed, and is told."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.netns import datapath_traffic as traffic
from tests.netns.datapath_cluster import MARKS, VERSIONS, Cluster, cluster, topology
from tests.netns.datapath_topology import EGRESS, OUTSIDE, InNamespace, World

from sluice_node.agent.announcing import announce
from sluice_node.core.desired import DesiredNode, PolicyProgram
from sluice_node.core.failures import Failure

__all__ = ["cluster", "topology"]
pytestmark = MARKS

SECOND = {4: ip_address("172.18.1.2"), 6: ip_address("fd00:18::e:2")}
SIZES = {EGRESS[4]: 1024, EGRESS[6]: 512, SECOND[4]: 1024, SECOND[6]: 512}
ONE = PolicyProgram(5, "partners", (EGRESS[4], EGRESS[6]))
TWO = PolicyProgram(6, "partners", (SECOND[4], SECOND[6]))
WORLD = World(policies=(ONE, TWO), pods={"p11": 5, "p12": 6, "p21": 5}, sizes=SIZES)
WHOLE_NODE = re.compile(
    r"cannot (make device|keep IPv6|bring the tunnel up|give sluice0|add rule|set neighbour"
    r"|set route (0\.0\.0\.0/0|::/0|169\.254|240\.0|100:)|set .*/sluice0/|set .*tcp_fwmark_accept)"
)


def apply(cluster: Cluster, node: str, desired: DesiredNode, *, anew: bool = False) -> tuple[Failure, ...]:
    report = cluster.topology[node].call(traffic.kernel_apply, desired, str(cluster.state / node), anew=anew)
    return report.failures


def calls(cluster: Cluster) -> Iterator[tuple[int, traffic.Outcome]]:
    """An apply on a node that has nothing yet, once for each call to the kernel, in which this call fails."""
    node, number = cluster.topology["n2"], 0
    while True:
        node.call(traffic.kernel_remove)
        node.call(traffic.kernel_forget)
        outcome = node.call(traffic.kernel_apply_failing, WORLD.desired("n2"), str(cluster.state / "n2"), number)
        if outcome.failed is None:
            assert number > 20
            return
        yield number, outcome
        number += 1


def test_whichever_call_fails_all_else_is_done_and_it_is_told(cluster: Cluster) -> None:
    whole, items = set(), set()
    for number, outcome in calls(cluster):
        if outcome.raised is not None:
            assert WHOLE_NODE.match(outcome.raised), (number, outcome)
            whole.add(outcome.failed)
        else:
            assert outcome.failures
            assert all(str(outcome.failed) in failure.message for failure in outcome.failures)
            assert len(outcome.missing) == 1, (number, outcome)
            unanswered = {failure.unanswered for failure in outcome.failures if failure.unanswered is not None}
            named = {address for address in SIZES if re.search(rf" {address}[ /]", f"{outcome.failed} ")}
            assert unanswered == ({EGRESS[6], SECOND[6]} if "proxy_ndp" in str(outcome.failed) else named), outcome
            items.add(outcome.failed)
        assert apply(cluster, "n2", WORLD.desired("n2")) == ()
        assert cluster.topology["n2"].call(traffic.kernel_check)
    for address in SIZES:
        assert {f"set proxy neighbour {address} on eth0"} <= items
        assert [item for item in items if str(item).startswith(f"set route {address}/")]
    assert len([item for item in items if "set peer" in str(item)]) == 2
    assert whole


def test_an_interface_that_is_not_there_takes_its_own_address_only(cluster: Cluster) -> None:
    node = cluster.topology["n2"]
    desired = WORLD.desired("n2")
    half = replace(desired, announced=desired.announced | {SECOND[4]: "eth7", SECOND[6]: "eth7"})
    cluster.apply(WORLD.but(holder=None), nodes=("n1", "n3"))
    failures = apply(cluster, "n2", half)
    assert {failure.unanswered for failure in failures} == {SECOND[4], SECOND[6]}
    assert {failure.message for failure in failures} == {"interface eth7 is not there"}
    assert node.call(traffic.kernel_check), "what could not be done is not taken for a stranger's doing"
    for version in VERSIONS:
        cluster.assert_ours(cluster.topology["p11"].call(traffic.tcp, OUTSIDE[version]), "p11")
    for live in ((), ("n2",)):
        report = node.call(
            traffic.kernel_apply, replace(half, live_gateways={"partners": live}), str(cluster.state / "n2")
        )
        assert report.rules
        assert len(report.failures) == 2
    node.ip("link add eth7 type veth peer name eth8", "link set eth7 up", "link set eth8 up")
    try:
        assert apply(cluster, "n2", half) == ()
        assert str(SECOND[4]) in node.sh("ip", "neigh", "show", "proxy", "dev", "eth7")
    finally:
        node.call(traffic.kernel_remove)
        node.ip("link del eth7")


def test_an_interface_that_is_gone_keeps_no_other_address_from_being_announced_again(cluster: Cluster) -> None:
    for held in ({SECOND[4]: "eth7", EGRESS[4]: "eth0"}, {EGRESS[4]: "eth0", SECOND[4]: "eth7"}):
        cluster.topology["out"].start(traffic.hear_arp, EGRESS[4], 2.0)
        time.sleep(0.2)
        with pytest.raises(InNamespace, match="eth7"):
            cluster.topology["n2"].call(announce, held)
        assert cluster.topology["out"].result()


@pytest.mark.parametrize("restarted", [False, True], ids=["beside what was taken", "at the start"])
def test_a_policy_that_nftables_refuses_blocks_its_own_pods_only(cluster: Cluster, restarted: bool) -> None:
    """Its pool's name is no name to nft: nothing that could come from the API server, whose names are checked."""
    refused = replace(TWO, pool="not a name", policy_id=7)
    bad = WORLD.but(policies=(ONE, refused), pods={"p11": 5, "p12": 7, "p21": 5})
    cluster.apply(WORLD)
    for version in VERSIONS:
        cluster.topology["p11"].call(traffic.open_flow, f"kept{version}", OUTSIDE[version])
    if restarted:
        cluster.topology["n1"].call(traffic.kernel_forget)
    failures = apply(cluster, "n1", bad.desired("n1"))
    assert [failure.policy_id for failure in failures] == [7]
    assert "nftables refused the rules" in failures[0].message
    assert cluster.topology["n1"].call(traffic.kernel_check)
    cluster.topology["out"].call(traffic.capture_start)
    for version in VERSIONS:
        cluster.assert_ours(cluster.topology["p11"].call(traffic.use_flow, f"kept{version}"), "p11")
        cluster.assert_ours(cluster.topology["p11"].call(traffic.tcp, OUTSIDE[version]), "p11")
        with pytest.raises(InNamespace, match="Timeout"):
            cluster.topology["p12"].call(traffic.tcp, OUTSIDE[version], timeout=0.5)
    cluster.assert_no_leak(cluster.topology["out"].call(traffic.capture_stop))
    assert apply(cluster, "n1", bad.desired("n1")) == failures
    assert apply(cluster, "n1", bad.desired("n1"), anew=True) == failures
    assert apply(cluster, "n1", WORLD.desired("n1")) == ()
    cluster.topology["p12"].call(traffic.tcp, OUTSIDE[4])


def test_a_connection_that_the_kernel_does_not_forget_sends_nothing_and_is_tried_again(cluster: Cluster) -> None:
    pod, out = cluster.topology["p11"], cluster.topology["out"]
    cluster.apply(WORLD)
    for version in VERSIONS:
        pod.call(traffic.open_flow, f"stuck{version}", OUTSIDE[version], kind="udp")
    gone = WORLD.but(policies=(TWO,), pods={"p12": 6}, sizes={a: SIZES[a] for a in SECOND.values()}).desired("n1")
    state = str(cluster.state / "n1")
    report = cluster.topology["n1"].call(traffic.kernel_apply_holding_on, gone, state, 2)
    assert {failure.message for failure in report.failures} == {"cannot forget a connection: injected"}
    out.call(traffic.capture_start)
    for version in VERSIONS:
        pod.call(traffic.poke_flow, f"stuck{version}", 5)
    packets = [packet for packet in out.call(traffic.capture_stop) if packet.target in OUTSIDE.values()]
    assert not [packet for packet in packets if packet.source in EGRESS.values()]
    assert apply(cluster, "n1", gone) == ()
    for version in VERSIONS:
        assert pod.call(traffic.use_flow, f"stuck{version}")[0] not in EGRESS.values()
    listed = cluster.topology["n1"].sh("nft", "list", "set", "inet", "sluice", "egress_ips4")
    assert str(EGRESS[4]) not in listed


def test_a_refusal_that_is_no_policys_fault_is_the_nodes_and_changes_nothing(cluster: Cluster) -> None:
    cluster.apply(WORLD)
    desired = WORLD.desired("n1")
    with pytest.raises(InNamespace, match="nftables refused the rules"):
        apply(cluster, "n1", replace(desired, uplinks=("eth0", 'a"b')))
    for version in VERSIONS:
        cluster.assert_ours(cluster.topology["p11"].call(traffic.tcp, OUTSIDE[version]), "p11")
    assert apply(cluster, "n1", desired) == ()
