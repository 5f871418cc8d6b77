"""An address that anybody else has is never given, and everybody is told as much as is theirs to know."""

import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.operator_fakes import FakeOperator, World, settle

from sluice_api.addresses import PoolAddresses
from sluice_operator.core import project_cluster
from sluice_operator.core.actions import Claim
from sluice_operator.core.plan import plan
from sluice_operator.core.snapshot import (
    NO_ADDRESSES,
    ClusterNode,
    EgressNode,
    Policy,
    PolicyKey,
    Pool,
    Reservation,
    Service,
    Settings,
    Snapshot,
)
from sluice_operator.core.taken import takings
from sluice_operator.shell import kube
from sluice_operator.shell.surveys import Surveys

Step = Callable[[World], None]


def _service(world: World, *, ingress: tuple[str, ...] = (), external: tuple[str, ...] = ()) -> None:
    document = {
        "metadata": {"namespace": "web", "name": "front"},
        "spec": {"clusterIP": "10.96.0.7", "externalIPs": list(external)},
        "status": {"loadBalancer": {"ingress": [{"ip": address} for address in ingress]}},
    }
    world.api.put(kube.SERVICE, document)


def _cluster_info(world: World, server: str) -> None:
    kubeconfig = f"apiVersion: v1\nkind: Config\nclusters:\n- name: ''\n  cluster: {{server: '{server}'}}\n"
    document = {"metadata": {"namespace": "kube-public", "name": "cluster-info"}, "data": {"kubeconfig": kubeconfig}}
    world.api.put(kube.CONFIG_MAP, document)


def _endpoints(world: World, *addresses: str) -> None:
    metadata = {"namespace": "default", "name": "kubernetes"}
    world.api.put(kube.ENDPOINT_SLICE, {"metadata": metadata, "endpoints": [{"addresses": list(addresses)}]})


def _pod_range(world: World, cidr: str) -> None:
    world.api.put(kube.NODE, {"metadata": {"name": "n1"}, "spec": {"podCIDRs": [cidr]}, "status": {}})


def _service_range(world: World, cidr: str) -> None:
    world.api.put(kube.SERVICE_CIDR, {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [cidr]}})


def _seen(world: World, by: str) -> None:
    world.occupied["n2"] = [("198.51.100.18", by)]


WHOLE: dict[str, tuple[Step, str]] = {
    "a node's address": (lambda world: world.cluster_node("n2", "198.51.100.18"), "198.51.100.18 (node n2)"),
    "a range of pods": (
        lambda world: _pod_range(world, "198.51.100.18/31"),
        "198.51.100.18 in 198.51.100.18/31 (pods of node n1: spec.podCIDRs)",
    ),
    "a range of Services": (
        lambda world: _service_range(world, "198.51.100.16/28"),
        "198.51.100.17 in 198.51.100.16/28 (ServiceCIDR kubernetes)",
    ),
    "a load balancer's address": (
        lambda world: _service(world, ingress=("198.51.100.18",)),
        "198.51.100.18 (a Service: status.loadBalancer)",
    ),
    "an endpoint of the API server": (
        lambda world: _endpoints(world, "198.51.100.18"),
        "198.51.100.18 (the API server: EndpointSlice default/kubernetes)",
    ),
    "the address that nodes join by": (
        lambda world: _cluster_info(world, "https://198.51.100.18:6443"),
        "198.51.100.18 (the API server: ConfigMap kube-public/cluster-info)",
    ),
    "a pod's address": (lambda world: _seen(world, "pod"), "198.51.100.18 (pod, seen by node n2)"),
    "an interface's address": (
        lambda world: _seen(world, "interface eth1"),
        "198.51.100.18 (interface eth1, seen by node n2)",
    ),
    "a gateway's address": (
        lambda world: _seen(world, "gateway on eth0"),
        "198.51.100.18 (gateway on eth0, seen by node n2)",
    ),
    "a broadcast address": (
        lambda world: _seen(world, "broadcast address of eth0"),
        "198.51.100.18 (broadcast address of eth0, seen by node n2)",
    ),
}
"""What refuses a pool, and how it is named."""

SINGLE: dict[str, tuple[Step, str]] = {
    "a Service's external address": (
        lambda world: _service(world, external=("198.51.100.18",)),
        "198.51.100.18 (a Service: spec.externalIPs)",
    ),
    "a machine on the link": (
        lambda world: _seen(world, "neighbour 02:00:00:00:00:07 on eth0"),
        "198.51.100.18 (neighbour 02:00:00:00:00:07 on eth0, seen by node n2)",
    ),
}
"""What withholds an address and nothing else, and how it is named."""


