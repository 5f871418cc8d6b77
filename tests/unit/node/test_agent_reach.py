"""The agent takes back what cut its node off, and looks for the API server no more than it must."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from ipaddress import ip_address
from math import inf
from typing import Any, TypeVar, cast

import pytest
from tests.unit.node.test_agent_controller import Bench, running

from sluice_api.timers import TRIAL
from sluice_node.agent.kernel_worker import KernelWorker
from sluice_node.agent.kube_client import ClosedError, GarbledError, KubeClient, RefusedError, UnreachableError
from sluice_node.agent.kube_requests import Request
from sluice_node.agent.reach import asking

pytestmark = pytest.mark.looptime
_T = TypeVar("_T")


class Direct(KernelWorker):
    """Makes its calls at once: virtual time does not wait for threads."""

    async def _run(self, call: Callable[[], _T]) -> _T:
        return call()


class World:
    """What the API server says, so that this node is the gateway of one pool with one policy and its claim."""

    ADDRESS = ip_address("198.51.100.7")

    def __init__(self, bench: Bench) -> None:
        bench.fill()
        state = bench.state
        state.pools.put({"metadata": {"name": "p"}, "spec": {}})
        labels = {"app.kubernetes.io/name": "sluice-gateway", "sluice.dev/pool": "p"}
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        state.pods.put({"metadata": {"name": "gw", "namespace": "sluice-system", "labels": labels}, "status": ready})
        self._claims = state.egress_ips

    def claim(self, policy: str = "a") -> None:
        spec = {"address": str(self.ADDRESS), "pool": "p", "policy": {"namespace": "ns", "name": policy}}
        status = {"slices": [{"node": "n1", "ports": "1024-2047"}]}
        self._claims.put({"metadata": {"name": str(self.ADDRESS)}, "spec": spec, "status": status})

    def used(self, bench: Bench) -> bool:
        desired = bench.kernel.applied[-1]
        return self.ADDRESS in desired.announced or any(piece.egress_ip == self.ADDRESS for piece in desired.slices)


@pytest.fixture(name="reaching")
async def _reaching() -> AsyncIterator[Bench]:
    async with running(Bench(Direct)) as bench:
        task = asyncio.create_task(bench.reach.run())
        yield bench
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_claim_that_takes_the_api_server_away_is_taken_back_and_named(reaching: Bench) -> None:
    world = World(reaching)
    await reaching.settled()
    world.claim()
    await reaching.settled()
    assert world.used(reaching)
    reaching.in_reach = False
    await asyncio.sleep(TRIAL + 3)
    assert not world.used(reaching)
    assert reaching.controller.programmed is not None
    assert "API server" in reaching.controller.programmed.snapshot.refused[world.ADDRESS]
    reaching.in_reach = True
    await asyncio.sleep(3)
    assert not world.used(reaching)
    world.claim(policy="b")
    await asyncio.sleep(1)
    assert world.used(reaching), "another claim of the address is tried anew"


async def test_an_api_server_that_is_away_for_everybody_changes_nothing(reaching: Bench) -> None:
    world = World(reaching)
    world.claim()
    await reaching.settled()
    await asyncio.sleep(TRIAL + 3)
    applied = len(reaching.kernel.applied)
    reaching.in_reach = False
    await asyncio.sleep(3600)
    assert len(reaching.kernel.applied) == applied
    assert world.used(reaching)


class Client:
    """A client whose server says something, refuses the connection, or is silent."""

    def __init__(self, behaviour: BaseException | None, *, heard: float = -inf, there: bool = False) -> None:
        self.heard = heard
        self.there = there
        self.requests: list[Request] = []
        self._behaviour = behaviour

    async def is_there(self, *, seconds: float) -> bool:
        return self.there

    async def send(self, request: Request) -> dict[str, Any]:
        self.requests.append(request)
        if isinstance(self._behaviour, TimeoutError):
            await asyncio.sleep(3600)
        if self._behaviour is not None:
            raise self._behaviour
        return {}


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (None, True),
        (RefusedError(401, "who are you"), True),
        (GarbledError("not JSON"), True),
        (ClosedError("connection refused"), True),
        (UnreachableError("no route to host"), False),
        (TimeoutError(), False),
    ],
    ids=["answers", "refuses the request", "garbles", "is not up", "unreachable", "silent"],
)
async def test_whoever_answers_is_in_reach(behaviour: BaseException | None, expected: bool) -> None:
    client = Client(behaviour)
    assert await asking(cast(KubeClient, client))() is expected
    assert [request.path for request in client.requests] == ["/version"]


async def test_a_server_that_is_too_busy_to_answer_is_in_reach() -> None:
    assert await asking(cast(KubeClient, Client(TimeoutError(), there=True)))()


async def test_a_server_that_just_said_something_is_not_asked() -> None:
    client = Client(UnreachableError("no"), heard=time.monotonic())
    assert await asking(cast(KubeClient, client))()
    assert client.requests == []
