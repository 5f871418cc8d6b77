"""A spec that the cluster around it makes futile says so, and nothing is said of what is not known."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.operator_fakes import FakeOperator, World, settle

from sluice_operator.core.pools import ResolvedPool
from sluice_operator.core.project import policy as read_policy
from sluice_operator.core.snapshot import ClusterNode, GatewaySpec, Policy, PolicyKey, Pool, Settings, Snapshot, Taint
from sluice_operator.core.snapshot import span_of as span
from sluice_operator.core.surroundings import Surroundings
from sluice_operator.shell import kube

NODE = ClusterNode("n1", "u", addresses=(ip_address("192.0.2.1"),), pod_cidrs=(ip_network("10.1.0.0/24"),))
OTHER = replace(NODE, name="n2", addresses=(ip_address("192.0.2.2"),), pod_cidrs=(ip_network("10.1.1.0/24"),))
SNAPSHOT = Snapshot(
    now="now",
    settings=Settings("s", "i"),
    cluster_nodes={"n1": NODE, "n2": OTHER},
    service_cidrs={"kubernetes": (ip_network("10.96.0.0/16"),)},
    api_server={"endpoints": (ip_address("203.0.113.1"),)},
)
AROUND = Surroundings(SNAPSHOT)
POLICY = Policy(PolicyKey("a", "one"), "u", 1, "2026", "p")
POOL = Pool("p", "u", 1, "2026", ())
V4, V6 = ip_address("198.51.100.17"), ip_address("2001:db8::1")


def _reasons(policy: Policy, *addresses: object, around: Surroundings = AROUND) -> list[str]:
    return [str(found.reason) for found in around.of_policy(policy, tuple(addresses))]  # type: ignore[arg-type]


def test_a_policy_that_asks_for_a_family_that_nothing_has_is_degraded() -> None:
    (found,) = AROUND.of_policy(replace(POLICY, families=frozenset({4, 6})), (V4, V6))
    assert found.reason == "FamilyUnavailable"
    assert "IPv6" in found.message
    assert str(V6) in found.message
    assert "leave IPv6 out" in found.message


def test_a_policy_that_takes_what_the_pool_has_is_so_only_when_nothing_of_it_can_be_used() -> None:
    """Else every policy of a dual-stack pool would complain of what is the pool's to mend."""
    assert _reasons(POLICY, V4, V6) == []
    assert _reasons(POLICY, V6) == ["FamilyUnavailable"]


def test_a_pool_says_which_of_its_addresses_are_of_no_use() -> None:
    resolved = ResolvedPool(POOL, None, frozenset({4, 6}), None)
    (found,) = AROUND.of_pool(resolved)
    assert found.reason == "FamilyUnavailable"
    assert "IPv6" in found.message


def test_of_a_cluster_without_known_nodes_nothing_is_said() -> None:
    nobody = Surroundings(Snapshot(now="now", settings=Settings("s", "i")))
    assert _reasons(replace(POLICY, families=frozenset({6})), V6, around=nobody) == []
    assert not list(nobody.of_pool(ResolvedPool(POOL, None, frozenset({4, 6}), None)))
    assert nobody.too_few(POOL) == ""


@pytest.mark.parametrize(
    ("cidrs", "inside"),
    [
        (["10.1.0.0/24"], True),
        (["10.1.0.0/23"], True),  # two nodes' ranges, side by side
        (["10.96.0.10/32", "192.0.2.2/32", "203.0.113.1/32"], True),
        (["10.1.0.0/22"], False),
        (["10.1.0.0/24", "203.0.113.0/24"], False),
        (["0.0.0.0/0"], False),
        (["2001:db8::/64"], False),
    ],
)
def test_destinations_that_are_all_inside_the_cluster_are_told_of(cidrs: list[str], inside: bool) -> None:
    spec = {"destinations": [{"cidrs": [cidr]} for cidr in cidrs]}
    policy = read_policy({"metadata": {"name": "one", "namespace": "a"}, "spec": spec})
    assert _reasons(policy, V4) == (["DestinationsInCluster"] if inside else [])


NETWORKS = st.builds(
    lambda number, prefix: ip_network((number << 24 | 0x0A000000, prefix), strict=False),
    st.integers(0, 3),
    st.integers(24, 32),
)


@given(st.lists(NETWORKS, max_size=6), NETWORKS)
def test_inside_is_what_every_address_of_it_is(ranges: list[object], wanted: object) -> None:
    nodes = {"n": replace(NODE, addresses=(), pod_cidrs=tuple(ranges))}  # type: ignore[arg-type]
    around = Surroundings(Snapshot(now="now", settings=Settings("s", "i"), cluster_nodes=nodes))
    _, first, last = span(wanted)  # type: ignore[arg-type]
    covered = {n for r in ranges for n in range(span(r).first, span(r).last + 1)}  # type: ignore[arg-type]
    policy = replace(POLICY, destinations=(span(wanted),))  # type: ignore[arg-type]
    assert bool(_reasons(policy, around=around)) == all(number in covered for number in range(first, last + 1))


TAINTED = replace(NODE, taints=(Taint("egress", "yes", "NoSchedule"),))
CORDONED = replace(NODE, taints=(Taint("node.kubernetes.io/unschedulable", "", "NoSchedule"),), unschedulable=True)


@pytest.mark.parametrize(
    ("node", "gateways", "may"),
    [
        (NODE, GatewaySpec(), True),
        (NODE, GatewaySpec(node_selector={"egress": ""}), False),
        (replace(NODE, labels={"egress": ""}), GatewaySpec(node_selector={"egress": ""}), True),
        (TAINTED, GatewaySpec(), False),
        (TAINTED, GatewaySpec(tolerations=({"key": "egress", "operator": "Exists"},)), True),
        (TAINTED, GatewaySpec(tolerations=({"key": "egress", "value": "yes", "effect": "NoSchedule"},)), True),
        (TAINTED, GatewaySpec(tolerations=({"key": "egress", "value": "no"},)), False),
        (TAINTED, GatewaySpec(tolerations=({"operator": "Exists"},)), True),
        (replace(NODE, taints=(Taint("a", "", "PreferNoSchedule"),)), GatewaySpec(), True),
        (CORDONED, GatewaySpec(), False),
    ],
)
def test_a_gateway_may_run_where_the_scheduler_may_put_it(node: ClusterNode, gateways: GatewaySpec, may: bool) -> None:
    around = Surroundings(replace(SNAPSHOT, cluster_nodes={"n1": node}))
    assert around.hosts_of(replace(POOL, gateways=gateways)) == (("n1",) if may else ())


async def test_more_gateways_than_nodes_that_may_run_them_is_said_at_the_pool() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    world.namespace("a")
    world.node("n1", gateway_for=["p"])
    for name in ("n1", "n2", "n3"):
        taints = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}] if name == "n3" else []
        world.api.put(kube.NODE, {"metadata": {"name": name}, "spec": {"taints": taints}})
    world.pool("p", ["198.51.100.17-198.51.100.30"], gateways={"replicas": 10})
    await settle(world, operator)
    conditions = {c["type"]: c for c in world.api.named(kube.EGRESS_POOL)["p"]["status"]["conditions"]}
    assert conditions["Ready"]["status"] == "True"
    assert (conditions["Degraded"]["status"], conditions["Degraded"]["reason"]) == ("True", "GatewaysMissing")
    message = conditions["Degraded"]["message"]
    assert "1 of 10 gateways is ready (n1)" in message
    assert "only 2 nodes (n1, n2) of 3 may run a gateway" in message
    assert "lower spec.gateways.replicas from 10" in message
