"""Carrying out plans: only while the lease is held, nothing after a conflict, past what is refused."""

import pytest
from tests.unit.operator.operator_fakes import FakeOperator, World, settle

from sluice_operator.core.actions import Claim, Plan
from sluice_operator.core.snapshot import PolicyKey
from sluice_operator.shell import kube
from sluice_operator.shell.apply import LostLease
from sluice_operator.shell.kube import Rejected


def _arrange(world: World) -> None:
    world.namespace("a")
    world.node("n1", gateway_for=["p"])
    world.pool("p", ["198.51.100.0/24"])
    world.policy("a", "one", "p")
    world.agents()


async def test_a_leader_that_lost_its_lease_in_the_middle_of_a_plan_writes_no_more() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    _arrange(world)
    operator.pump()
    writes_allowed = 3

    async def count() -> None:
        operator.lead.leading = world.api.writes < writes_allowed

    world.api.pause = count
    with pytest.raises(LostLease):
        await operator.reconciler.reconcile()
    assert world.api.writes <= writes_allowed + 1


async def test_a_new_leader_reads_everything_afresh_before_it_plans() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    _arrange(world)  # none of it reaches the operator as an event
    assert await operator.reconciler.reconcile()
    assert world.api.named(kube.EGRESS_IP)


async def test_a_claim_that_another_leader_made_is_never_taken() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    _arrange(world)
    operator.pump()
    theirs = {"address": "198.51.100.1", "pool": "p", "policy": {"namespace": "b", "name": "other", "uid": "x"}}
    world.policy("b", "other", "p")
    world.api.put(kube.EGRESS_IP, {"metadata": {"name": "198.51.100.1"}, "spec": theirs})
    operator.reconciler._led = True  # its view is from before
    await operator.reconciler.reconcile()
    await settle(world, operator)
    assert world.api.named(kube.EGRESS_POLICY)["a/one"]["status"]["addresses"] == ["198.51.100.2"]
    assert world.api.named(kube.EGRESS_POLICY)["b/other"]["status"]["addresses"] == ["198.51.100.1"]


async def test_a_release_asks_the_api_server_once_more() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    _arrange(world)
    await settle(world, operator)
    before = world.api.named(kube.EGRESS_IP)["198.51.100.1"]["metadata"]["uid"]
    world.remove_policy("a", "one")
    operator.pump()
    world.policy("a", "one", "p")  # made again; the event has not come yet
    await operator.reconciler.reconcile()
    await settle(world, operator)
    assert world.api.named(kube.EGRESS_IP)["198.51.100.1"]["metadata"]["uid"] == before
    assert world.api.named(kube.EGRESS_POLICY)["a/one"]["status"]["addresses"] == ["198.51.100.1"]


async def test_an_object_that_is_refused_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    _arrange(world)
    operator.pump()

    async def refuse(*_: object, **__: object) -> kube.Document:
        raise Rejected("quota")

    monkeypatch.setattr(world.api, "apply", refuse)
    assert await operator.reconciler.reconcile() is False
    assert world.api.named(kube.EGRESS_POLICY)["a/one"]["status"]["addresses"] == ["198.51.100.1"]


async def test_a_service_of_the_same_name_that_is_not_ours_is_left_alone() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    _arrange(world)
    calls: list[tuple[str, bool]] = []
    original = world.api.apply

    async def apply(resource: kube.Resource, document: kube.Document, *, namespace: str, force: bool) -> kube.Document:
        calls.append((resource.kind, force))
        return await original(resource, document, namespace=namespace, force=force)

    world.api.apply = apply  # type: ignore[assignment, method-assign]
    await settle(world, operator)
    assert calls
    assert not any(force for _, force in calls)


async def test_after_a_conflict_nothing_more_of_the_plan_is_written() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    _arrange(world)
    await settle(world, operator)
    claim = next(iter(operator.reconciler.view.egress_ips.snapshot().values()))
    key = PolicyKey("a", "one")
    stale = Plan(tuple(Claim(name, claim.address, "p", key, "u", "") for name in (claim.name, "free")))
    outcome = await operator.reconciler._applier.apply(stale)
    assert outcome.stale
    assert outcome.written == 0
    assert "free" not in world.api.named(kube.EGRESS_IP)


async def test_a_leader_with_an_outdated_counter_draws_no_id_twice() -> None:
    world = World()
    current, outdated = FakeOperator(world.api), FakeOperator(world.api)
    _arrange(world)
    world.pool("p", ["198.51.100.1"])  # only `one` gets an address, so no claim gives the others away
    for operator in (current, outdated):
        await operator.start()
        await settle(world, operator)
    world.policy("a", "two", "p")
    await settle(world, current)
    seen = len(world.api.events)
    world.policy("a", "three", "p")
    outdated.pump(drop=lambda number: number < seen)
    await outdated.reconciler.reconcile()
    ids = {name: policy["status"]["id"] for name, policy in world.api.named(kube.EGRESS_POLICY).items()}
    assert ids == {"a/one": 1, "a/two": 2, "a/three": 3}
