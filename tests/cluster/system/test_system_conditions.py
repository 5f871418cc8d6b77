"""What the conditions say on a whole cluster: kubectl waits for each of them, and what lacks is named."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.system.world import LABELS, NAMESPACE, POOL, World

from testbed.system import NAMESPACE as SLUICE
from testbed.system import policy, pool, wait_for

SECONDS = 60
ADDRESS = "198.51.100.205"


def _said(world: World, kind: str, name: str, condition: str, namespace: str | None = None) -> tuple[str, str, str]:
    found = world.system.get(kind, name, namespace)
    entry: dict[str, Any] = next(
        (each for each in found.get("status", {}).get("conditions", ()) if each["type"] == condition), {}
    )
    return entry.get("status", ""), entry.get("reason", ""), entry.get("message", "")


@pytest.fixture(name="lacking")
def _lacking(world: World) -> Iterator[str]:
    """The name of a pool that a test makes; it is gone afterwards."""
    yield "lacking"
    world.system.delete("egresspool", "lacking")


@pytest.mark.cluster
def test_kubectl_waits_for_whatever_is_well(world: World) -> None:
    waits = [
        (f"egresspool/{POOL}", ("Accepted", "Ready", "Degraded=false", "Stalled=false")),
        (
            "egresspolicy/billing",
            ("Accepted", "Assigned", "Programmed", "Ready", "Degraded=false", "Stalled=false"),
        ),
        *((f"egressip/{found['metadata']['name']}", ("Ready",)) for found in world.system.objects("egressips")
          if found["spec"]["policy"]["name"] == "billing"),
        *((f"egressnode/{node}", ("Programmed",)) for node in world.system.cluster.nodes),
    ]  # fmt: skip
    for name, conditions in waits:
        for condition in conditions:
            world.system.kubectl("wait", "-n", NAMESPACE, name, f"--for=condition={condition}", "--timeout=30s")


@pytest.mark.cluster
def test_an_overridden_policy_names_the_one_that_takes_precedence(world: World) -> None:
    world.system.apply(policy(NAMESPACE, "catch-all", POOL, LABELS, priority=-5))
    try:

        def told() -> bool:
            return "policy billing instead" in _said(world, "egresspolicy", "catch-all", "Ready", NAMESPACE)[2]

        wait_for("the loser names the winner", told, SECONDS)
        assert _said(world, "egresspolicy", "catch-all", "Ready", NAMESPACE)[:2] == ("True", "Overridden")
    finally:
        world.system.delete("egresspolicy", "catch-all", NAMESPACE)


@pytest.mark.cluster
def test_more_gateways_than_nodes_are_ready_and_degraded_and_say_how_many_there_can_be(
    world: World, lacking: str
) -> None:
    world.system.apply(pool(lacking, ADDRESS, gateways={"replicas": 10}))
    there = len(world.system.cluster.nodes)

    def told() -> bool:
        return f"{there} of 10 gateways are ready" in _said(world, "egresspool", lacking, "Degraded")[2]

    wait_for("every node is a gateway of the pool", told, SECONDS)
    assert _said(world, "egresspool", lacking, "Ready")[:2] == ("True", "Ready")
    status, reason, message = _said(world, "egresspool", lacking, "Degraded")
    assert (status, reason) == ("True", "GatewaysMissing")
    assert f"only {there} nodes" in message
    assert f"of {there} may run a gateway" in message


@pytest.mark.cluster
def test_gateway_pods_that_a_quota_refuses_are_told_of_at_the_pool(world: World, lacking: str) -> None:
    """The pods that run already stay: a quota refuses new ones only."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-more-pods", "namespace": SLUICE},
        "spec": {"hard": {"pods": "0"}},
    }
    world.system.apply(quota)
    try:
        wait_for(
            "the quota counts",
            lambda: world.system.get("resourcequota", "no-more-pods", SLUICE).get("status", {}).get("used"),
            SECONDS,
        )
        world.system.apply(pool(lacking, ADDRESS))

        def told() -> bool:
            return "exceeded quota: no-more-pods" in _said(world, "egresspool", lacking, "Ready")[2]

        wait_for("the pool says that a quota refuses its pods", told, SECONDS)
        assert _said(world, "egresspool", lacking, "Ready")[:2] == ("False", "NoGatewayReady")
    finally:
        world.system.delete("resourcequota", "no-more-pods", SLUICE)
