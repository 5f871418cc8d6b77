"""A change of a label, a policy, a pool or a namespace is followed, in both directions, and how fast is printed."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.cluster.system.world import LABELS, NAMESPACE, POOL, World, targets

from testbed.system import Pod, policy, pool, traffic_pod, wait_for

SECONDS = 30
PORT = 8080
"""Not the port on which every other source is a leak: here sources change on purpose."""


@pytest.fixture
def pod(world: World) -> Iterator[Pod]:
    """An unselected pod of its own for each test, on the second node."""
    node = world.system.cluster.nodes[1]
    (made,) = world.system.start_pods(traffic_pod(NAMESPACE, "changing", node=node, labels={"app": "changing"}))
    yield made
    world.system.delete("pod", made.name, NAMESPACE)


def follow(world: World, pod: Pod, what: str, right: Callable[[dict[str, Any]], bool]) -> float:
    """Seconds until every answer is right."""
    started = time.monotonic()

    def all_right() -> bool:
        where = targets(world.system.outside, port=PORT)
        answers = world.ask(pod, "tcp", world.system.outside, port=PORT, timeout=1)
        return len(answers) == len(where) and all(right(a) for a in answers)

    wait_for(what, all_right, SECONDS, every=0.01)
    seconds = time.monotonic() - started
    print(f"{what}: {seconds:.2f} s")
    return seconds


def from_node(world: World, pod: Pod) -> Callable[[dict[str, Any]], bool]:
    """Judges that an answer came from the node's own address."""
    own = {str(a) for a in world.system.cluster.host(pod.node).addresses}
    return lambda answer: answer.get("address") in own


def from_any(addresses: set[str]) -> Callable[[dict[str, Any]], bool]:
    """Judges that an answer came from one of the addresses."""
    return lambda answer: answer.get("address") in addresses


def dropped(answer: dict[str, Any]) -> bool:
    """Judges that nothing came back."""
    return not answer["ok"]


@pytest.mark.cluster
def test_a_label_makes_a_pod_leave_with_the_egress_ip_and_its_removal_ends_it(world: World, pod: Pod) -> None:
    world.system.kubectl("label", "pod", "-n", NAMESPACE, pod.name, f"app={LABELS['app']}", "--overwrite")
    follow(world, pod, "label set, first right packet", from_any(world.egress()))
    world.system.kubectl("label", "pod", "-n", NAMESPACE, pod.name, "app=changing", "--overwrite")
    follow(world, pod, "label removed, node's address again", from_node(world, pod))


@pytest.mark.cluster
def test_a_policy_takes_effect_when_it_is_applied_and_ends_when_it_is_deleted(world: World, pod: Pod) -> None:
    world.system.apply(policy(NAMESPACE, "second", POOL, {"app": "changing"}))
    others = world.egress()
    still = from_node(world, pod)
    follow(
        world,
        pod,
        "kubectl apply of a policy, first right packets",
        lambda a: a["ok"] and not still(a) and a["address"] not in others,
    )
    world.system.wait_condition("egresspolicy", "second", "Ready", namespace=NAMESPACE, seconds=SECONDS)
    own = set(world.system.addresses_of(NAMESPACE, "second"))
    assert own
    assert not own & others
    follow(world, pod, "its own egress IPs", from_any(own))
    world.system.delete("egresspolicy", "second", NAMESPACE)
    follow(world, pod, "policy deleted, node's address again", from_node(world, pod))
    wait_for("its egress IPs rest", lambda: own <= world.resting(), SECONDS)
    assert not world.egress() & world.resting()


