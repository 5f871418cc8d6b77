"""A policy whose nodes nobody answers for is not called programmed, and one that lives again is at once."""

from collections.abc import Mapping

import pytest
from tests.unit.operator.operator_fakes import SETTINGS, Document, FakeOperator, World, settle

from sluice_api.names import AGENT_APP, agent_lease
from sluice_api.timers import SILENCE, SILENCE_LOOK
from sluice_operator.core.agents import Presence, Voice
from sluice_operator.shell import kube
from sluice_operator.shell.heartbeats import Heartbeats
from sluice_operator.shell.kube import Unavailable


class Cluster:
    """Three nodes whose agents beat, two policies, and an operator that listens."""

    def __init__(self) -> None:
        self.world = World()
        self.operator = FakeOperator(self.world.api)
        self.now = 0.0
        self.beating = {"n1", "n2", "n3"}
        self.heartbeats = self._heartbeats()

    def _heartbeats(self) -> Heartbeats:
        reconciler = self.operator.reconciler
        return Heartbeats(
            self.world.api,
            reconciler.view,
            namespace=SETTINGS.namespace,
            wake=reconciler.wakeups.wake,
            clock=lambda: self.now,
        )

    async def start(self) -> None:
        self.world.namespace("a")
        for name in ("n1", "n2", "n3"):
            self.world.node(name, gateway_for=["p"] if name != "n3" else [])
        self.world.pool("p", ["198.51.100.16/28"])
        for name in ("one", "two"):
            self.world.policy("a", name, "p")
        daemons = {"metadata": {"name": AGENT_APP, "namespace": SETTINGS.namespace}, "spec": {}}
        self.world.api.put(kube.DAEMON_SET, daemons)
        await self.operator.start()
        await settle(self.world, self.operator)
        self.world.run_pods("n2", "a", "one", 2)
        await settle(self.world, self.operator)
        await self.spend(SILENCE)

    async def spend(self, seconds: float) -> None:
        """Let time pass, with everybody doing what they do."""
        for _ in range(round(seconds / SILENCE_LOOK)):
            self.now += SILENCE_LOOK
            for name in self.beating:
                self._beat(name)
            await self.heartbeats.look()
            await settle(self.world, self.operator)

    def _beat(self, node: str) -> None:
        metadata = {"name": agent_lease(node), "namespace": SETTINGS.namespace}
        labels = {"app.kubernetes.io/name": AGENT_APP}
        spec = {"holderIdentity": node, "renewTime": f"t{self.now}"}
        self.world.api.put(kube.LEASE, {"metadata": metadata | {"labels": labels}, "spec": spec})

    def unready(self, node: str) -> None:
        document = self.world.api.named(kube.NODE)[node]
        conditions = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
        self.world.api.put(kube.NODE, document | {"status": conditions})

    async def restart(self) -> None:
        """Another operator, which has heard nobody yet."""
        self.operator = FakeOperator(self.world.api)
        self.heartbeats = self._heartbeats()
        await self.operator.start()
        await self.heartbeats.look()
        await settle(self.world, self.operator)

    def policy(self, name: str) -> Mapping[str, tuple[str, str, str]]:
        return _conditions(self.world.api.named(kube.EGRESS_POLICY)[f"a/{name}"])

    def pool(self) -> Mapping[str, tuple[str, str, str]]:
        return _conditions(self.world.api.named(kube.EGRESS_POOL)["p"])


def _conditions(document: Document) -> dict[str, tuple[str, str, str]]:
    return {
        entry["type"]: (entry["status"], entry["reason"], entry["message"])
        for entry in document["status"]["conditions"]
    }


@pytest.fixture(name="cluster")
async def _cluster() -> Cluster:
    cluster = Cluster()
    await cluster.start()
    for name in ("one", "two"):
        assert cluster.policy(name)["Programmed"][0] == "True"
        assert cluster.policy(name)["Degraded"][0] == "False"
    return cluster


async def test_a_silent_agent_makes_programmed_unknown_and_names_its_node(cluster: Cluster) -> None:
    cluster.beating.remove("n2")
    await cluster.spend(SILENCE + SILENCE_LOOK)
    found = cluster.policy("one")
    assert found["Programmed"][:2] == ("Unknown", "AgentSilent")
    assert "n2" in found["Programmed"][2]
    assert "sluice-agent" in found["Programmed"][2]
    assert found["Ready"][:2] == ("Unknown", "AgentSilent")
    assert found["Degraded"][:2] == ("True", "AgentSilent")


