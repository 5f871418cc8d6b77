"""Degraded and Stalled: always there, False while there is nothing to complain of, True with what lacks and why."""

from collections.abc import Callable

import pytest
from tests.unit.operator.operator_fakes import Document, FakeOperator, World, settle

from sluice_api.reasons import CONDITIONS, ConditionType, Reason
from sluice_operator.core.conditions import Verdict
from sluice_operator.core.degraded import Shortfall, degraded, stalled
from sluice_operator.shell import kube


async def _settled(*steps: Callable[[World], None]) -> World:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    for step in steps:
        step(world)
        await settle(world, operator)
    return world


def _base(world: World) -> None:
    world.namespace("a")
    world.node("n1", gateway_for=["p"])
    world.node("n2", gateway_for=["p"])
    world.pool("p", ["198.51.100.17-198.51.100.18"])
    world.policy("a", "one", "p")


def _conditions(document: Document) -> dict[str, tuple[str, str, str]]:
    return {
        entry["type"]: (entry["status"], entry["reason"], entry["message"])
        for entry in document["status"]["conditions"]
    }


def _pool(world: World, name: str = "p") -> Document:
    return world.api.named(kube.EGRESS_POOL)[name]


def _policy(world: World) -> Document:
    return world.api.named(kube.EGRESS_POLICY)["a/one"]


@pytest.mark.parametrize("kind", ["EgressPool", "EgressPolicy"])
async def test_every_condition_of_a_kind_is_always_there_in_the_documented_order(kind: str) -> None:
    world = await _settled(_base)
    document = _pool(world) if kind == "EgressPool" else _policy(world)
    assert list(_conditions(document)) == [row.type for row in CONDITIONS if row.kind == kind]


async def test_with_nothing_to_complain_of_both_are_false() -> None:
    world = await _settled(_base)
    for document in (_pool(world), _policy(world)):
        assert _conditions(document)["Degraded"] == ("False", "AsExpected", "")
        assert _conditions(document)["Stalled"] == ("False", "AsExpected", "")
    assert _pool(world)["status"]["display"]["reason"] == ""


async def test_a_pool_with_one_of_two_gateways_is_ready_and_degraded_and_names_those_there_are() -> None:
    world = await _settled(_base, lambda world: world.gateways.update(n2=[]))
    found = _conditions(_pool(world))
    assert found["Ready"][0] == "True"
    assert found["Degraded"][:2] == ("True", "GatewaysMissing")
    assert "1 of 2 gateways is ready (n1)" in found["Degraded"][2]
    assert "Deployment p-gateway" in found["Degraded"][2]
    assert found["Stalled"][0] == "False", "a gateway may come back by itself"
    assert _pool(world)["status"]["display"]["reason"] == "GatewaysMissing"
    assert _conditions(_policy(world))["Degraded"][0] == "False", "a pool's trouble costs no write for each policy"


async def test_what_waiting_does_not_mend_is_stalled_in_the_words_of_the_condition_that_fails() -> None:
    world = await _settled(_base, lambda world: world.policy("a", "one", "q"))
    found = _conditions(_policy(world))
    assert found["Stalled"] == ("True", "PoolNotFound", found["Accepted"][2])
    assert "q" in found["Stalled"][2]


@pytest.mark.parametrize("reason", Reason)
def test_only_a_lasting_reason_stalls(reason: Reason) -> None:
    verdict = Verdict(ConditionType.READY, "False", reason, "words")
    expected = ("True", reason, "words") if reason.lasting else ("False", Reason.AS_EXPECTED, "")
    found = stalled([Verdict(ConditionType.ACCEPTED, "True", Reason.ACCEPTED, ""), verdict])
    assert (found.status, found.reason, found.message) == expected


def test_a_lasting_reason_of_a_condition_that_is_well_stalls_nothing() -> None:
    assert stalled([Verdict(ConditionType.DEGRADED, "False", Reason.INVALID_SPEC, "")]).status == "False"


def test_several_shortfalls_are_told_of_together() -> None:
    found = degraded([Shortfall(Reason.GATEWAYS_MISSING, "one"), Shortfall(Reason.PORTS_EXHAUSTED, "two")])
    assert (found.status, found.reason, found.message) == ("True", Reason.GATEWAYS_MISSING, "one; two")