@pytest.mark.cluster
def test_a_policy_that_moves_to_another_pool_leaves_with_that_pools_address(world: World, pod: Pod) -> None:
    world.system.apply(pool("others", "198.51.100.128/28", "2001:db8:100::f00/120"))
    world.system.apply(policy(NAMESPACE, "moving", POOL, {"app": "changing"}))
    follow(world, pod, "first pool", lambda a: str(a.get("address")).startswith(("198.51.100.1", "2001:db8:100::")))
    world.system.apply(policy(NAMESPACE, "moving", "others", {"app": "changing"}))
    follow(
        world,
        pod,
        "second pool, with its gateways started",
        lambda a: str(a.get("address")).startswith(("198.51.100.129", "2001:db8:100::f")),
    )
    world.system.delete("egresspolicy", "moving", NAMESPACE)
    world.system.delete("egresspool", "others")
    follow(world, pod, "node's address again", from_node(world, pod))


@pytest.mark.cluster
def test_a_namespace_that_may_no_longer_use_the_pool_is_cut_off_and_told_so(world: World) -> None:
    name = "guests"
    world.system.namespace(name, {"egress": POOL})
    node = world.system.cluster.nodes[0]
    (guest,) = world.system.start_pods(traffic_pod(name, "guest", node=node, labels=LABELS))
    world.system.apply(policy(name, "guest", POOL, LABELS))
    world.system.wait_condition("egresspolicy", "guest", "Ready", namespace=name, seconds=SECONDS)
    follow(world, guest, "namespace allowed", from_any(set(world.system.addresses_of(name, "guest"))))
    world.system.kubectl("label", "namespace", name, "egress-")
    follow(world, guest, "namespace no longer allowed, dropped", dropped)
    refused = world.system.wait_condition(
        "egresspolicy", "guest", "Accepted", namespace=name, status="False", seconds=SECONDS
    )
    assert refused["reason"] == "NamespaceNotAllowed"
    world.system.kubectl("label", "namespace", name, f"egress={POOL}")
    follow(world, guest, "namespace allowed again", lambda a: a["ok"] and not from_node(world, guest)(a))
    world.system.delete("namespace", name)


@pytest.mark.cluster
def test_destinations_limit_what_is_redirected(world: World, pod: Pod) -> None:
    outside = world.system.outside.address(4)
    limited = [{"cidrs": [f"{outside}/32"], "ports": [{"protocol": "TCP", "port": PORT}]}]
    world.system.apply(policy(NAMESPACE, "limited", POOL, {"app": "changing"}, destinations=limited, otherwise="Drop"))
    world.system.wait_condition("egresspolicy", "limited", "Ready", namespace=NAMESPACE, seconds=SECONDS)
    own = set(world.system.addresses_of(NAMESPACE, "limited"))
    (answer, other_family) = world.ask(pod, "tcp", world.system.outside, port=PORT, timeout=2)
    assert answer["address"] in own
    assert dropped(other_family)
    assert all(map(dropped, world.ask(pod, "udp", world.system.outside, port=443, timeout=2)))
    world.system.delete("egresspolicy", "limited", NAMESPACE)


@pytest.mark.cluster
def test_a_pool_in_use_is_not_deleted_and_says_how_to_find_by_whom(world: World) -> None:
    world.system.apply(pool("held", "198.51.100.200"))
    world.system.apply(policy(NAMESPACE, "holding", "held", {"app": "nobody"}))
    world.system.wait_condition("egresspolicy", "holding", "Assigned", namespace=NAMESPACE, seconds=SECONDS)
    world.system.delete("egresspool", "held", wait=False)

    def says_so() -> bool:
        found = world.system.get("egresspool", "held")
        return any(
            c["reason"] == "InUse" and "--field-selector spec.pool=held" in c["message"]
            for c in found["status"]["conditions"]
        )

    wait_for("the pool says how to find who holds it", says_so, SECONDS)
    found = world.system.kubectl(
        "get", "egresspolicies", "--all-namespaces", "--field-selector", "spec.pool=held", "-o", "name"
    )
    assert found.split() == ["egresspolicy.sluice.dev/holding"]
    world.system.delete("egresspolicy", "holding", NAMESPACE)
    wait_for("the pool is gone", lambda: not world.system.get("egresspool", "held"), SECONDS)