def _base(world: World) -> None:
    world.namespace("a")
    world.namespace("b")
    world.node("n1", gateway_for=["p"])
    world.node("n2", gateway_for=["p"])


def _pool(world: World) -> None:
    world.pool("p", ["198.51.100.17-198.51.100.19"])


def _condition(document: dict[str, Any], kind: str) -> tuple[str, str, str]:
    found = next(entry for entry in document["status"]["conditions"] if entry["type"] == kind)
    return found["status"], found["reason"], found["message"]


def _addresses(world: World, policy: str) -> list[str]:
    found: list[str] = (world.api.named(kube.EGRESS_POLICY)[policy].get("status") or {}).get("addresses") or []
    return found


async def _operator(world: World) -> FakeOperator:
    operator = FakeOperator(world.api)
    await operator.start()
    return operator


@pytest.mark.parametrize("name", WHOLE)
async def test_a_pool_with_an_address_of_the_cluster_is_refused_by_owner_and_gives_nothing(name: str) -> None:
    owned, words = WHOLE[name]
    world = World()
    operator = await _operator(world)
    _base(world)
    owned(world)
    _pool(world)
    world.policy("a", "one", "p")
    await operator.relist()
    await settle(world, operator)
    status, reason, message = _condition(world.api.named(kube.EGRESS_POOL)["p"], "Accepted")
    assert (status, reason) == ("False", "AddressTaken")
    assert words in message
    assert "spec.exclude of pool p" in message
    assert not world.api.named(kube.EGRESS_IP)
    assert _condition(world.api.named(kube.EGRESS_POLICY)["a/one"], "Assigned")[:2] == ("False", "Pending")


@pytest.mark.parametrize("name", SINGLE)
async def test_what_a_tenant_or_a_stranger_can_bring_about_withholds_that_address_alone(name: str) -> None:
    owned, words = SINGLE[name]
    world = World()
    operator = await _operator(world)
    _base(world)
    owned(world)
    _pool(world)
    for policy in ("one", "two", "three"):
        world.policy("a", policy, "p")
    await settle(world, operator)
    status, reason, message = _condition(world.api.named(kube.EGRESS_POOL)["p"], "Accepted")
    assert (status, reason) == ("False", "AddressTaken")
    assert words in message
    assert "the other addresses of the pool are given as before" in message
    assert sorted(world.api.named(kube.EGRESS_IP)) == ["198.51.100.17", "198.51.100.19"]
    assert world.api.named(kube.EGRESS_POOL)["p"]["status"]["ipv4"]["free"] == 0


@pytest.mark.parametrize("name", WHOLE | SINGLE)
async def test_an_address_that_is_taken_later_stays_assigned_and_it_is_said(name: str) -> None:
    owned, _ = (WHOLE | SINGLE)[name]
    world = World()
    operator = await _operator(world)
    _base(world)
    _pool(world)
    world.policy("a", "one", "p", addresses={"requested": ["198.51.100.18"]})
    world.policy("b", "two", "p", addresses={"requested": ["198.51.100.17"]})
    await settle(world, operator)
    owned(world)
    await operator.relist()
    await settle(world, operator)
    assert _addresses(world, "a/one") == ["198.51.100.18"]
    assert _addresses(world, "b/two") == ["198.51.100.17"]
    status, reason, message = _condition(world.api.named(kube.EGRESS_POLICY)["a/one"], "Degraded")
    assert (status, reason) == ("True", "AddressTaken")
    assert "198.51.100.18" in message
    assert _condition(world.api.named(kube.EGRESS_POOL)["p"], "Accepted")[:2] == ("False", "AddressTaken")


async def test_a_pool_is_accepted_again_when_the_owner_lets_go_of_the_address() -> None:
    world = World()
    operator = await _operator(world)
    _base(world)
    _pool(world)
    world.cluster_node("n3", "198.51.100.18")
    world.policy("a", "one", "p")
    await settle(world, operator)
    assert not _addresses(world, "a/one")
    world.api.remove(kube.NODE, "n3")
    await settle(world, operator)
    assert _condition(world.api.named(kube.EGRESS_POOL)["p"], "Accepted")[:2] == ("True", "Accepted")
    assert _addresses(world, "a/one") == ["198.51.100.17"]


