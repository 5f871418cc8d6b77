"""Lists and watches follow each other as the server's answers demand; no answer empties the store."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from sluice_node.agent import reflector as module
from sluice_node.agent.kube_client import GarbledError, KubeError, RefusedError, UnreachableError
from sluice_node.agent.kube_requests import POOL_KIND, SERVICE_CIDR_KIND, Request, Resource
from sluice_node.agent.reflector import Reflector
from sluice_node.agent.store import Store
from sluice_node.core.objects import ServiceCIDR, service_cidr


def item(name: str, version: str = "1", cidr: str = "10.0.0.0/24") -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version}, "spec": {"cidrs": [cidr]}}


def page(*items: dict[str, Any], version: str = "10", proceed: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version, "continue": proceed}, "items": list(items)}


def event(kind: str, obj: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": obj}


class Script:
    """A client that gives prepared answers: to a list a page, to a watch its events; an error is raised. After the
    last one it stops the reflector."""

    def __init__(self, *answers: dict[str, Any] | list[dict[str, Any]] | KubeError) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    def _next(self, request: Request) -> Any:
        self.requests.append(request)
        if not self.answers:
            raise asyncio.CancelledError
        answer = self.answers.pop(0)
        if isinstance(answer, KubeError):
            raise answer
        return answer

    async def send(self, request: Request) -> dict[str, Any]:
        answer = self._next(request)
        assert isinstance(answer, dict), f"a watch was expected, not {request}"
        return answer

    async def lines(self, request: Request) -> AsyncGenerator[dict[str, Any], None]:
        answer = self._next(request)
        assert isinstance(answer, list), f"a list was expected, not {request}"
        for entry in answer:
            yield entry

    def asked(self) -> list[str]:
        """Each request as "list" or the version that a watch began at."""
        return [request.query.get("resourceVersion", "list") for request in self.requests]


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    waits: list[float] = []

    async def no_sleep(seconds: float) -> None:
        waits.append(seconds)

    async def run(script: Script, resource: Resource = POOL_KIND) -> tuple[Store[ServiceCIDR], list[float]]:
        monkeypatch.setattr(module.asyncio, "sleep", no_sleep)
        monkeypatch.setattr(module, "_JUST_FAILED", -1.0)
        store: Store[ServiceCIDR] = Store("ServiceCIDR", service_cidr, lambda why: None)
        with pytest.raises(asyncio.CancelledError):
            await Reflector(script, resource, store).run()  # type: ignore[arg-type]
        return store, waits

    return run


def names(store: Store[ServiceCIDR]) -> list[str]:
    return [entry.key.name for entry in store.values()]


async def test_a_watch_goes_on_where_the_list_ended(run: Callable[..., Any]) -> None:
    script = Script(page(item("a")), [event("ADDED", item("b", "11")), event("DELETED", item("a", "12"))])
    store, _ = await run(script)
    assert script.asked() == ["list", "10", "12"]
    assert names(store) == ["b"]


async def test_a_list_of_several_pages_is_taken_whole(run: Callable[..., Any]) -> None:
    script = Script(page(item("a"), proceed="more"), page(item("b")))
    store, _ = await run(script)
    assert names(store) == ["a", "b"]
    assert [request.query.get("continue") for request in script.requests[:2]] == [None, "more"]


async def test_a_bookmark_moves_the_point_to_go_on_from(run: Callable[..., Any]) -> None:
    script = Script(page(), [event("BOOKMARK", {"metadata": {"resourceVersion": "99"}})])
    await run(script)
    assert script.asked() == ["list", "10", "99"]


async def test_a_broken_watch_goes_on_and_keeps_what_is_known(run: Callable[..., Any]) -> None:
    script = Script(page(item("a")), [event("ADDED", item("b", "11"))], *[UnreachableError("no route")] * 6)
    store, waits = await run(script)
    assert script.asked() == ["list", "10", *["11"] * 7]
    assert names(store) == ["a", "b"]
    assert waits == sorted(waits)[: len(waits)] or max(waits) <= 10.0
    assert len(waits) == 6


@pytest.mark.parametrize(
    "answer",
    [
        [event("ERROR", {"code": 410, "message": "too old resource version"})],
        RefusedError(410, "gone"),
        [{"type": "ADDED"}],
        [event("NEWS", item("a", "11"))],
        [event("ADDED", {"metadata": {"name": "a"}})],
        [event("DELETED", {"metadata": {"resourceVersion": "11"}})],
        GarbledError("not JSON"),
    ],
    ids=["410 event", "410", "no object", "unknown type", "no version", "nameless delete", "garbled"],
)
async def test_what_makes_no_sense_leads_to_a_new_list(run: Callable[..., Any], answer: Any) -> None:
    script = Script(page(item("a"), item("b")), answer, page(item("b"), version="20"))
    store, waits = await run(script)
    assert script.asked() == ["list", "10", "list", "20"]
    assert names(store) == ["b"], "what went meanwhile is forgotten"
    assert len(waits) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_a_kind_that_cannot_be_listed_stays_unknown(run: Callable[..., Any], status: int) -> None:
    store, _ = await run(Script(RefusedError(status, "no")))
    assert not store.synced


@pytest.mark.parametrize("status", [403, 404])
async def test_an_optional_kind_that_is_not_there_is_empty(run: Callable[..., Any], status: int) -> None:
    store, _ = await run(Script(RefusedError(status, "no")), SERVICE_CIDR_KIND)
    assert store.synced
