"""An address outlives a mistake: what people get wrong costs traffic at most, and gives no stranger the address."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.system.test_system_changes import SECONDS, dropped, follow, from_any
from tests.cluster.system.world import World

from testbed.system import Pod, policy, pool, traffic_pod, wait_for

TENANT, STRANGER = "careful", "stranger"
ADMITTED = {"mistakes": "admitted"}
SELECTED = {"app": "careful"}
ADDRESS = "198.51.100.210"
"""Of no pool of another module: what a policy had before rests."""
V4 = {"families": ["IPv4"]}


@pytest.fixture(scope="module")
def pod(world: World) -> Iterator[Pod]:
    """A pod of a tenant whose policy has the only address of a pool; a stranger's policy waits for it."""
    system = world.system
    for name in (TENANT, STRANGER):
        system.namespace(name, ADMITTED)
    system.apply(pool("single", ADDRESS, namespaces={"matchLabels": ADMITTED}), policy_of(TENANT, "single"))
    (made,) = system.start_pods(traffic_pod(TENANT, "careful", node=system.cluster.nodes[1], labels=SELECTED))
    system.wait_condition("egresspolicy", "one", "Ready", namespace=TENANT, seconds=2 * SECONDS)
    system.apply(policy_of(STRANGER, "single"))
    yield made
    for name in (TENANT, STRANGER):
        system.kubectl("delete", "namespace", name, "--wait=false")
    for name in ("single", "several"):
        system.delete("egresspool", name, wait=False)


def policy_of(namespace: str, pool_name: str) -> dict[str, Any]:
    """The policy of a tenant; only its IPv4 traffic counts here."""
    return policy(namespace, "one", pool_name, SELECTED, addresses=V4)


def accepted(world: World, status: str, reason: str) -> None:
    """Wait until the tenant's policy is (not) accepted for this reason."""
    found = world.system.wait_condition(
        "egresspolicy", "one", "Accepted", namespace=TENANT, status=status, seconds=SECONDS
    )
    assert found["reason"] == reason, found


def goes_on(world: World, pod: Pod, what: str) -> None:
    """The tenant's IPv4 traffic leaves with its address; IPv6, which its policy has no address of, is dropped."""
    right = from_any({ADDRESS})
    follow(world, pod, what, lambda answer: right(answer) or ("[" in answer["target"] and dropped(answer)))


def nothing_for_the_stranger(world: World) -> None:
    """The stranger's policy waits, and says for what."""
    found = world.system.wait_condition(
        "egresspolicy", "one", "Assigned", namespace=STRANGER, status="False", seconds=SECONDS
    )
    assert found["reason"] == "PoolExhausted"
    assert not world.system.addresses_of(STRANGER, "one")


@pytest.mark.cluster
def test_a_misspelt_pool_costs_neither_address_nor_traffic(world: World, pod: Pod) -> None:
    goes_on(world, pod, "before")
    world.system.apply(policy_of(TENANT, "singel"))
    accepted(world, "False", "PoolNotFound")
    goes_on(world, pod, "spec.pool is misspelt")
    nothing_for_the_stranger(world)
    world.system.apply(policy_of(TENANT, "single"))
    accepted(world, "True", "Accepted")
    goes_on(world, pod, "spec.pool is right again")


@pytest.mark.cluster
def test_a_lost_label_costs_traffic_until_it_is_back_but_never_the_address(world: World, pod: Pod) -> None:
    world.system.namespace(TENANT)
    accepted(world, "False", "NamespaceNotAllowed")
    follow(world, pod, "the label is lost", dropped)
    nothing_for_the_stranger(world)
    world.system.namespace(TENANT, ADMITTED)
    accepted(world, "True", "Accepted")
    goes_on(world, pod, "the label is back")


@pytest.mark.cluster
def test_a_policy_that_is_deleted_and_applied_again_has_its_address_again(world: World, pod: Pod) -> None:
    system = world.system
    before = system.get("egressip", ADDRESS)["metadata"]["uid"]
    system.delete("egresspolicy", "one", TENANT)
    wait_for("the address rests", lambda: ADDRESS in world.resting(), SECONDS)
    print(system.kubectl("get", "egresspools,egressips"))
    nothing_for_the_stranger(world)
    system.apply(policy_of(TENANT, "single"))
    goes_on(world, pod, "the policy is back")
    assert system.get("egressip", ADDRESS)["metadata"]["uid"] == before


@pytest.mark.cluster
def test_a_claim_in_use_that_somebody_deletes_comes_back_to_its_policy(world: World, pod: Pod) -> None:
    before = world.system.get("egressip", ADDRESS)["metadata"]["uid"]
    world.system.delete("egressip", ADDRESS)
    wait_for(
        "claimed again",
        lambda: world.system.get("egressip", ADDRESS).get("metadata", {}).get("uid", before) != before,
        SECONDS,
    )
    assert world.system.get("egressip", ADDRESS)["spec"]["policy"]["namespace"] == TENANT
    goes_on(world, pod, "its claim was deleted")
    nothing_for_the_stranger(world)


def backup(document: dict[str, Any]) -> dict[str, Any]:
    """An object as a backup keeps it: without status, uid and version."""
    metadata = {
        key: document["metadata"][key] for key in ("name", "namespace", "labels") if key in document["metadata"]
    }
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": metadata} | {
        "spec": document["spec"]
    }


@pytest.mark.cluster
def test_a_restored_backup_gives_the_address_back_whatever_is_restored_first(world: World, pod: Pod) -> None:
    system = world.system
    system.apply(pool("several", "198.51.100.211-198.51.100.213", namespaces={"matchLabels": ADMITTED}))
    system.apply(policy_of(TENANT, "several"))
    old = "198.51.100.211"
    wait_for("another pool's address", lambda: system.addresses_of(TENANT, "one") == [old], SECONDS)
    saved = [backup(system.get("egressip", old)), backup(system.get("egresspolicy", "one", TENANT))]
    for documents in (saved, saved[::-1]):
        system.delete("egresspolicy", "one", TENANT)
        wait_for("it rests", lambda: old in world.resting(), SECONDS)
        system.delete("egressip", old)
        system.apply(documents[0])
        if documents[0] is saved[1]:
            wait_for("a fresh address", lambda: system.addresses_of(TENANT, "one") not in ([], [old]), SECONDS)
        else:
            wait_for("the claim waits for its policy", lambda: old in world.resting(), SECONDS)
        system.apply(documents[1])
        wait_for("the old address", lambda: system.addresses_of(TENANT, "one") == [old], SECONDS)
        follow(world, pod, "restored", lambda a: a.get("address") == old or ("[" in a["target"] and dropped(a)))
    events = system.objects("events", "-n", TENANT)
    assert [event for event in events if event["reason"] == "AddressChanged" and event["type"] == "Warning"]


@pytest.mark.cluster
def test_an_administrator_ends_a_rest_and_the_stranger_has_the_address(world: World, pod: Pod) -> None:
    wait_for("the first address rests", lambda: ADDRESS in world.resting(), SECONDS)
    nothing_for_the_stranger(world)
    world.system.delete("egressip", ADDRESS)
    wait_for("it is the stranger's", lambda: world.system.addresses_of(STRANGER, "one") == [ADDRESS], SECONDS)