async def test_excluding_what_is_not_free_mends_the_pool() -> None:
    world = World()
    operator = await _operator(world)
    _base(world)
    world.cluster_node("n1", "198.51.100.17")
    world.pool("p", ["198.51.100.17-198.51.100.19"], exclude=["198.51.100.17"])
    world.policy("a", "one", "p")
    await settle(world, operator)
    assert _addresses(world, "a/one") == ["198.51.100.18"]


def test_a_pool_full_of_nodes_names_five_of_them() -> None:
    nodes = {f"n{n}": ClusterNode(f"n{n}", "u", (ip_address(f"198.51.100.{16 + n}"),)) for n in range(8)}
    snapshot = Snapshot(now="", settings=Settings("s", "i"), cluster_nodes=nodes)
    found = takings({"p": PoolAddresses.parse(["198.51.100.0/24"])}, snapshot)["p"]
    assert "(node n4) and 3 more" in found.message("p")
    assert found.count(4) == 8


async def test_nothing_is_given_before_every_node_has_looked() -> None:
    world = World()
    operator = await _operator(world)
    _base(world)
    _pool(world)
    world.policy("a", "one", "p")
    operator.pump()
    await operator.reconciler.reconcile()
    assert not world.api.named(kube.EGRESS_IP)
    assert "status" not in world.api.named(kube.EGRESS_POLICY)["a/one"], "nothing is said of it yet"
    assert world.api.named(kube.DEPLOYMENT), "gateways do not wait"
    world.occupied["n2"] = [("198.51.100.17", "neighbour 02:00:00:00:00:07 on eth0")]
    await settle(world, operator)
    assert _addresses(world, "a/one") == ["198.51.100.18"]


async def test_a_node_that_never_answers_is_waited_for_three_seconds() -> None:
    now = 0.0
    woken: list[float] = []
    world = World()
    operator = await _operator(world)
    operator.reconciler._surveys = Surveys(clock=lambda: now, wake_after=lambda after, _: woken.append(after))
    _base(world)
    _pool(world)
    world.policy("a", "one", "p")
    operator.pump()
    await operator.reconciler.reconcile()
    assert woken == [3.0]
    now = 2.9
    await operator.reconciler.reconcile()
    assert not world.api.named(kube.EGRESS_IP)
    now = 3.0
    await operator.reconciler.reconcile()
    assert world.api.named(kube.EGRESS_IP)


async def test_a_pool_that_was_judged_waits_for_nobody() -> None:
    world = World()
    operator = await _operator(world)
    _base(world)
    _pool(world)
    await settle(world, operator)
    world.cluster_node("late", "192.0.2.9")
    world.policy("a", "one", "p")
    operator.pump()
    await operator.reconciler.reconcile()
    assert world.api.named(kube.EGRESS_IP)


def _keeps_secrets(world: World) -> None:
    for name, policy in world.api.named(kube.EGRESS_POLICY).items():
        if name.startswith("mine/"):
            text = str(policy["status"])
            for secret in ("secret-policy", "secret-service", "theirs"):
                assert secret not in text, name
            if name != "mine/not-mine":
                assert "secret-pool" not in text, name


async def test_a_requested_address_that_is_taken_is_refused_and_another_policy_gets_the_rest() -> None:
    world = World()
    operator = await _operator(world)
    _base(world)
    _pool(world)
    world.occupied["n2"] = [("198.51.100.18", "neighbour 02:00:00:00:00:07 on eth0")]
    world.policy("a", "one", "p", addresses={"requested": ["198.51.100.18"]})
    world.policy("a", "two", "p")
    await settle(world, operator)
    status, reason, message = _condition(world.api.named(kube.EGRESS_POLICY)["a/one"], "Assigned")
    assert (status, reason) == ("False", "AddressTaken")
    assert "198.51.100.18 is not free (neighbour 02:00:00:00:00:07 on eth0, seen by node n2)" in message
    assert _addresses(world, "a/two") == ["198.51.100.17"]


