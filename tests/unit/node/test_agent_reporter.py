"""The EgressNode is written when something differs and not otherwise; holders are said once."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

import pytest

from sluice_node.agent import reporter as module
from sluice_node.agent.kube_client import KubeError, UnreachableError
from sluice_node.agent.kube_requests import Request
from sluice_node.agent.reporter import HolderWriter, Reporter
from sluice_node.core.objects import EgressIP, Key, Node

ADDRESS = ip_address("198.51.100.7")


@dataclass
class Api:
    """Takes every request, unless it is down."""

    requests: asyncio.Queue[Request] = field(default_factory=asyncio.Queue)
    failures: int = 0

    async def send(self, request: Request) -> dict[str, Any]:
        if self.failures:
            self.failures -= 1
            raise UnreachableError("down")
        self.requests.put_nowait(request)
        return {}

    async def next(self) -> tuple[str, dict[str, Any]]:
        """Path (from the plural on) and body of the next request."""
        async with asyncio.timeout(5):
            request = await self.requests.get()
        return request.path.split("/v1alpha1/")[1], json.loads(request.body or b"")


class Bench:
    def __init__(self) -> None:
        self.api = Api()
        self.node: Node | None = Node("n1", "uid", (), ())
        self.status: dict[str, Any] | None = {"revision": 1}
        self.reporter = Reporter(self.api, status=self._status, node=lambda: self.node)  # type: ignore[arg-type]

    def _status(self, last: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return self.status


@pytest.fixture(name="bench")
async def _bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "REPORT_TOGETHER", 0.0)
    monkeypatch.setattr(module, "REPORT_BETWEEN", 0.0)
    monkeypatch.setattr(module.Backoff, "seconds", lambda self: 0.0)
    bench = Bench()
    task = asyncio.create_task(bench.reporter.run())
    yield bench
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_object_is_made_once_and_its_status_written_when_it_differs(bench: Bench) -> None:
    bench.reporter.changed()
    assert (await bench.api.next())[0] == "egressnodes/n1"
    assert await bench.api.next() == (
        "egressnodes/n1/status",
        {
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "EgressNode",
            "metadata": {"name": "n1"},
            "status": {"revision": 1},
        },
    )
    bench.reporter.changed()
    bench.status = {"revision": 2}
    bench.reporter.changed()
    assert (await bench.api.next())[1]["status"] == {"revision": 2}
    assert bench.api.requests.empty()


@pytest.mark.parametrize("field", ["gatewayFor", "surveyed"])
async def test_what_others_wait_for_is_not_kept_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    bench.reporter.changed()
    await bench.api.next()
    await bench.api.next()
    monkeypatch.setattr(module, "REPORT_TOGETHER", 3600.0)
    bench.status = {"revision": 2}
    bench.reporter.changed()
    for _ in range(10):
        await asyncio.sleep(0)
    assert bench.api.requests.empty(), "anything else waits for company"
    bench.status = {"revision": 2, field: "new"}
    bench.reporter.changed()
    assert (await bench.api.next())[1]["status"] == bench.status


async def test_a_write_that_failed_is_made_again_with_what_is_true_by_then(bench: Bench) -> None:
    bench.api.failures = 3
    bench.reporter.changed()
    bench.status = {"revision": 2}
    await bench.api.next()
    assert (await bench.api.next())[1]["status"] == {"revision": 2}


async def test_a_lost_object_is_made_anew(bench: Bench) -> None:
    bench.reporter.changed()
    await bench.api.next()
    await bench.api.next()
    bench.reporter.lost()
    assert [(await bench.api.next())[0] for _ in range(2)] == ["egressnodes/n1", "egressnodes/n1/status"]


async def test_a_node_that_was_made_anew_becomes_the_owner(bench: Bench) -> None:
    bench.reporter.changed()
    await bench.api.next()
    await bench.api.next()
    bench.node = Node("n1", "another", (), ())
    bench.reporter.changed()
    assert (await bench.api.next())[1]["metadata"]["ownerReferences"][0]["uid"] == "another"


async def test_while_there_is_nothing_to_say_nothing_is_made(bench: Bench) -> None:
    said, bench.status = bench.status, None
    bench.reporter.changed()
    await asyncio.sleep(0.01)
    assert bench.api.requests.empty()
    bench.status = said
    bench.reporter.changed()
    await bench.api.next()


def claim(holder: str | None) -> EgressIP:
    return EgressIP(Key("", str(ADDRESS)), ADDRESS, "p", Key("ns", "a"), holder)


async def test_a_holder_says_so_once_and_never_argues() -> None:
    api = Api()
    claims = [claim(None)]
    writer = HolderWriter(api, node="n1", claims=lambda: claims)  # type: ignore[arg-type]
    task = asyncio.create_task(writer.run())
    writer.hold([ADDRESS])
    assert (await api.next())[1]["status"] == {"holder": "n1"}
    claims[0] = claim("n2")
    writer.hold([ADDRESS])
    await asyncio.sleep(0.01)
    assert api.requests.empty(), "another that thinks it is the holder is not contradicted at once"
    writer.hold([])
    writer.hold([ADDRESS])
    assert (await api.next())[1]["status"] == {"holder": "n1"}
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_without_a_node_no_object_is_made_and_with_one_it_is_made_at_once(bench: Bench) -> None:
    """One that is made with the uid of a Node that is gone is collected at once, again and again."""
    bench.reporter.changed()
    await bench.api.next()
    await bench.api.next()
    node, bench.node = bench.node, None
    bench.reporter.lost()
    for _ in range(10):
        await asyncio.sleep(0)
    assert bench.api.requests.empty()
    assert node is not None
    bench.node = replace(node, uid="new")
    bench.reporter.changed()
    path, body = await bench.api.next()
    assert (path, body["metadata"]["ownerReferences"][0]["uid"]) == ("egressnodes/n1", "new")
    assert (await bench.api.next())[0] == "egressnodes/n1/status"


class Refusing(Api):
    """Refuses whatever is about one object."""

    async def send(self, request: Request) -> dict[str, Any]:
        if "/198.51.100.7/" in request.path:
            raise KubeError("404: it is being deleted")
        return await super().send(request)


async def test_an_egress_ip_that_cannot_be_written_keeps_no_other_waiting() -> None:
    api, other = Refusing(), ip_address("198.51.100.8")
    claims = [claim(None), EgressIP(Key("", str(other)), other, "p", Key("ns", "b"))]
    writer = HolderWriter(api, node="n1", claims=lambda: claims)  # type: ignore[arg-type]
    task = asyncio.create_task(writer.run())
    writer.hold([ADDRESS, other])
    assert (await api.next())[0] == "egressips/198.51.100.8/status"
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
