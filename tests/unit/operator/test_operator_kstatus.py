"""Programs that wait (Flux, Helm, kpt) see an apply begin, end and fail, by the rules that kstatus documents.

The rules (sigs.k8s.io/cli-utils, pkg/kstatus): an object that is being deleted is Terminating; one whose
status.observedGeneration is not its generation is InProgress; Reconciling=True is InProgress, Stalled=True is Failed;
then Ready decides: True is Current, anything else InProgress; without a Ready condition an object is Current.
"""

from collections.abc import Callable

import pytest
from tests.unit.operator.operator_fakes import Document, FakeOperator, World, settle

from sluice_api import crd
from sluice_api.models import KINDS, Kind
from sluice_operator.shell import kube


def kstatus(document: Document) -> str:
    """The status of an object, in kstatus' words."""
    metadata, status = document["metadata"], document.get("status") or {}
    if "deletionTimestamp" in metadata:
        return "Terminating"
    if "observedGeneration" in status and status["observedGeneration"] != metadata["generation"]:
        return "InProgress"
    conditions = status.get("conditions", ())
    for condition in conditions:
        if condition["type"] == "Reconciling" and condition["status"] == "True":
            return "InProgress"
        if condition["type"] == "Stalled" and condition["status"] == "True":
            return "Failed"
    ready = next((condition["status"] for condition in conditions if condition["type"] == "Ready"), "True")
    return "Current" if ready == "True" else "InProgress"


def kubectl_waits_for(document: Document, kind: str) -> bool:
    """Whether `kubectl wait --for=condition=KIND` returns: a condition of an older generation does not count."""
    for condition in document["status"]["conditions"]:
        if condition["type"] == kind:
            observed = condition.get("observedGeneration", document["status"].get("observedGeneration"))
            return (observed is None or observed >= document["metadata"]["generation"]) and condition[
                "status"
            ] == "True"
    return False


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_object_that_nobody_looked_at_is_in_progress_for_everybody(kind: Kind) -> None:
    status = crd.document(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    defaults = {name: field["default"] for name, field in status["properties"].items() if "default" in field}
    fresh = {"metadata": {"generation": 1}, "status": defaults}
    assert kstatus(fresh) == "InProgress"
    assert not any(kubectl_waits_for(fresh, condition["type"]) for condition in defaults["conditions"])


def _base(world: World) -> None:
    world.namespace("a")
    world.node("n1", gateway_for=["p"])
    world.pool("p", ["198.51.100.17-198.51.100.18"], gateways={"replicas": 1})
    world.policy("a", "one", "p")


async def _settled(*steps: Callable[[World], object]) -> dict[str, Document]:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    for step in (_base, *steps):
        step(world)
        await settle(world, operator)
    return {**world.api.named(kube.EGRESS_POOL), **world.api.named(kube.EGRESS_POLICY)}


def _edit_without_operator(objects: dict[str, Document]) -> None:
    for document in objects.values():
        document["metadata"]["generation"] += 1


async def test_what_is_ready_is_current_and_an_edit_is_in_progress_until_it_was_seen() -> None:
    objects = await _settled()
    assert {name: kstatus(document) for name, document in objects.items()} == {"p": "Current", "a/one": "Current"}
    assert all(kubectl_waits_for(document, "Ready") for document in objects.values())
    _edit_without_operator(objects)
    assert {kstatus(document) for document in objects.values()} == {"InProgress"}
    assert not any(kubectl_waits_for(document, "Ready") for document in objects.values())


async def test_what_comes_by_itself_is_in_progress() -> None:
    objects = await _settled(lambda world: world.gateways.update(n1=[]))
    assert {kstatus(document) for document in objects.values()} == {"InProgress"}


async def test_less_than_was_asked_for_is_current_all_the_same() -> None:
    objects = await _settled(lambda world: world.pool("p", ["198.51.100.17-198.51.100.18"], gateways={"replicas": 2}))
    assert kstatus(objects["p"]) == "Current"
    assert kubectl_waits_for(objects["p"], "Degraded")


MISTAKES: dict[str, tuple[Callable[[World], object], str]] = {
    "a pool that does not exist": (lambda world: world.policy("a", "one", "q"), "a/one"),
    "a namespace that is not let in": (
        lambda world: world.pool("p", ["198.51.100.17"], namespaces={"matchLabels": {"a": "b"}}),
        "a/one",
    ),
    "an address that is not the pool's": (
        lambda world: world.policy("a", "one", "p", addresses={"requested": ["192.0.2.9"]}),
        "a/one",
    ),
    "a range that cannot be read": (lambda world: world.pool("p", ["198.51.100.300"]), "p"),
    "a pool that overlaps": (lambda world: world.pool("q", ["198.51.100.16/28"]), "q"),
}


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_mistake_is_failed_so_that_nobody_waits_for_it(name: str) -> None:
    mistake, where = MISTAKES[name]
    assert kstatus((await _settled(mistake))[where]) == "Failed"


async def test_what_is_being_deleted_is_terminating() -> None:
    objects = await _settled(lambda world: world.api.remove(kube.EGRESS_POOL, "p"))
    assert kstatus(objects["p"]) == "Terminating"
