"""Uninstalling: in order, waiting for those who can answer, naming those who did not, and again without harm."""

from dataclasses import dataclass, field

import pytest
from tests.unit.operator.operator_fakes import FakeApi, FakeOperator, World, settle

from sluice_operator.shell import kube
from sluice_operator.shell.uninstall import OPERATOR_DEPLOYMENT, Stragglers, Uninstaller

NAMESPACE = "sluice-system"
DEPLOYMENT = {"metadata": {"name": OPERATOR_DEPLOYMENT, "namespace": NAMESPACE}, "spec": {"replicas": 2}}


@dataclass
class Bed:
    """A settled world, its nodes, and a run whose waiting costs no time."""

    world: World
    lines: list[str] = field(default_factory=list)
    now: float = 0.0

    def node(self, name: str, *, ready: bool) -> None:
        status = {"conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}]}
        self.world.api.put(kube.NODE, {"metadata": {"name": name}, "status": status})

    def removed(self, name: str) -> None:
        known = self.world.api.named(kube.EGRESS_NODE)[name]
        conditions = [{"type": "Programmed", "status": "False", "reason": "Removed"}]
        self.world.api.put(kube.EGRESS_NODE, {"metadata": known["metadata"], "status": {"conditions": conditions}})

    async def run(self) -> None:
        await Uninstaller(
            self.world.api, namespace=NAMESPACE, timeout=90, say=self.lines.append, clock=lambda: self.now
        ).run()


@pytest.fixture(name="bed")
async def _bed(monkeypatch: pytest.MonkeyPatch) -> Bed:
    world = World(api=FakeApi())
    operator = FakeOperator(world.api)
    await operator.start()
    world.namespace("a")
    for name in ("n1", "n2"):
        world.node(name, gateway_for=["p"])
    world.pool("p", ["198.51.100.0/24"])
    world.policy("a", "one", "p")
    await settle(world, operator)
    bed = Bed(world)
    world.api.put(kube.DEPLOYMENT, DEPLOYMENT)

    async def pass_time(seconds: float) -> None:
        bed.now += seconds

    monkeypatch.setattr("sluice_operator.shell.uninstall.asyncio.sleep", pass_time)
    return bed


async def test_everything_of_ours_goes_and_what_decides_addresses_stays(bed: Bed) -> None:
    for name in ("n1", "n2"):
        bed.node(name, ready=True)
        bed.removed(name)
    await bed.run()
    api = bed.world.api
    assert api.named(kube.DEPLOYMENT)[f"{NAMESPACE}/{OPERATOR_DEPLOYMENT}"]["spec"]["replicas"] == 0
    assert not api.named(kube.SERVICE)
    assert not api.named(kube.DISRUPTION_BUDGET)
    assert api.named(kube.DEPLOYMENT).keys() == {f"{NAMESPACE}/{OPERATOR_DEPLOYMENT}"}
    assert not api.named(kube.EGRESS_NODE)
    assert api.named(kube.EGRESS_IP).keys() == {"198.51.100.1"}
    assert api.named(kube.EGRESS_POLICY).keys() == {"a/one"}
    assert api.named(kube.EGRESS_POOL)["p"]["metadata"]["finalizers"] == []


async def test_the_agents_signs_of_life_go_and_no_other_lease(bed: Bed) -> None:
    for name in ("n1", "n2"):
        bed.node(name, ready=True)
        bed.removed(name)
        metadata = {"name": f"sluice-agent-{name}", "labels": {"app.kubernetes.io/name": "sluice-agent"}}
        bed.world.api.put(kube.LEASE, {"metadata": metadata | {"namespace": NAMESPACE}})
    bed.world.api.put(kube.LEASE, {"metadata": {"name": "theirs", "namespace": NAMESPACE}})
    await bed.run()
    assert bed.world.api.named(kube.LEASE).keys() == {f"{NAMESPACE}/theirs"}


def ready(bed: Bed, resource: kube.Resource, name: str) -> tuple[str, str, str]:
    conditions = bed.world.api.named(resource)[name]["status"]["conditions"]
    (found,) = [entry for entry in conditions if entry["type"] == "Ready"]
    return found["status"], found["reason"], found["message"]


async def test_no_status_goes_on_saying_ready(bed: Bed) -> None:
    for name in ("n1", "n2"):
        bed.node(name, ready=True)
        bed.removed(name)
    assert ready(bed, kube.EGRESS_POLICY, "a/one")[0] == "True"
    await bed.run()
    for resource, name in ((kube.EGRESS_POLICY, "a/one"), (kube.EGRESS_POOL, "p")):
        status, reason, message = ready(bed, resource, name)
        assert (status, reason) == ("False", "Removed")
        assert message == "Sluice is not installed: pods leave with the addresses of their nodes"
    written = bed.world.api.writes
    await bed.run()
    assert bed.world.api.writes - written == 1, "only the operator is scaled to 0 once more"


async def test_a_new_installation_goes_on_from_there(bed: Bed) -> None:
    for name in ("n1", "n2"):
        bed.node(name, ready=True)
        bed.removed(name)
    before = bed.world.state()
    await bed.run()
    bed.world.api.put(kube.DEPLOYMENT, DEPLOYMENT)
    for name in ("n1", "n2"):
        bed.world.node(name, gateway_for=["p"])
    operator = FakeOperator(bed.world.api)
    await operator.start()
    await settle(bed.world, operator)
    assert bed.world.state() == before


async def test_an_uninstall_that_fails_half_way_says_so_too(bed: Bed) -> None:
    bed.node("n1", ready=True)
    bed.node("n2", ready=True)
    bed.removed("n1")
    with pytest.raises(Stragglers):
        await bed.run()
    status, reason, message = ready(bed, kube.EGRESS_POLICY, "a/one")
    assert (status, reason) == ("False", "Removed")
    assert "on n2, where its rules still are, they are dropped" in message


async def test_it_can_be_run_twice(bed: Bed) -> None:
    for name in ("n1", "n2"):
        bed.node(name, ready=True)
        bed.removed(name)
    await bed.run()
    await bed.run()


async def test_a_ready_node_that_does_not_answer_is_named_and_nothing_is_deleted_from_it(bed: Bed) -> None:
    bed.node("n1", ready=True)
    bed.node("n2", ready=True)
    bed.removed("n1")
    with pytest.raises(Stragglers, match="after 90 s nodes have not cleaned up: n2"):
        await bed.run()
    assert bed.now >= 90
    assert bed.world.api.named(kube.EGRESS_NODE).keys() == {"n1", "n2"}
    assert bed.world.api.named(kube.EGRESS_NODE)["n2"]["metadata"]["annotations"] == {"sluice.dev/remove": "true"}
    assert "waiting for n2" in bed.lines


async def test_a_node_that_is_down_is_named_but_not_waited_for(bed: Bed) -> None:
    bed.node("n1", ready=True)
    bed.node("n2", ready=False)
    bed.removed("n1")
    await bed.run()
    assert bed.now == 0
    assert any("n2 is not ready" in line for line in bed.lines)


async def test_a_leader_that_still_renews_is_waited_for(bed: Bed) -> None:
    lease = {
        "metadata": {"name": "sluice-operator", "namespace": NAMESPACE},
        "spec": {"holderIdentity": "pod-1", "renewTime": "2026-01-01T00:00:00Z"},
    }
    bed.world.api.put(kube.LEASE, lease)
    for name in ("n1", "n2"):
        bed.node(name, ready=True)
        bed.removed(name)
    await bed.run()
    assert bed.now == 10, "the lease has to stand still for as long as it lasts"
    assert "waiting for the lease of pod-1" in bed.lines
