"""What a node could not do is said at the pool or policy concerned, and nowhere else."""

from collections.abc import Callable

from tests.unit.operator.operator_fakes import Document, FakeOperator, World, settle

from sluice_operator.core import project
from sluice_operator.shell import kube

ETH7 = "spec.announcement.interface: interface eth7 is not on node n1; its interfaces with an address are eth0"
REFUSED = {"policy": {"namespace": "a", "name": "one"}, "message": "Could not process rule: b/other 203.0.113.0/24"}


async def _settled(*steps: Callable[[World], None]) -> World:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    for step in (_base, *steps):
        step(world)
        await settle(world, operator)
    return world


def _base(world: World) -> None:
    world.namespace("a")
    for node in ("n1", "n2"):
        world.node(node, gateway_for=["p", "q"])
    for pool, address in (("p", "198.51.100.17"), ("q", "203.0.113.17")):
        world.pool(pool, [address])
        world.policy("a", "one" if pool == "p" else "two", pool)


def _interface(world: World) -> None:
    world.gateways.update(n1=["q"])
    world.troubles["n1"] = [{"pool": "p", "message": ETH7}]


def _conditions(document: Document) -> dict[str, tuple[str, str, str]]:
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in document["status"]["conditions"]}


def _pool(world: World, name: str) -> dict[str, tuple[str, str, str]]:
    return _conditions(world.api.named(kube.EGRESS_POOL)[name])


def _policy(world: World, name: str) -> dict[str, tuple[str, str, str]]:
    return _conditions(world.api.named(kube.EGRESS_POLICY)[f"a/{name}"])


async def test_a_pool_says_what_is_wrong_on_one_of_its_nodes_and_is_ready_through_the_others() -> None:
    world = await _settled(_interface)
    assert _pool(world, "p")["Degraded"][:2] == ("True", "NodeTrouble")
    assert f"n1: {ETH7}" in _pool(world, "p")["Degraded"][2]
    assert _pool(world, "p")["Ready"][0] == "True"
    assert _pool(world, "q")["Degraded"][0] == "False"
    for policy in ("one", "two"):
        assert _policy(world, policy)["Ready"][0] == "True"


async def test_a_pool_without_a_gateway_left_is_not_ready_for_that_reason() -> None:
    world = await _settled(_interface, lambda world: world.gateways.update(n2=["q"]))
    status, reason, message = _pool(world, "p")["Ready"]
    assert (status, reason) == ("False", "NodeTrouble")
    assert ETH7 in message
    assert _pool(world, "q")["Ready"][0] == "True"


async def test_a_policy_that_a_node_refuses_is_not_programmed_there_and_others_are() -> None:
    world = await _settled(lambda world: world.troubles.update(n1=[REFUSED]))
    status, reason, message = _policy(world, "one")["Programmed"]
    assert (status, reason) == ("False", "WaitingForNodes")
    assert "n1" in message
    assert _policy(world, "one")["Degraded"][:2] == ("True", "NodeTrouble")
    assert _policy(world, "two")["Programmed"][0] == "True"
    assert _policy(world, "two")["Degraded"][0] == "False"


async def test_a_policy_never_shows_the_kernels_words_which_may_quote_others() -> None:
    world = await _settled(lambda world: world.troubles.update(n1=[REFUSED]))
    assert not [message for _, _, message in _policy(world, "one").values() if "other" in message or "203." in message]


async def test_all_is_well_again_when_the_node_says_so() -> None:
    world = await _settled(_interface, lambda world: (world.gateways.update(n1=["p", "q"]), world.troubles.clear())[0])
    assert _pool(world, "p")["Degraded"][0] == "False"


def test_the_node_troubles_of_others_do_not_show_at_a_policy_that_waits_for_the_node() -> None:
    said = {"type": "Programmed", "status": "False", "reason": "NodeTrouble", "message": "of pool q"}
    node = project.egress_node({"metadata": {"name": "n1"}, "status": {"conditions": [said]}})
    assert node.trouble == ""
