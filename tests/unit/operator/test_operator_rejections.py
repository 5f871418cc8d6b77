"""What the API server or a controller says to a pool's gateway objects stands where people look: at the pool."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.unit.operator.operator_fakes import Document, FakeOperator, World, settle

from sluice_operator.shell import kube
from sluice_operator.shell.kube import ApiError, Rejected, Unavailable

SAID = 'Deployment.apps "p-gateway" is invalid: spec.template.spec.nodeSelector: Invalid value: "a b"'


class Refusing:
    """Lets the fake API server refuse gateway objects for which `refuses` says so, and counts how often it is asked."""

    def __init__(self, world: World, refuses: Callable[[Mapping[str, Any]], bool]) -> None:
        self._api = world.api
        self._original = world.api.apply
        self.refuses = refuses
        self.asked = 0
        world.api.apply = self._apply  # type: ignore[method-assign]

    async def _apply(self, resource: kube.Resource, document: Mapping[str, Any], **options: Any) -> Document:
        if self.refuses(document):
            self.asked += 1
            raise Rejected(f"PATCH /apis/apps/v1/...: 422 {SAID}", said=SAID)
        return await self._original(resource, document, **options)


def _deployments(document: Mapping[str, Any]) -> bool:
    return document["kind"] == "Deployment"


def _base(world: World, *, gateways: list[str] | None = None) -> None:
    world.namespace("a")
    world.node("n1", gateway_for=gateways or [])
    world.pool("p", ["198.51.100.17-198.51.100.18"])


def _conditions(world: World, name: str = "p") -> dict[str, tuple[str, str, str]]:
    status = world.api.named(kube.EGRESS_POOL)[name]["status"]
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in status["conditions"]}


async def _start(world: World) -> FakeOperator:
    operator = FakeOperator(world.api)
    await operator.start()
    return operator


async def test_a_deployment_that_the_api_server_refuses_stands_at_its_pool_in_the_servers_words() -> None:
    world = World()
    refusing = Refusing(world, _deployments)
    operator = await _start(world)
    _base(world)
    await settle(world, operator)
    found = _conditions(world)
    assert found["Accepted"][0] == "True"
    for kind, status in (("Ready", "False"), ("Degraded", "True"), ("Stalled", "True")):
        assert found[kind][:2] == (status, "GatewayRejected")
        assert f"the API server refuses Deployment p-gateway: {SAID}" in found[kind][2]
        assert "PATCH" not in found[kind][2], "the request is the operator's business"
        assert "correct spec.gateways" in found[kind][2]
    assert refusing.asked == 1, "what was refused is not asked for by every plan"


async def test_gateways_that_run_already_go_on_while_their_new_form_is_refused() -> None:
    world = World()
    operator = await _start(world)
    _base(world, gateways=["p"])
    await settle(world, operator)
    Refusing(world, _deployments)
    world.pool("p", ["198.51.100.17-198.51.100.18"], gateways={"replicas": 1, "nodeSelector": {"a b": ""}})
    await settle(world, operator)
    found = _conditions(world)
    assert found["Ready"][:2] == ("True", "Ready")
    assert found["Degraded"][:2] == ("True", "GatewayRejected")
    assert found["Stalled"][:2] == ("True", "GatewayRejected")


async def test_the_first_status_of_a_pool_knows_whether_its_gateways_were_refused() -> None:
    """A leader that has not asked yet must not take back what the one before it said."""
    world = World()
    refusing = Refusing(world, _deployments)
    operator = await _start(world)
    _base(world)
    await settle(world, operator)
    before = world.api.named(kube.EGRESS_POOL)["p"]["metadata"]["resourceVersion"]
    successor = await _start(world)
    await settle(world, successor)
    assert refusing.asked == 2
    assert world.api.named(kube.EGRESS_POOL)["p"]["metadata"]["resourceVersion"] == before


async def test_another_spec_is_tried_at_once_and_a_success_ends_the_complaint() -> None:
    world = World()
    refusing = Refusing(world, _deployments)
    operator = await _start(world)
    _base(world)
    await settle(world, operator)
    refusing.refuses = lambda document: document["kind"] == "Deployment" and document["spec"]["replicas"] == 2
    world.pool("p", ["198.51.100.17-198.51.100.18"], gateways={"replicas": 1})
    await settle(world, operator)
    assert _conditions(world)["Stalled"][:2] == ("False", "AsExpected")
    assert operator.reconciler.view.rejections == {}


async def test_what_was_refused_is_asked_for_again_and_taken_when_the_cause_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    refusing = Refusing(world, _deployments)
    operator = await _start(world)
    _base(world)
    await settle(world, operator)
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        operator.reconciler.view.ask_again()
        assert await operator.reconciler.reconcile() is False, "something is left to do"
    assert refusing.asked == 2
    assert not caplog.records, "the same words are not logged again and again"
    refusing.refuses = lambda _: False
    operator.reconciler.view.ask_again()
    assert await operator.reconciler.reconcile()
    await settle(world, operator)
    assert _conditions(world)["Degraded"][:2] == ("True", "GatewaysMissing")
    assert _conditions(world)["Stalled"][0] == "False"


async def test_a_pool_that_is_gone_leaves_no_rejection_behind() -> None:
    world = World()
    Refusing(world, _deployments)
    operator = await _start(world)
    _base(world)
    await settle(world, operator)
    world.api.remove(kube.EGRESS_POOL, "p")
    for _ in range(2):
        await settle(world, operator)
        operator.reconciler.view.ask_again()
    assert operator.reconciler.view.rejections == {}
    assert await operator.reconciler.reconcile()


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: q"},
            "Deployment p-gateway says FailedCreate: exceeded quota: q",
        ),
        (
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"},
            "Deployment p-gateway says ProgressDeadlineExceeded: timed out",
        ),
        (
            {"type": "Progressing", "status": "True", "reason": "x", "message": "y"},
            "see the pods of Deployment p-gateway",
        ),
    ],
    ids=["pods are refused", "pods do not become ready", "pods are on their way"],
)
async def test_why_a_deployment_has_no_pods_is_said_at_the_pool(condition: dict[str, str], words: str) -> None:
    world = World()
    operator = await _start(world)
    _base(world)
    await settle(world, operator)
    live = world.api.named(kube.DEPLOYMENT)["sluice-system/p-gateway"]
    world.api.put(kube.DEPLOYMENT, {"metadata": live["metadata"], "status": {"conditions": [condition]}})
    await settle(world, operator)
    assert _conditions(world)["Ready"][:2] == ("False", "NoGatewayReady")
    assert words in _conditions(world)["Ready"][2]
    assert words in _conditions(world)["Degraded"][2]


async def test_an_object_of_somebody_else_under_a_pools_name_is_left_alone_and_named() -> None:
    world = World()
    operator = await _start(world)
    theirs = {
        "metadata": {"namespace": "sluice-system", "name": "p", "labels": {"app": "metrics"}},
        "spec": {"clusterIP": "None", "ports": [{"port": 9810}]},
    }
    before = world.api.put(kube.SERVICE, theirs)
    _base(world)
    await settle(world, operator)
    assert world.api.named(kube.SERVICE)["sluice-system/p"] == before
    found = _conditions(world)
    assert found["Ready"][0] == "False"
    assert "Service p is there already and is not ours: delete it, or rename the pool" in found["Ready"][2]


async def test_a_gateway_object_whose_labels_were_taken_away_is_known_by_its_owner() -> None:
    world = World()
    operator = await _start(world)
    _base(world, gateways=["p"])
    await settle(world, operator)
    key = ("services", "sluice-system", "p")
    stripped = {**world.api.objects[key]}
    stripped["metadata"] = {**stripped["metadata"], "labels": {}}
    world.api.objects[key] = stripped
    operator = await _start(world)
    await settle(world, operator)
    labels = world.api.objects[key]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "sluice-gateway"
    assert _conditions(world)["Ready"][0] == "True"


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (422, "spec.template: Invalid value", Rejected),
        (403, "exceeded quota: small", Rejected),
        (500, 'Internal error occurred: failed calling webhook "check.example": connection refused', Rejected),
        (500, "etcdserver: request timed out", Unavailable),
        (503, "the server is currently unable to handle the request", Unavailable),
        (429, "too many requests", Unavailable),
    ],
)
def test_what_concerns_one_object_alone_is_told_apart_from_what_stops_everything(
    status: int, message: str, expected: type[ApiError]
) -> None:
    """A webhook that is down must not keep every pool's status from being written."""
    error = kube._error("PATCH", "/apis/apps/v1/x", status, json.dumps({"message": message}).encode())
    assert type(error) is expected
    assert not isinstance(error, Rejected) or error.said == message
