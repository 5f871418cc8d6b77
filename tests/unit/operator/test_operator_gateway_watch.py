"""What somebody does to a pool's gateway objects is seen as it happens and undone, and nobody else's are touched."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.unit.operator.operator_fakes import Document, FakeOperator, World, copied, settle

from sluice_operator.shell import kube

DEPLOYMENT = ("deployments", "sluice-system", "p-gateway")


async def _settled() -> tuple[World, FakeOperator]:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    world.node("n1", gateway_for=["p"])
    world.pool("p", ["198.51.100.17-198.51.100.18"])
    await settle(world, operator)
    return world, operator


def _delete(world: World) -> None:
    world.api.remove(kube.DEPLOYMENT, "p-gateway", namespace="sluice-system")


def _scale(world: World) -> None:
    live = world.api.objects[DEPLOYMENT]
    world.api.put(kube.DEPLOYMENT, {"metadata": live["metadata"], "spec": live["spec"] | {"replicas": 0}})


def _take_the_label(world: World) -> None:
    live = world.api.objects[DEPLOYMENT]
    labels = {"labels": {"app.kubernetes.io/name": "mine-now"}}
    world.api.put(kube.DEPLOYMENT, {"metadata": live["metadata"] | labels})


@pytest.mark.parametrize("harm", [_delete, _scale, _take_the_label])
async def test_it_is_undone_by_the_event_alone_without_a_list(harm: Callable[[World], None]) -> None:
    world, operator = await _settled()
    before = dict(world.api.objects[DEPLOYMENT]["spec"])
    harm(world)
    operator.pump()
    assert await operator.reconciler.reconcile()
    live = world.api.objects[DEPLOYMENT]
    assert live["spec"] == before
    assert live["metadata"]["labels"]["app.kubernetes.io/name"] == "sluice-gateway"


async def test_the_status_of_a_deployment_wakes_nobody_while_it_complains_of_nothing() -> None:
    world, operator = await _settled()
    operator.reconciler.wakeups.take()
    live = world.api.objects[DEPLOYMENT]
    world.api.put(kube.DEPLOYMENT, {"metadata": live["metadata"], "status": {"readyReplicas": 1}})
    operator.pump()
    assert operator.reconciler.wakeups.take() == set()


async def test_an_object_of_somebody_else_in_our_namespace_is_none_of_ours() -> None:
    world, operator = await _settled()
    operator.reconciler.wakeups.take()
    theirs = {"metadata": {"name": "theirs", "namespace": "sluice-system"}, "spec": {"replicas": 1}}
    world.api.put(kube.DEPLOYMENT, theirs)
    operator.pump()
    assert operator.reconciler.wakeups.take() == set()
    assert ("Deployment", "theirs") not in operator.reconciler.view.gateway_objects.snapshot()
    world.api.remove(kube.DEPLOYMENT, "theirs", namespace="sluice-system")
    operator.pump()
    assert operator.reconciler.wakeups.take() == set()


async def test_what_a_webhook_makes_of_every_deployment_is_not_fought_over() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    original, applied = world.api.apply, []

    async def mutating(resource: kube.Resource, document: Mapping[str, Any], **options: Any) -> Document:
        made = copied(dict(document))
        if resource is kube.DEPLOYMENT:
            applied.append(document["metadata"]["name"])
            made["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror.example/proxy:test"
        return await original(resource, made, **options)

    world.api.apply = mutating  # type: ignore[method-assign]
    world.node("n1", gateway_for=["p"])
    world.pool("p", ["198.51.100.17-198.51.100.18"])
    await settle(world, operator)
    assert applied == ["p-gateway"]
    _scale(world)
    operator.pump()
    assert await operator.reconciler.reconcile()
    assert applied == ["p-gateway"] * 2, "what somebody else does to it is undone all the same"
    assert world.api.objects[DEPLOYMENT]["spec"]["replicas"] == 2
    world.pool("p", ["198.51.100.17-198.51.100.18"], gateways={"replicas": 1})
    await settle(world, operator)
    assert applied == ["p-gateway"] * 3, "and so is a new document applied"
