"""Stores: only forward, whatever the order of events, lists and answers."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.operator_fakes import FakeApi

from sluice_operator.core import project
from sluice_operator.core.snapshot import Namespace, Settings
from sluice_operator.shell.store import Store
from sluice_operator.shell.view import View


def _name(document: Mapping[str, Any]) -> str:
    return str(document["metadata"]["name"])


def _store(wake: Callable[[str], None] = lambda _: None) -> Store[str, Namespace]:
    return Store(
        "namespace", project=project.namespace, key_of=lambda document: document["metadata"]["name"], wake=wake
    )


def _document(name: str, version: int, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version), "labels": labels}}


def test_an_older_version_changes_nothing() -> None:
    store = _store()
    store.put(_document("a", 5, x="new"))
    store.put(_document("a", 4, x="old"))
    assert store.snapshot()["a"].labels == {"x": "new"}


def test_a_deletion_stays_when_an_older_event_comes_late() -> None:
    store = _store()
    store.put(_document("a", 5))
    store.remove(_document("a", 6))
    store.put(_document("a", 5))
    assert not store.snapshot()
    store.put(_document("a", 7))
    assert store.snapshot()


def test_a_list_deletes_what_it_lacks_and_leaves_what_is_newer() -> None:
    store = _store()
    store.put(_document("missed", 5))
    store.put(_document("newer", 9))
    store.replace([_document("listed", 3)], version=8)
    assert store.snapshot().keys() == {"listed", "newer"}


def test_a_list_older_than_a_deletion_does_not_bring_the_object_back() -> None:
    store = _store()
    store.put(_document("a", 5))
    store.remove(_document("a", 9))
    store.replace([_document("a", 5)], version=8)
    assert not store.snapshot()


def test_a_change_that_the_projection_does_not_see_wakes_nobody() -> None:
    woken: list[str] = []
    store = _store(woken.append)
    store.put(_document("a", 5))
    store.put(_document("a", 6) | {"status": {"phase": "Active"}})
    assert woken == ["namespace a"]


@given(st.permutations(range(6)))
def test_every_order_of_arrival_ends_the_same(order: list[int]) -> None:
    history: list[Callable[[Store[str, Namespace]], None]] = [
        lambda store: store.put(_document("a", 1)),
        lambda store: store.put(_document("a", 2, x="1")),
        lambda store: store.remove(_document("a", 3, x="1")),
        lambda store: store.put(_document("a", 4, x="2")),
        lambda store: store.put(_document("b", 5)),
        lambda store: store.remove(_document("b", 6)),
    ]
    store = _store()
    for number in order:
        history[number](store)
    assert store.snapshot() == {"a": Namespace("a", {"x": "2"})}


async def test_there_is_no_snapshot_of_half_the_cluster() -> None:
    view = View(Settings("s", "i"), wake=lambda _: None)
    for entry in view.followed:
        entry.store.replace([], version=1)
    with pytest.raises(RuntimeError, match="not synced"):
        view.snapshot(now="")
    view.gateway_objects.replace([], version=1)
    with pytest.raises(RuntimeError, match="not synced"):
        view.snapshot(now="")
    await view.api_server.read(FakeApi())
    assert view.snapshot(now="").pools == {}
