"""Stories of a cluster, as lists of steps; each step changes the world, and the operator must come to rest after it."""

from collections.abc import Callable
from typing import Any

from tests.unit.operator.operator_fakes import World

from sluice_operator.shell import kube

Step = Callable[[World], None]


def _start(world: World, **pool: Any) -> None:
    world.namespace("a", team="x")
    world.namespace("b", team="y")
    world.pool("p", ["198.51.100.16/29", "2001:db8::/124"], portsPerSlice=16384, **pool)
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


def _wait(seconds: int) -> Step:
    """Let time pass."""

    def step(world: World) -> None:
        world.api.now += seconds

    return step


def _restore(world: World) -> None:
    """What a backup of a claim that somebody deleted would bring back, after its policy has claimed anew."""
    spec = {"address": "198.51.100.21", "pool": "p", "claimed": "2020-01-01T00:00:00Z"}
    owner = {"namespace": "a", "name": "two", "uid": "an older one"}
    world.api.put(kube.EGRESS_IP, {"metadata": {"name": "198.51.100.21"}, "spec": spec | {"policy": owner}})


def _delete_claims(world: World) -> None:
    for name in world.api.named(kube.EGRESS_IP):
        world.api.remove(kube.EGRESS_IP, name)


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
    "an address rests, is found again, rests and is passed on": (
        _start,
        lambda world: world.remove_policy("a", "two"),
        lambda world: (_wait(3599)(world), world.policy("a", "two", "p"))[1],
        lambda world: world.remove_policy("a", "two"),
        lambda world: world.pool("p", ["198.51.100.17-198.51.100.19"], portsPerSlice=16384),
        lambda world: world.policy("b", "four", "p", addresses={"requested": ["198.51.100.19"]}),
        _wait(3600),
    ),
    "a pool is misspelt and mended": (
        _start,
        lambda world: world.policy("a", "one", "pp"),
        _wait(7200),
        lambda world: world.policy("a", "one", "p"),
    ),
    "a node vanishes and its ports are given on": (
        _start,
        _replace_node,
        lambda world: world.remove_policy("a", "one"),
        _wait(3600),
    ),
    "an older claim is restored": (_start, _restore, _wait(3600)),
    "claims in use are deleted": (
        _start,
        _delete_claims,
        lambda world: world.policy("b", "four", "p"),
    ),
    "addresses are reserved and a quota is full": (
        lambda world: _start(
            world,
            reservations=[{"address": "198.51.100.17", "namespace": "b", "policy": "four"}],
            quota={"addressesPerNamespace": 2},
        ),
        lambda world: world.policy("b", "four", "p"),
        lambda world: world.policy("a", "three", "p"),
        lambda world: world.remove_policy("a", "two"),
        _wait(3600),
    ),
}