async def test_tenants_never_read_of_each_other() -> None:
    """Whatever is refused or shown: no policy, namespace, Service or pool of another tenant stands in it."""
    world = World()
    operator = await _operator(world)
    world.namespace("mine", team="x")
    world.namespace("theirs", team="y")
    for name in ("n1", "n2"):
        world.node(name, gateway_for=["shared", "secret-pool"])
    world.pool("shared", ["198.51.100.16/29"])
    world.pool("secret-pool", ["203.0.113.16/29"], namespaces={"matchLabels": {"team": "y"}})
    world.pool("overlapping", ["203.0.113.16/29"])
    world.policy("theirs", "secret-policy", "shared", addresses={"requested": ["198.51.100.18"]})
    world.policy("theirs", "other", "secret-pool")
    await settle(world, operator)
    world.api.put(
        kube.SERVICE,
        {"metadata": {"namespace": "theirs", "name": "secret-service"}, "spec": {"externalIPs": ["198.51.100.19"]}},
    )
    world.policy("mine", "same-address", "shared", addresses={"requested": ["198.51.100.18"]})
    world.policy("mine", "service-address", "shared", addresses={"requested": ["198.51.100.19"]})
    world.policy("mine", "no-pool", "nowhere")
    world.policy("mine", "not-mine", "secret-pool")
    world.policy("mine", "not-accepted", "overlapping")
    await settle(world, operator)
    reason = _condition(world.api.named(kube.EGRESS_POLICY)["mine/same-address"], "Assigned")[1]
    assert reason == "AddressInUse"
    _keeps_secrets(world)
    world.api.remove(kube.EGRESS_POOL, "shared")
    await settle(world, operator)
    _keeps_secrets(world)
    shown = str(world.api.named(kube.EGRESS_POOL)["shared"]["status"])
    for secret in ("theirs", "mine/", "secret", "198.51.100.18"):
        assert secret not in shown


async def test_a_pool_shows_the_room_left_and_for_whom_it_is() -> None:
    world = World()
    operator = await _operator(world)
    _base(world)
    world.namespace("a", team="x")
    entry = {"key": "stage", "operator": "In", "values": ["live", "test"]}
    selector = {"matchLabels": {"team": "x"}, "matchExpressions": [entry, {"key": "old", "operator": "DoesNotExist"}]}
    world.pool("p", ["198.51.100.16/29", "2001:db8::/124"])
    world.pool("q", ["203.0.113.16/29"], namespaces=selector)
    world.policy("a", "one", "p")
    await settle(world, operator)
    pools = {name: pool["status"]["display"] for name, pool in world.api.named(kube.EGRESS_POOL).items()}
    assert (pools["p"]["free"], pools["p"]["namespaces"]) == ("5 IPv4, 14 IPv6", "all")
    assert (pools["q"]["free"], pools["q"]["namespaces"]) == ("6 IPv4", "team=x,stage in (live,test),!old")


async def test_administrators_are_told_which_service_it_is() -> None:
    world = World()
    operator = await _operator(world)
    _base(world)
    _service(world, ingress=("198.51.100.18",))
    _pool(world)
    posted: list[str] = []
    account = operator.reconciler._account

    def listen(outcome: Any) -> None:
        posted.extend(notice.message for notice in outcome.notices)
        account(outcome)

    operator.reconciler._account = listen  # type: ignore[method-assign]
    await settle(world, operator)
    assert any("Service web/front: status.loadBalancer" in message for message in posted)
    assert "web/front" not in str(world.api.named(kube.EGRESS_POOL)["p"]["status"])


V4 = st.integers(0, 40).map(lambda n: IPv4Address(int(IPv4Address("198.51.100.0")) + n))
V6 = st.integers(0, 40).map(lambda n: IPv6Address(int(IPv6Address("2001:db8::")) + n))
ADDRESS = st.one_of(V4, V6)
NETWORK = ADDRESS.flatmap(
    lambda address: st.integers(address.max_prefixlen - 4, address.max_prefixlen).map(
        lambda prefix: ip_network((address, prefix), strict=False)
    )
)
FEW = st.lists(ADDRESS, max_size=3).map(tuple)
BY = st.sampled_from(["pod", "interface eth0", "gateway on eth0", "neighbour 02:00:00:00:00:07 on eth0", "?"])


