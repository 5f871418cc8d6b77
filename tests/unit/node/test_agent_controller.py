"""The loop programs what the state says, once, in time, and never from half a view."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Interface, ip_address
from typing import Any

import pytest

from sluice_api.reasons import Reason
from sluice_node.agent.changes import Changes
from sluice_node.agent.controller import Controller
from sluice_node.agent.kernel_worker import KernelWorker
from sluice_node.agent.metrics import Metrics
from sluice_node.agent.preflight import Preflight
from sluice_node.agent.prober import Prober
from sluice_node.agent.reach import Reach
from sluice_node.agent.state import ClusterState
from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.failures import Failure
from sluice_node.core.flows import Flow
from sluice_node.core.links import Links
from sluice_node.core.objects import Node
from sluice_node.core.preflight import Act, Facts, MarkUse
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.report import Report

LINKS = Links((("eth0", IPv4Interface("192.0.2.1/24")),), {4: "eth0"})
NODE = Node("n1", "uid", (ip_address("192.0.2.1"),), ())


class Kernel:
    def __init__(self) -> None:
        self.applied: list[DesiredNode] = []
        self.anew: list[bool] = []
        self.failures: tuple[Failure, ...] = ()
        self.refusal: str | None = None
        self.broken = False
        self.entered, self.goes_on = threading.Event(), threading.Event()
        self.goes_on.set()
        self.removals = 0

    def apply(self, desired: DesiredNode, /, *, anew: bool = False) -> Report:
        self.entered.set()
        assert self.goes_on.wait(60)
        if self.refusal is not None:
            raise KernelError(self.refusal)
        if self.broken:
            raise ConnectionResetError("netlink")
        self.applied.append(desired)
        self.anew.append(anew)
        return Report(failures=self.failures)

    def check(self) -> bool:
        return True

    def counters(self) -> Mapping[str, int]:
        return {}

    def opened_by(self, source: Address) -> list[Flow]:
        return []

    def egress_ips(self) -> frozenset[Address]:
        return frozenset()

    def remove(self) -> None:
        self.removals += 1


def no_probes() -> Any:
    raise KernelError("no device")


class Bench:
    """A controller that runs, its state, and a way to wait until it has settled."""

    def __init__(self, worker: type[KernelWorker] = KernelWorker) -> None:
        changes = Changes()
        self.kernel = Kernel()
        self.attempts: asyncio.Queue[None] = asyncio.Queue()
        self.state = ClusterState(
            node="n1",
            namespace="sluice-system",
            never_redirected=frozenset(),
            changed=changes.note,
            gone=lambda key: None,
        )
        self.announced: list[Mapping[Address, str]] = []
        self.facts = Facts()
        self.worker = worker(self.kernel, links=lambda: LINKS, announce=self.announced.append, look=lambda: self.facts)
        self.changes = changes
        self.prober = Prober(no_probes, changes.note_gateways)
        self.in_reach = True
        clock = asyncio.get_event_loop().time
        self.reach = Reach(self._answers, claims=self.state.egress_ips.values, changed=changes.note, clock=clock)
        self.controller = Controller(
            changes,
            state=self.state,
            prober=self.prober,
            kernel=self.worker,
            metrics=Metrics(),
            reach=self.reach,
            preflight=Preflight(self.worker.look, changes.note),
            settled=lambda: self.attempts.put_nowait(None),
        )

    async def _answers(self) -> bool:
        return self.in_reach

    def stores(self) -> list[Any]:
        state = self.state
        return [
            state.pods,
            state.policies,
            state.pools,
            state.egress_ips,
            state.egress_nodes,
            state.service_cidrs,
            state.api_endpoints,
        ]

    def fill(self) -> None:
        self.state.set_node(NODE)
        self.state.set_links(LINKS)
        for store in self.stores():
            store.replace({})

    def own(self, **annotations: str) -> None:
        self.state.egress_nodes.put({"metadata": {"name": "n1", "annotations": annotations}})

    async def settled(self) -> None:
        async with asyncio.timeout(5):
            await self.attempts.get()


@pytest.fixture(name="bench")
async def _bench() -> AsyncIterator[Bench]:
    async with running(Bench()) as bench:
        yield bench


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    task = asyncio.create_task(bench.controller.run())
    try:
        yield bench
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        bench.worker.close()


@pytest.mark.parametrize("absent", range(6))
async def test_nothing_is_programmed_before_every_store_has_synced(bench: Bench, absent: int) -> None:
    bench.state.set_node(NODE)
    bench.state.set_links(LINKS)
    stores = bench.stores()
    last = stores.pop(absent)
    for store in stores:
        store.replace({})
    for _ in range(3):
        await asyncio.sleep(0)
    assert bench.state.missing() == [last.kind]
    assert bench.state.snapshot(frozenset()) is None
    last.replace({})
    await bench.settled()
    assert len(bench.kernel.applied) == 1


async def test_what_changes_nothing_for_the_kernel_is_not_applied_again(bench: Bench) -> None:
    bench.fill()
    await bench.settled()
    bench.state.pools.put({"metadata": {"name": "p"}, "spec": {}})
    await bench.settled()
    assert len(bench.kernel.applied) == 1


async def test_changes_that_come_together_are_one_attempt(bench: Bench) -> None:
    bench.fill()
    await bench.settled()
    for number in range(2, 10):
        bench.state.egress_nodes.put(
            {"metadata": {"name": f"n{number}"}, "status": {"addresses": [f"192.0.2.{number}"]}}
        )
    await bench.settled()
    assert bench.attempts.empty()
    assert len(bench.kernel.applied) == 2


async def test_a_refusal_is_the_verdict_and_the_account_keeps_its_revision(bench: Bench) -> None:
    bench.kernel.refusal = "no memory"
    bench.fill()
    await bench.settled()
    assert bench.controller.verdict is not None
    assert (bench.controller.verdict.reason, bench.controller.verdict.message) == (Reason.KERNEL_ERROR, "no memory")
    assert bench.controller.account is not None
    assert bench.controller.account.revision == 0
    bench.kernel.refusal = None
    await bench.settled()
    assert bench.controller.verdict.reason is Reason.PROGRAMMED


async def test_a_pass_that_hangs_is_told_from_a_loop_that_waits(bench: Bench) -> None:
    assert not bench.controller.stuck(for_seconds=-1)
    bench.kernel.goes_on.clear()
    bench.fill()
    await asyncio.to_thread(bench.kernel.entered.wait, 60)
    assert bench.controller.stuck(for_seconds=0)
    assert not bench.controller.stuck(for_seconds=3600)
    bench.kernel.goes_on.set()
    await bench.settled()
    await asyncio.sleep(0)
    assert not bench.controller.stuck(for_seconds=-1)


async def test_a_socket_that_breaks_is_a_refusal_and_not_the_end(bench: Bench) -> None:
    bench.kernel.broken = True
    bench.fill()
    await bench.settled()
    assert bench.controller.verdict is not None
    assert bench.controller.verdict.reason is Reason.KERNEL_ERROR


async def test_a_node_without_its_address_is_a_refusal_too(bench: Bench) -> None:
    bench.fill()
    bench.state.set_links(Links())
    await bench.settled()
    assert bench.kernel.applied == []
    assert bench.controller.verdict is not None
    assert "192.0.2.1" in bench.controller.verdict.message


async def test_removal_programs_nothing_until_the_annotation_goes(bench: Bench) -> None:
    bench.fill()
    await bench.settled()
    bench.own(**{"sluice.dev/remove": "true"})
    await bench.settled()
    assert bench.kernel.removals == 1
    assert bench.controller.removed
    bench.state.egress_nodes.delete({"metadata": {"name": "n1"}})
    bench.changes.note("anything")
    bench.own()
    await bench.settled()
    assert not bench.controller.removed
    assert len(bench.kernel.applied) == 2


async def test_an_agent_that_starts_on_a_removed_node_removes_and_programs_nothing(bench: Bench) -> None:
    bench.own(**{"sluice.dev/remove": "true"})
    await bench.settled()
    assert (bench.kernel.removals, bench.kernel.applied) == (1, [])


async def test_a_holder_announces_again_when_gateways_come_or_go(bench: Bench) -> None:
    bench.fill()
    bench.state.pools.put({"metadata": {"name": "p"}, "spec": {}})
    owner = {"namespace": "ns", "name": "a"}
    spec = {"address": "198.51.100.7", "pool": "p", "policy": owner}
    bench.state.egress_ips.put({"metadata": {"name": "198.51.100.7"}, "spec": spec})
    labels = {"app.kubernetes.io/name": "sluice-gateway", "sluice.dev/pool": "p"}
    bench.state.pods.put(
        {
            "metadata": {"name": "gw", "namespace": "sluice-system", "labels": labels},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
    )
    await bench.settled()
    held = {ip_address("198.51.100.7"): "eth0"}
    assert (bench.kernel.applied[-1].announced, bench.announced) == (held, [])
    bench.changes.note_gateways()
    await bench.settled()
    assert bench.announced == [held]
    assert len(bench.kernel.applied) == 1


CALICO = Facts(marks=(MarkUse("table ip filter chain cali-FORWARD", Act.TEST, 0x10000, 0x10000),))


def select_a_pod(bench: Bench) -> None:
    spec = {"pool": "p", "podSelector": {"matchLabels": {"app": "a"}}}
    bench.state.policies.put({"metadata": {"name": "a", "namespace": "ns", "generation": 1}, "spec": spec})
    bench.state.pods.put(
        {
            "metadata": {"name": "a", "namespace": "ns", "labels": {"app": "a"}},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.244.1.5"}]},
        }
    )


async def test_on_a_node_where_others_use_our_marks_nothing_is_programmed_and_it_is_said(bench: Bench) -> None:
    bench.facts = CALICO
    bench.fill()
    await bench.settled()
    assert bench.kernel.applied == []
    assert bench.controller.verdict is not None
    assert bench.controller.verdict.reason is Reason.MARKS_IN_USE
    assert "cali-FORWARD" in bench.controller.verdict.message
    assert bench.controller.account is not None
    assert bench.controller.account.revision == 0
    select_a_pod(bench)
    await bench.settled()
    assert bench.kernel.applied == []


async def test_marks_that_come_into_use_later_end_what_nobody_needs_and_keep_what_selected_pods_need(
    bench: Bench,
) -> None:
    bench.fill()
    await bench.settled()
    select_a_pod(bench)
    await bench.settled()
    applied = len(bench.kernel.applied)
    bench.facts = CALICO
    await bench.controller._preflight._judge()
    bench.changes.note("what others do on this node")
    await bench.settled()
    assert (bench.kernel.removals, len(bench.kernel.applied)) == (0, applied)
    assert bench.controller.verdict is not None
    assert bench.controller.verdict.reason is Reason.MARKS_IN_USE
    assert bench.controller.account is not None
    (told,) = bench.controller.account.troubles
    assert (str(told.policy), "cali-FORWARD" in told.message) == ("ns/a", True), "whatever was acknowledged before"


async def test_where_no_pod_is_selected_everything_is_taken_out_and_comes_back_when_the_marks_are_free(
    bench: Bench,
) -> None:
    bench.fill()
    await bench.settled()
    bench.facts = CALICO
    await bench.controller._preflight._judge()
    for _ in range(2):
        bench.changes.note("what others do on this node")
        await bench.settled()
    assert (bench.kernel.removals, len(bench.kernel.applied)) == (1, 1)
    bench.facts = Facts()
    await bench.controller._preflight._judge()
    bench.changes.note("what others do on this node")
    await bench.settled()
    assert len(bench.kernel.applied) == 2
    assert bench.controller.verdict is not None
    assert bench.controller.verdict.reason is Reason.PROGRAMMED


async def test_a_warning_stands_in_the_condition_of_a_node_that_is_programmed(bench: Bench) -> None:
    bench.facts = Facts(drops=("table ip filter chain FORWARD",))
    bench.fill()
    await bench.settled()
    assert len(bench.kernel.applied) == 1
    assert bench.controller.verdict is not None
    assert bench.controller.verdict.programmed
    assert "chain FORWARD" in bench.controller.verdict.message
