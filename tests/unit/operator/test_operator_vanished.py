"""A node whose Node is gone may still run: its ports are nobody else's, and its addresses no other policy's."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.operator_fakes import NOON, FakeOperator, World, settle

from sluice_operator.core import ports
from sluice_operator.core.snapshot import ClusterNode, Settings, Slice, Snapshot
from sluice_operator.core.times import moment
from sluice_operator.core.vanished import Vanished
from sluice_operator.core.wake import next_wake
from sluice_operator.shell import kube

HOUR = 3600
ADDRESS = "198.51.100.17"


class Story:
    """A world of three nodes, a policy with an address, and slices of which there are three."""

    def __init__(self) -> None:
        self.world = World()
        self.operator = FakeOperator(self.world.api)

    async def start(self, **spec: Any) -> "Story":
        world = self.world
        await self.operator.start()
        world.namespace("a")
        for name in ("n1", "n2", "n3"):
            world.node(name, gateway_for=["p"])
        world.pool("p", [ADDRESS], portsPerSlice=16384, **spec)
        world.policy("a", "one", "p")
        world.run_pods("n1", "a", "one", 1)
        await self.settle()
        return self

    async def settle(self, *, after: int = 0) -> None:
        self.world.api.now += after
        await settle(self.world, self.operator)

    def slices(self) -> dict[str, str]:
        """Node -> its ports; "-" for those of nodes that have vanished."""
        status = self.world.api.named(kube.EGRESS_IP)[ADDRESS]["status"]
        return {e["node"] + ("-" if "vanishedSince" in e else ""): e["ports"] for e in status["slices"]}

    def condition(self, kind: str, name: str = "a/one") -> tuple[str, str, str]:
        status = self.world.api.named(kube.EGRESS_POLICY)[name]["status"]
        entry = next(entry for entry in status["conditions"] if entry["type"] == kind)
        return entry["status"], entry["reason"], entry["message"]


async def test_the_ports_of_a_vanished_node_are_given_to_no_other_for_an_hour() -> None:
    story = await Story().start()
    had = story.slices()["n1"]
    story.world.remove_node("n1")
    story.world.node("n4")
    await story.settle()
    assert story.slices().keys() == {"n1-", "n2", "n3"}
    assert story.world.api.named(kube.EGRESS_IP)[ADDRESS]["status"]["nodes"] == 2
    status, reason, message = story.condition("Assigned")
    assert (status, reason) == ("False", "PortsExhausted")
    assert f"n1 until {moment(NOON + HOUR)}" in message
    seconds = next_wake(story.operator.reconciler.view.snapshot(now=story.world.api.clock()))
    assert seconds == HOUR
    await story.settle(after=seconds - 1)
    assert "n4" not in story.slices()
    await story.settle(after=1)
    assert story.slices()["n4"] == had
    assert story.condition("Assigned")[:2] == ("True", "Assigned")


async def test_a_node_that_comes_back_has_the_ports_it_had() -> None:
    story = await Story().start()
    had = story.slices()
    story.world.remove_node("n1")
    await story.settle()
    await story.settle(after=HOUR - 1)
    story.world.node("n1", gateway_for=["p"])
    story.world.node("n0")
    await story.settle()
    assert story.slices() == had


async def test_the_address_of_a_policy_that_is_deleted_waits_for_vanished_nodes_even_if_it_need_not_rest() -> None:
    story = await Story().start(quarantine="0s")
    story.world.remove_node("n1")
    await story.settle()
    story.world.remove_policy("a", "one")
    story.world.policy("a", "other", "p")
    await story.settle(after=600)
    assert story.slices().keys() == {"n1-"}
    assert story.condition("Assigned", "a/other")[1] == "PoolExhausted"
    await story.settle(after=HOUR - 600)
    assert story.world.api.named(kube.EGRESS_POLICY)["a/other"]["status"]["addresses"] == [ADDRESS]
    assert story.slices().keys() == {"n2", "n3"}


async def test_a_node_that_vanishes_while_an_address_rests_has_let_go_of_it_before() -> None:
    story = await Story().start()
    story.world.remove_policy("a", "one")
    await story.settle()
    story.world.remove_node("n1")
    await story.settle(after=HOUR)
    assert not story.world.api.named(kube.EGRESS_IP)


async def test_the_ports_of_a_node_that_does_not_report_stay_for_as_long_as_there_is_a_node_object() -> None:
    held = (Slice("n1", 16384, 32767), Slice("n2", 32768, 49151))
    snapshot = Snapshot(now=moment(NOON), settings=Settings("s", "i"), cluster_nodes={"n1": ClusterNode("n1", "u")})
    slices, left = ports.assign(held, {"n2"}, size=16384, gone=Vanished(snapshot).kept)
    assert (slices, left) == (held, ())
    back = ports.assign(
        slices, {"n2"}, size=16384, gone=Vanished(Snapshot(now=moment(NOON), settings=snapshot.settings)).kept
    )
    assert back[0][0] == Slice("n1", 16384, 32767, vanished=moment(NOON))


async def test_a_beginning_in_the_future_or_one_that_cannot_be_read_counts_as_now() -> None:
    for wrong in (moment(NOON + 100 * HOUR), "yesterday"):
        entry = Slice("n1", 1024, 2047, vanished=wrong)
        kept = Vanished(Snapshot(now=moment(NOON), settings=Settings("s", "i"))).kept(entry)
        assert kept == entry._replace(vanished=moment(NOON))


NODES = [f"n{number}" for number in range(5)]


@given(steps=st.lists(st.tuples(st.sets(st.sampled_from(NODES)), st.sampled_from([60, 1800, 4000])), max_size=12))
def test_no_history_of_nodes_gives_ports_to_two_within_the_rest(steps: list[tuple[set[str], int]]) -> None:
    """Nodes come and go at random, with three slices for them; a block changes hands only after an hour of absence."""
    held: tuple[Slice, ...] = ()
    now, last = NOON, dict[int, tuple[str, int]]()
    for nodes, seconds in steps:
        snapshot = Snapshot(now=moment(now), settings=Settings("s", "i"))
        held, left = ports.assign(held, nodes, size=16384, gone=Vanished(snapshot).kept)
        assert {entry.node for entry in held if not entry.vanished} | set(left) == nodes
        for entry in held:
            user, when = last.get(entry.first, (entry.node, now))
            assert user == entry.node or now - when >= HOUR
            if not entry.vanished:
                last[entry.first] = (entry.node, now)
        now += seconds