@st.composite
def clusters(draw: st.DrawFn) -> Snapshot:
    """Pools, policies that want addresses, and owners of addresses everywhere."""
    pools = {}
    for name in draw(st.lists(st.sampled_from("pqr"), unique=True, min_size=1)):
        first = draw(st.integers(1, 30))
        entries = (f"198.51.100.{first}-198.51.100.{first + draw(st.integers(0, 9))}", f"2001:db8::{first:x}")
        within = st.sampled_from(sorted(PoolAddresses.parse(entries).of_family(4)))
        few = draw(st.lists(within, max_size=2, unique=True))
        kept = tuple(Reservation(address, "a", draw(st.sampled_from(["", "p0"]))) for address in few)
        pools[name] = Pool(name, f"uid-{name}", 1, name, entries, reservations=kept)
    policies = {}
    for number in range(draw(st.integers(1, 6))):
        requested = draw(st.one_of(st.just(()), st.tuples(V4)))
        key = PolicyKey("a", f"p{number}")
        policies[key] = Policy(
            key, f"uid-{number}", 1, f"{number}", draw(st.sampled_from(sorted(pools))), requested=requested
        )
    return Snapshot(
        now="t",
        settings=Settings("s", "i"),
        pools=pools,
        policies=policies,
        cluster_nodes={
            f"n{number}": ClusterNode(f"n{number}", "u", addresses, tuple(networks))
            for number, (addresses, networks) in enumerate(
                draw(st.lists(st.tuples(FEW, st.lists(NETWORK, max_size=1)), max_size=3))
            )
        },
        services={("web", f"s{n}"): Service(*entry) for n, entry in enumerate(draw(st.lists(st.tuples(FEW, FEW))))},
        service_cidrs={"kubernetes": tuple(draw(st.lists(NETWORK, max_size=1)))},
        api_server={"EndpointSlice default/kubernetes": draw(FEW)},
        nodes={
            "n0": EgressNode("n0", 0, occupied=tuple(draw(st.lists(st.tuples(ADDRESS, BY), max_size=4)))),
        },
        overdue=frozenset(pools),
    )


def _everybodys(snapshot: Snapshot) -> Callable[[IPv4Address | IPv6Address], bool]:
    """Whether somebody has an address: the plain way to say it."""
    singles = {address for node in snapshot.cluster_nodes.values() for address in node.addresses}
    singles |= {address for service in snapshot.services.values() for part in service for address in part}
    singles |= {address for addresses in snapshot.api_server.values() for address in addresses}
    singles |= {address for report in snapshot.nodes.values() for address, _ in report.occupied}
    networks = [network for node in snapshot.cluster_nodes.values() for network in node.pod_cidrs]
    networks += [network for listed in snapshot.service_cidrs.values() for network in listed]
    return lambda address: address in singles or any(address in network for network in networks)


@given(clusters())
def test_no_address_that_anybody_has_is_ever_newly_assigned(snapshot: Snapshot) -> None:
    owned = _everybodys(snapshot)
    for action in plan(snapshot).actions:
        if isinstance(action, Claim):
            assert not owned(action.address)


@given(clusters())
def test_what_of_a_pool_is_taken_is_exactly_what_somebody_has(snapshot: Snapshot) -> None:
    owned = _everybodys(snapshot)
    parsed = {name: PoolAddresses.parse(pool.addresses) for name, pool in snapshot.pools.items()}
    found = takings(parsed, snapshot)
    for name, addresses in parsed.items():
        for version in (4, 6):
            lost = [address for address in addresses.of_family(version) if owned(address)]
            taken = found.get(name)
            assert (taken.count(version) if taken else 0) == len(lost)
            assert all(taken is not None and address in taken for address in lost)
            assert not any(taken and address in taken for address in set(addresses.of_family(version)) - set(lost))


def test_a_name_in_cluster_info_is_not_resolved_and_nonsense_is_nothing() -> None:
    for text in ("https://api.example.com:6443", "https://[::1", "", "*&"):
        world = World()
        _cluster_info(world, text)
        document = world.api.named(kube.CONFIG_MAP)["kube-public/cluster-info"]
        assert project_cluster.cluster_info(document) == ()
    world = World()
    _cluster_info(world, "https://[2001:db8::5]:6443")
    document = world.api.named(kube.CONFIG_MAP)["kube-public/cluster-info"]
    assert project_cluster.cluster_info(document) == (ip_address("2001:db8::5"),)


def test_a_thousand_nodes_and_five_thousand_services_cost_a_plan_some_milliseconds() -> None:
    """By processor time, so that a busy machine changes nothing; the bound is ten times what it takes."""
    inside = IPv4Address("10.0.0.0")
    nodes = {
        f"n{n}": ClusterNode(
            f"n{n}", "u", (inside + n, inside + 5000 + n), (ip_network(f"10.{64 + n // 256}.{n % 256}.0/24"),)
        )
        for n in range(1000)
    }
    services = {("s", f"s{n}"): Service((inside + 90000 + n,)) if n < 500 else NO_ADDRESSES for n in range(5000)}
    parsed = {f"p{n}": PoolAddresses.parse([f"198.{n}.0.0/24"]) for n in range(100)}
    snapshot = Snapshot(now="", settings=Settings("s", "i"), cluster_nodes=nodes, services=services)
    spent = []
    for _ in range(3):
        started = time.process_time()
        assert not takings(parsed, snapshot)
        spent.append(time.process_time() - started)
    print(f"{1000 * min(spent):.1f} ms")
    assert min(spent) < 0.1
