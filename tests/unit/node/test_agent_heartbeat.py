"""The Lease is renewed while the agent works, and not one moment on behalf of one that does not."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from sluice_api.timers import HEARTBEAT, HEARTBEAT_PROOF, SILENCE
from sluice_node.agent.heartbeat import Heartbeat
from sluice_node.agent.kernel_worker import KernelWorker
from sluice_node.agent.kube_client import RefusedError, UnreachableError
from sluice_node.agent.kube_requests import Request
from sluice_node.core.links import Links
from sluice_node.core.objects import Node

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


class Bench:
    """An API server with one Lease, and an agent that may hang."""

    def __init__(self) -> None:
        self.node: Node | None = Node("n1", "uid", (), ())
        self.works = True
        self.down = False
        self.lease: dict[str, Any] | None = None
        self.renewed: list[float] = []

    async def send(self, request: Request) -> dict[str, Any]:
        if self.down:
            raise UnreachableError("down")
        assert request.path == "/apis/coordination.k8s.io/v1/namespaces/sluice-system/leases/sluice-agent-n1"
        body = json.loads(request.body or b"")
        if request.content.startswith("application/merge-patch"):
            if self.lease is None:
                raise RefusedError(404, "not found")
            self.lease["spec"] |= body["spec"]
        else:
            self.lease = body
        self.renewed.append(asyncio.get_running_loop().time())
        return {}

    async def turning(self) -> bool:
        return self.works

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        heartbeat = Heartbeat(
            self,  # type: ignore[arg-type]
            namespace="sluice-system",
            node=lambda: self.node,
            turning=self.turning,
        )
        task = asyncio.create_task(heartbeat.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_the_lease_belongs_to_the_node_and_is_renewed_in_time() -> None:
    bench = Bench()
    async with bench.running():
        await asyncio.sleep(10 * HEARTBEAT)
    assert bench.lease is not None
    assert (
        bench.lease["metadata"]["ownerReferences"][0] | {"uid": "uid", "kind": "Node"}
        == (bench.lease["metadata"]["ownerReferences"][0])
    )
    assert bench.lease["metadata"]["labels"] == {"app.kubernetes.io/name": "sluice-agent"}
    assert bench.lease["spec"]["holderIdentity"] == "n1"
    gaps = [later - earlier for earlier, later in zip(bench.renewed, bench.renewed[1:], strict=False)]
    assert gaps
    assert max(gaps) <= HEARTBEAT
    assert len(set(gaps)) > 1, "agents in step would come all at once"


async def test_two_renewals_never_say_the_same() -> None:
    bench = Bench()
    said = set()
    async with bench.running():
        for _ in range(5):
            await asyncio.sleep(HEARTBEAT)
            assert bench.lease is not None
            said.add(bench.lease["spec"]["renewTime"])
    assert len(said) == 5


async def test_an_agent_that_hangs_renews_nothing_and_resumes_by_itself() -> None:
    bench = Bench()
    async with bench.running():
        await asyncio.sleep(HEARTBEAT)
        bench.works = False
        await asyncio.sleep(HEARTBEAT)
        count = len(bench.renewed)
        await asyncio.sleep(10 * SILENCE)
        assert len(bench.renewed) == count
        bench.works = True
        await asyncio.sleep(2)
        assert len(bench.renewed) == count + 1


async def test_an_outage_is_survived_and_ends_soon_after_the_api_server_is_back() -> None:
    bench = Bench()
    async with bench.running():
        await asyncio.sleep(1)
        bench.down = True
        await asyncio.sleep(300)
        bench.down = False
        count = len(bench.renewed)
        await asyncio.sleep(HEARTBEAT / 2)
        assert len(bench.renewed) == count + 1


async def test_a_lease_that_was_deleted_is_made_anew() -> None:
    bench = Bench()
    async with bench.running():
        await asyncio.sleep(1)
        bench.lease = None
        await asyncio.sleep(HEARTBEAT)
        assert bench.lease is not None


async def test_a_node_that_was_made_anew_owns_the_lease_from_its_next_renewal_on() -> None:
    bench = Bench()
    async with bench.running():
        await asyncio.sleep(1)
        bench.node, bench.lease = None, None
        await asyncio.sleep(5 * HEARTBEAT)
        assert bench.lease is None, "it would have no owner, and stay for ever"
        bench.node = Node("n1", "another", (), ())
        await asyncio.sleep(2)
        assert bench.lease is not None
        assert bench.lease["metadata"]["ownerReferences"][0]["uid"] == "another"


async def test_a_lease_of_the_node_before_gets_the_new_owner_before_it_is_collected() -> None:
    bench = Bench()
    async with bench.running():
        await asyncio.sleep(1)
        bench.node = Node("n1", "another", (), ())
        await asyncio.sleep(HEARTBEAT)
        assert bench.lease is not None
        assert bench.lease["metadata"]["ownerReferences"][0]["uid"] == "another"


async def test_a_kernel_thread_that_hangs_does_not_turn() -> None:
    kernel = _Kernel()
    worker = KernelWorker(kernel, links=Links, announce=lambda held: None)
    hanging = asyncio.create_task(worker.check())
    await asyncio.sleep(0)
    assert not await worker.turns(within=HEARTBEAT_PROOF)
    kernel.release.set()
    assert await hanging
    worker.close()


class _Kernel:
    def __init__(self) -> None:
        self.release = threading.Event()

    def apply(self, desired: object, /) -> object:
        return None

    def check(self) -> bool:
        return self.release.wait(60)

    def counters(self) -> dict[str, int]:
        return {}

    def remove(self) -> None:
        return None
