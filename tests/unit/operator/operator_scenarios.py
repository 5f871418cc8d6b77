"""Stories of a cluster, as lists of steps; each step changes the world, and the operator must come to rest after it."""

from collections.abc import Callable

from tests.unit.operator.operator_fakes import World

from sluice_operator.shell import kube

Step = Callable[[World], None]


def _start(world: World) -> None:
    world.namespace("a", team="x")
    world.namespace("b", team="y")
    world.pool("p", ["198.51.100.16/29", "2001:db8::/124"], portsPerSlice=16384)
    for name, gateway_for in (("n1", []), ("n2", ["p"]), ("n3", ["p"])):
        world.node(name, gateway_for=gateway_for)
    world.policy("a", "one", "p")
    world.policy("a", "two", "p", addresses={"families": ["IPv4"]})
    world.policy("b", "three", "p", addresses={"requested": ["198.51.100.18"]})
    world.run_pods("n1", "a", "one", 2)
    world.run_pods("n2", "a", "two", 1)
    world.run_pods("n2", "b", "three", 3)


def _lose_statuses(world: World) -> None:
    for document in world.api.named(kube.EGRESS_POLICY).values():
        world.api.put(kube.EGRESS_POLICY, {"metadata": document["metadata"], "status": {}})
    for document in world.api.named(kube.EGRESS_IP).values():
        world.api.put(kube.EGRESS_IP, {"metadata": document["metadata"], "status": {}})


def _second_pool(world: World) -> None:
    world.pool("q", ["192.0.2.0/29"])
    world.policy("a", "one", "q")


def _replace_node(world: World) -> None:
    world.remove_node("n1")
    world.node("n4")
    world.run_pods("n4", "a", "one", 2)


SCENARIOS: dict[str, tuple[Step, ...]] = {
    "policies come and go": (
        _start,
        lambda world: world.remove_policy("a", "two"),
        lambda world: world.policy("b", "four", "p"),
    ),
    "nodes come and go": (_start, _replace_node, lambda world: world.node("n5", gateway_for=["p"])),
    "another address is requested": (
        _start,
        lambda world: world.policy("a", "one", "p", addresses={"requested": ["198.51.100.21"]}),
        lambda world: world.policy("a", "two", "p", addresses={"requested": ["198.51.100.17"]}),
    ),
    "a policy moves to another pool": (_start, _second_pool),
    "statuses are lost": (_start, _lose_statuses),
    "a namespace loses access": (
        lambda world: (_start(world), world.pool("p", ["198.51.100.16/29"], namespaces={"matchLabels": {"team": "x"}}))[
            0
        ],
        lambda world: world.namespace("b", team="x"),
        lambda world: world.namespace("a", team="z"),
    ),
    "a pool is deleted while in use": (
        _start,
        lambda world: world.api.remove(kube.EGRESS_POOL, "p"),
        lambda world: world.remove_policy("a", "one"),
        lambda world: (world.remove_policy("a", "two"), world.remove_policy("b", "three"))[0],
    ),
    "a pool runs out and grows": (
        lambda world: (_start(world), world.pool("p", ["198.51.100.17-198.51.100.18"]))[0],
        lambda world: world.pool("p", ["198.51.100.17-198.51.100.18", "198.51.100.40"]),
        lambda world: world.pool("p", ["198.51.100.40-198.51.100.45"]),
    ),
    "a policy is replaced by one of the same name": (
        _start,
        lambda world: (world.remove_policy("a", "one"), world.policy("a", "one", "p"))[0],
    ),
    "two pools overlap": (
        _start,
        lambda world: world.pool("r", ["198.51.100.20-198.51.100.30"]),
        lambda world: world.policy("b", "five", "r"),
        lambda world: world.pool("r", ["198.51.100.30-198.51.100.31"]),
    ),
}
