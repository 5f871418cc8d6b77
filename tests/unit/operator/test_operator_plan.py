"""What people see: each state of a policy and of a pool has its reason, and the message says what to do."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.operator.operator_fakes import Document, FakeOperator, World, settle

from sluice_operator.core.actions import WritePolicyStatus
from sluice_operator.core.plan import plan
from sluice_operator.core.snapshot import Policy, PolicyKey, PolicyStatus, Settings, Snapshot
from sluice_operator.shell import kube


async def _settled(arrange: Callable[[World], None], *steps: Callable[[World], None]) -> World:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    for step in (arrange, *steps):
        step(world)
        await settle(world, operator)
    return world


def _condition(document: Document, kind: str) -> tuple[str, str, str]:
    entry = next(entry for entry in document["status"]["conditions"] if entry["type"] == kind)
    return entry["status"], entry["reason"], entry["message"]


def _policy(world: World, name: str = "a/one") -> Document:
    return world.api.named(kube.EGRESS_POLICY)[name]


def _pool(world: World, name: str = "p") -> Document:
    return world.api.named(kube.EGRESS_POOL)[name]


def _base(world: World) -> None:
    world.namespace("a")
    world.node("n1", gateway_for=["p"])
    world.node("n2")
    world.pool("p", ["198.51.100.17-198.51.100.18"])
    world.policy("a", "one", "p")
    world.run_pods("n2", "a", "one", 2)


def _two_more(world: World) -> None:
    world.policy("a", "two", "p")
    world.policy("a", "three", "p")


def _refused(*, kind: str, reason: str, words: tuple[str, ...], policy: str = "a/one") -> Callable[[World], None]:
    def check(world: World) -> None:
        status, found, message = _condition(_policy(world, policy), kind)
        assert (status, found) == ("False", reason)
        assert all(word in message for word in words), message
        assert _condition(_policy(world, policy), "Ready")[:2] == ("False", reason)

    return check


def _requests(address: str) -> Callable[[World], None]:
    return lambda world: world.policy("a", "three", "p", addresses={"requested": [address]})


NEVER = {"key": "app", "operator": "DoesNotExist"}
CASES: dict[str, tuple[Callable[[World], None], Callable[[World], None]]] = {
    "a pool that does not exist": (
        lambda world: world.policy("a", "one", "q"),
        _refused(kind="Accepted", reason="PoolNotFound", words=("pool q", "namespace a may use p", "spec.pool")),
    ),
    "a namespace that the pool does not select": (
        lambda world: world.pool("p", ["198.51.100.17"], namespaces={"matchLabels": {"egress": "yes"}}),
        _refused(kind="Accepted", reason="NamespaceNotAllowed", words=("namespace a", "pool p", "label")),
    ),
    "a pool without free addresses": (
        _two_more,
        _refused(
            kind="Assigned", reason="PoolExhausted", words=("pool p", "2 of 2", "add addresses"), policy="a/three"
        ),
    ),
    "a family that the pool lacks": (
        lambda world: world.policy("a", "one", "p", addresses={"families": ["IPv6"]}),
        _refused(kind="Assigned", reason="PoolExhausted", words=("no IPv6 addresses", "families")),
    ),
    "a requested address outside the pool": (
        _requests("198.51.100.99"),
        _refused(kind="Assigned", reason="AddressNotInPool", words=("198.51.100.99", "pool p"), policy="a/three"),
    ),
    "a requested address of another policy": (
        _requests("198.51.100.17"),
        _refused(kind="Assigned", reason="AddressInUse", words=("198.51.100.17", "policy one"), policy="a/three"),
    ),
    "a destination with host bits": (
        lambda world: world.policy("a", "one", "p", destinations=[{"cidrs": ["203.0.113.5/24"]}]),
        _refused(kind="Accepted", reason="InvalidSpec", words=("spec.destinations[0].cidrs", "203.0.113.5/24")),
    ),
    "a selector that contradicts itself": (
        lambda world: world.policy(
            "a", "one", "p", podSelector={"matchLabels": {"app": "x"}, "matchExpressions": [NEVER]}
        ),
        _refused(kind="Accepted", reason="InvalidSpec", words=("spec.podSelector", "app=x", "app DoesNotExist")),
    ),
    "a pool whose namespaces contradict themselves": (
        lambda world: world.pool(
            "p", ["198.51.100.17"], namespaces={"matchLabels": {"app": "x"}, "matchExpressions": [NEVER]}
        ),
        lambda world: _expect(_condition(_pool(world), "Accepted"), "False", "InvalidSpec", "spec.namespaces"),
    ),
    "more nodes than slices": (
        lambda world: (
            world.pool("p", ["198.51.100.17-198.51.100.18"], portsPerSlice=16384),
            [world.node(f"m{number}") for number in range(3)],
        )[0],
        _refused(kind="Assigned", reason="PortsExhausted", words=("198.51.100.17", "spec.portsPerSlice")),
    ),
    "no gateway": (
        lambda world: world.gateways.update(n1=[]),
        lambda world: _expect(_condition(_policy(world), "Ready"), "False", "NoGatewayReady"),
    ),
    "a pool that overlaps an older one": (
        lambda world: world.pool("q", ["198.51.100.18-198.51.100.30"]),
        lambda world: _expect(_condition(_pool(world, "q"), "Accepted"), "False", "OverlapsPool", "pool p"),
    ),
    "a pool that cannot be read": (
        lambda world: world.pool("p", ["198.51.100.300"]),
        lambda world: _expect(_condition(_pool(world), "Accepted"), "False", "InvalidSpec", "198.51.100.300"),
    ),
}


def _expect(found: tuple[str, str, str], status: str, reason: str, word: str = "") -> None:
    assert found[:2] == (status, reason)
    assert word in found[2]


@pytest.mark.parametrize("name", CASES)
async def test_the_reason_is_named_with_object_value_and_remedy(name: str) -> None:
    change, check = CASES[name]
    check(await _settled(_base, change))


async def test_a_policy_is_ready_when_every_node_has_acknowledged() -> None:
    world = await _settled(_base)
    status = _policy(world)["status"]
    kinds = ("Accepted", "Assigned", "Programmed", "Ready")
    assert [_condition(_policy(world), kind)[0] for kind in kinds] == ["True"] * 4
    assert status["addresses"] == ["198.51.100.17"]
    assert status["nodes"] == {"concerned": 1, "programmed": 1}
    assert status["pods"] == 2
    assert status["display"] == {"addresses": "198.51.100.17", "nodes": "1/1", "reason": ""}


async def test_programmed_is_false_until_the_last_node_reports_and_names_it() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    _base(world)
    world.agents()
    operator.pump()
    await operator.reconciler.reconcile()
    newest = _policy(world)["status"]["revision"]
    world.api.put(kube.EGRESS_NODE, {"metadata": {"name": "n1"}, "status": {"revision": newest, "gatewayFor": ["p"]}})
    operator.pump()
    await operator.reconciler.reconcile()
    status, reason, message = _condition(_policy(world), "Programmed")
    assert (status, reason) == ("False", "WaitingForNodes")
    assert "n2" in message
    assert "n1" not in message


async def test_a_node_that_reports_an_older_generation_is_waited_for() -> None:
    world = await _settled(_base)
    operator = FakeOperator(world.api)
    await operator.start()
    old = {"namespace": "a", "name": "one", "generation": 0, "pods": 2}
    known = world.api.named(kube.EGRESS_NODE)["n2"]
    world.api.put(kube.EGRESS_NODE, {"metadata": known["metadata"], "status": known["status"] | {"policies": [old]}})
    operator.pump()
    await operator.reconciler.reconcile()
    assert _condition(_policy(world), "Programmed")[:2] == ("False", "WaitingForNodes")


def test_a_new_revision_is_above_all_others_even_if_its_policy_was_read_late() -> None:
    """An agent that has seen the higher revision must have seen this one as well."""
    late = Policy(PolicyKey("a", "late"), "u", 1, "2026", "nowhere", resource_version=100)
    newer = Policy(
        PolicyKey("a", "newer"), "u", 1, "2026", "nowhere", resource_version=250, status=PolicyStatus(revision=200)
    )
    snapshot = Snapshot(now="t", settings=Settings("s", "i"), policies={late.key: late, newer.key: newer})
    writes = [action for action in plan(snapshot).actions if isinstance(action, WritePolicyStatus)]
    revisions = [write.status.revision for write in writes]
    assert len(set(revisions)) == 2
    assert min(revisions) > 200
    assert revisions == sorted(revisions)


async def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    _base(world)
    await settle(world, operator)
    before = {entry["type"]: entry["lastTransitionTime"] for entry in _policy(world)["status"]["conditions"]}
    document = _policy(world)
    for entry in document["status"]["conditions"]:
        entry["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    world.policy("a", "one", "p", priority=7)
    fresh = FakeOperator(world.api)
    await fresh.start()
    await settle(world, fresh)
    after = {entry["type"]: entry["lastTransitionTime"] for entry in _policy(world)["status"]["conditions"]}
    assert before.keys() == after.keys()
    assert after["Assigned"] == "2020-01-01T00:00:00Z"
    assert after["Programmed"] != "2020-01-01T00:00:00Z"
    assert all(entry["observedGeneration"] == 2 for entry in _policy(world)["status"]["conditions"])


async def test_a_shrunk_pool_keeps_what_is_assigned_and_says_so() -> None:
    world = await _settled(_base, lambda world: world.pool("p", ["198.51.100.18"]))
    assert _policy(world)["status"]["addresses"] == ["198.51.100.17"]
    status, _, message = _condition(_policy(world), "Assigned")
    assert status == "True"
    assert "198.51.100.17 is no longer within pool p" in message
    counts = _pool(world)["status"]["ipv4"]
    assert {name: counts[name] for name in ("total", "assigned", "free")} == {"total": 1, "assigned": 1, "free": 1}


async def test_a_pool_in_use_is_held_and_says_how_many_policies_use_it() -> None:
    def many(world: World) -> None:
        world.pool("p", ["198.51.100.0/24"])
        for number in range(7):
            world.policy("b", f"p{number}", "p")

    world = await _settled(_base, many, lambda world: world.api.remove(kube.EGRESS_POOL, "p"))
    status, reason, message = _condition(_pool(world), "Ready")
    assert (status, reason) == ("False", "InUse")
    assert "8 policies" in message
    assert "--field-selector spec.pool=p" in message


async def test_an_address_begins_to_rest_only_when_no_node_lists_its_policy() -> None:
    world = await _settled(_base)
    operator = FakeOperator(world.api)
    await operator.start()
    world.remove_policy("a", "one")
    operator.pump()
    await operator.reconciler.reconcile()
    assert "restingSince" not in world.api.named(kube.EGRESS_IP)["198.51.100.17"]["status"], "n2 has not let go of it"
    await settle(world, operator)
    assert world.api.named(kube.EGRESS_IP)["198.51.100.17"]["status"]["restingSince"]


async def test_a_gateway_that_the_others_find_dead_is_not_ready() -> None:
    world = await _settled(_base)
    operator = FakeOperator(world.api)
    await operator.start()
    known = world.api.named(kube.EGRESS_NODE)["n2"]
    dead: dict[str, Any] = {"gateways": [{"node": "n1", "alive": False}]}
    world.api.put(kube.EGRESS_NODE, {"metadata": known["metadata"], "status": known["status"] | dead})
    operator.pump()
    await operator.reconciler.reconcile()
    assert _pool(world)["status"]["gateways"] == {"desired": 2, "ready": 0, "nodes": []}
    assert _condition(_policy(world), "Ready")[1] == "NoGatewayReady"


async def test_overridden_pods_are_told_of_without_calling_the_policy_unready() -> None:
    world = await _settled(_base)
    operator = FakeOperator(world.api)
    await operator.start()
    known = world.api.named(kube.EGRESS_NODE)["n2"]
    known["status"]["policies"][0] |= {"overridden": 1, "overriddenBy": ["older", "web"]}
    world.api.put(kube.EGRESS_NODE, {"metadata": known["metadata"], "status": known["status"] | {"tick": 1}})
    operator.pump()
    await operator.reconciler.reconcile()
    status, reason, message = _condition(_policy(world), "Ready")
    assert (status, reason) == ("True", "Overridden")
    assert "1 selected pod on n2 follows policies older, web instead" in message


async def test_one_changed_policy_costs_one_write() -> None:
    def many(world: World) -> None:
        world.pool("p", ["198.51.100.0/24"])
        for number in range(50):
            world.policy("b", f"p{number}", "p")

    world = await _settled(_base, many)
    operator = FakeOperator(world.api)
    await operator.start()
    await operator.reconciler.reconcile()
    before = world.api.writes
    world.policy("b", "p7", "p", priority=3)
    operator.pump()
    await operator.reconciler.reconcile()
    assert world.api.writes - before == 1
