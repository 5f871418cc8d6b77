"""An EgressIP says whether traffic can leave with it and come back, and is written seldom."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.unit.operator.operator_fakes import FakeOperator, World, settle

from sluice_operator.core.claimstatus import conditions_of
from sluice_operator.core.index import build
from sluice_operator.core.snapshot import EgressIP, EgressNode, PolicyKey, Pool, Settings, Slice, Snapshot
from sluice_operator.shell import kube

CLAIM = EgressIP("198.51.100.17", "u", ip_address("198.51.100.17"), "p", PolicyKey("a", "one"), holder="n1")
SLICES = (Slice("n1", 1024, 2047),)
POOL = Pool("p", "u", 1, "2026", ("198.51.100.16/28",))
NODES = {name: EgressNode(name, 1, frozenset({"p"})) for name in ("n1", "n2")}
SNAPSHOT = Snapshot(now="now", settings=Settings("s", "i"), pools={"p": POOL}, nodes=NODES)


def _said(
    claim: EgressIP = CLAIM,
    *,
    snapshot: Snapshot = SNAPSHOT,
    slices: tuple[Slice, ...] = SLICES,
    since: str = "",
    pool: Pool | None = POOL,
) -> tuple[str, str, str]:
    (found,) = conditions_of(claim, pool, build(snapshot), slices=slices, resting_since=since, now="now")
    assert found.type == "Ready"
    return found.status, found.reason, found.message


def _without(*gateways: str) -> Snapshot:
    nodes = {name: EgressNode(name, 1, frozenset() if name in gateways else frozenset({"p"})) for name in NODES}
    return replace(SNAPSHOT, nodes=nodes)


def test_an_address_with_a_live_holder_and_slices_is_ready() -> None:
    assert _said() == ("True", "Ready", "")


@pytest.mark.parametrize(
    ("said", "reason", "word"),
    [
        (lambda: _said(since="2026-01-01T00:00:00Z", slices=()), "Resting", "a/one"),
        (lambda: _said(slices=()), "WaitingForNodes", "sluice-agent"),
        (lambda: _said(snapshot=_without("n1", "n2")), "NoGatewayReady", "pool p"),
        (lambda: _said(replace(CLAIM, holder="")), "NoHolder", "pool p"),
        (lambda: _said(snapshot=replace(_without("n1"), silent=frozenset({"n1"}))), "AgentSilent", "n1"),
    ],
)
def test_what_is_in_the_way_is_named(said: object, reason: str, word: str) -> None:
    assert callable(said)
    status, found, message = said()
    assert (status, found) == ("False", reason)
    assert word in message


def test_a_failover_from_one_gateway_to_another_writes_nothing() -> None:
    """The successor says itself that it holds the address, within a second: until then the last word stands."""
    assert _said(snapshot=_without("n1")) == ("True", "Ready", "")


def test_a_gateway_that_carries_traffic_though_its_agent_is_silent_still_holds() -> None:
    assert _said(snapshot=replace(SNAPSHOT, silent=frozenset({"n1"})))[0] == "True"


def test_an_address_that_the_network_leads_to_the_gateways_has_no_holder() -> None:
    assert _said(replace(CLAIM, holder=""), pool=replace(POOL, announces=False)) == ("True", "Ready", "")


async def test_the_condition_is_written_with_its_generation_and_only_when_it_differs() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    world.namespace("a")
    world.node("n1", gateway_for=["p"])
    world.pool("p", ["198.51.100.17-198.51.100.18"])
    world.policy("a", "one", "p")
    await settle(world, operator)
    live = world.api.named(kube.EGRESS_IP)["198.51.100.17"]
    assert [(c["reason"], c["observedGeneration"]) for c in live["status"]["conditions"]] == [("NoHolder", 1)]
    assert live["status"]["observedGeneration"] == 1
    world.api.put(kube.EGRESS_IP, {"metadata": live["metadata"], "status": live["status"] | {"holder": "n1"}})
    await settle(world, operator)
    live = world.api.named(kube.EGRESS_IP)["198.51.100.17"]
    assert [(c["status"], c["reason"]) for c in live["status"]["conditions"]] == [("True", "Ready")]
    before = world.api.version
    operator.reconciler.wakeups.wake("test")
    await operator.reconciler.reconcile()
    assert world.api.version == before