async def test_where_pods_may_start_every_policy_is_concerned_and_where_none_may_only_those_with_pods(
    cluster: Cluster,
) -> None:
    cluster.beating.remove("n2")
    await cluster.spend(SILENCE + SILENCE_LOOK)
    assert cluster.policy("two")["Programmed"][0] == "Unknown"
    cluster.unready("n2")
    await cluster.spend(SILENCE_LOOK)
    assert cluster.policy("two")["Programmed"][0] == "True"
    assert cluster.policy("one")["Programmed"][0] == "Unknown"


async def test_an_agent_that_is_heard_again_ends_it_at_the_next_look(cluster: Cluster) -> None:
    cluster.beating.remove("n2")
    await cluster.spend(SILENCE + SILENCE_LOOK)
    cluster.beating.add("n2")
    await cluster.spend(SILENCE_LOOK)
    for name in ("one", "two"):
        assert cluster.policy(name)["Programmed"] == ("True", "Programmed", "")
        assert cluster.policy(name)["Degraded"][0] == "False"


async def test_a_transition_costs_one_write_a_policy_and_silence_that_lasts_none(cluster: Cluster) -> None:
    before = cluster.world.api.counted["patch status EgressPolicy"]
    cluster.beating.remove("n2")
    await cluster.spend(SILENCE + SILENCE_LOOK)
    assert cluster.world.api.counted["patch status EgressPolicy"] - before == 2
    await cluster.spend(10 * SILENCE)
    assert cluster.world.api.counted["patch status EgressPolicy"] - before == 2


async def test_renewals_make_no_plan(cluster: Cluster) -> None:
    cluster.operator.reconciler.wakeups.take()
    for _ in range(10):
        cluster.now += SILENCE_LOOK
        for name in cluster.beating:
            cluster._beat(name)
        await cluster.heartbeats.look()
    assert cluster.operator.reconciler.wakeups.take() == set()


async def test_a_node_that_never_got_its_agent_is_silent(cluster: Cluster) -> None:
    cluster.world.cluster_node("n4")
    await cluster.spend(SILENCE + 2 * SILENCE_LOOK)
    assert "n4" in cluster.policy("one")["Programmed"][2]


async def test_a_pool_says_which_of_its_gateways_nobody_answers_for(cluster: Cluster) -> None:
    cluster.beating -= {"n2", "n3"}
    await cluster.spend(SILENCE + SILENCE_LOOK)
    found = cluster.pool()
    assert found["Ready"][0] == "True", "the gateway answers probes"
    assert found["Degraded"][:2] == ("True", "AgentSilent")
    assert "n2" in found["Degraded"][2]
    assert "n3" not in found["Degraded"][2], "it is no gateway"


async def test_a_new_operator_that_has_heard_nobody_does_not_call_the_silent_alive(cluster: Cluster) -> None:
    cluster.beating.remove("n2")
    await cluster.spend(SILENCE + SILENCE_LOOK)
    said = cluster.policy("one")
    await cluster.restart()
    assert cluster.policy("one") == said
    await cluster.spend(SILENCE_LOOK)
    assert cluster.policy("one")["Programmed"][0] == "Unknown"
    await cluster.spend(SILENCE)
    assert cluster.policy("one") == said
    cluster.beating.add("n2")
    await cluster.spend(SILENCE_LOOK)
    assert cluster.policy("one")["Programmed"][0] == "True"


async def test_a_new_operator_that_has_heard_nobody_calls_nobody_silent(cluster: Cluster) -> None:
    before = cluster.world.api.counted["patch status EgressPolicy"]
    await cluster.restart()
    await cluster.spend(SILENCE + SILENCE_LOOK)
    assert cluster.world.api.counted["patch status EgressPolicy"] == before


async def test_a_live_node_that_lags_is_waited_for_whoever_else_is_silent(cluster: Cluster) -> None:
    cluster.beating.remove("n2")
    await cluster.spend(SILENCE + SILENCE_LOOK)
    cluster.world.pods.pop("n3")
    cluster.world.policy("a", "three", "p")
    await cluster.spend(SILENCE_LOOK)
    found = cluster.policy("three")
    assert found["Programmed"][:2] == ("False", "WaitingForNodes")
    assert "n3" in found["Programmed"][2]
    assert found["Degraded"][:2] == ("True", "AgentSilent")


async def test_leases_that_cannot_be_read_change_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(cluster.operator.reconciler.view.presences)

    async def unavailable(*_: object, **__: object) -> None:
        raise Unavailable("down")

    monkeypatch.setattr(cluster.world.api, "list", unavailable)
    with pytest.raises(Unavailable):
        await cluster.heartbeats.look()
    assert cluster.operator.reconciler.view.presences == before
    assert all(presence.voice is Voice.HEARD for presence in before.values())
    assert isinstance(before["n1"], Presence)
