"""The store knows what the API server has, and a document that makes no sense takes nothing from it."""

from typing import Any

import pytest

from sluice_node.agent.store import Store
from sluice_node.core.objects import Key, ServiceCIDR, service_cidr


def document(name: str, cidr: Any = "10.0.0.0/24") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"cidrs": [cidr]}}


class Recorder:
    def __init__(self) -> None:
        self.changes: list[str] = []
        self.gone: list[str] = []
        self.store: Store[ServiceCIDR] = Store(
            "ServiceCIDR", service_cidr, self.changes.append, lambda item: self.gone.append(str(item.key))
        )

    def names(self) -> list[str]:
        return [item.key.name for item in self.store.values()]


@pytest.fixture(name="it")
def _it() -> Recorder:
    it = Recorder()
    it.store.replace(it.store.load([document("a"), document("b")]))
    it.changes.clear()
    return it


def test_a_store_is_synced_by_its_first_list_even_an_empty_one() -> None:
    it = Recorder()
    assert not it.store.synced
    it.store.put(document("a"))
    assert not it.store.synced
    it.store.replace({})
    assert it.store.synced
    assert it.changes[-1] == "ServiceCIDR: 0 found"


def test_what_a_new_list_lacks_is_forgotten(it: Recorder) -> None:
    it.store.replace(it.store.load([document("b")]))
    assert (it.names(), it.gone, len(it.changes)) == (["b"], ["a"], 1)


def test_an_event_that_changes_no_projection_is_no_change(it: Recorder) -> None:
    it.store.put(document("a") | {"status": {"noise": 1}})
    it.store.replace(it.store.load([document("a"), document("b")]))
    it.store.delete(document("never-was"))
    assert it.changes == []


def test_changes_are_told_by_name(it: Recorder) -> None:
    it.store.put(document("c"))
    it.store.put(document("c", "10.9.0.0/24"))
    it.store.delete(document("c"))
    assert it.changes == ["ServiceCIDR c appeared", "ServiceCIDR c changed", "ServiceCIDR c is gone"]


def test_a_malformed_object_changes_nothing_and_is_logged_once(it: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    before = it.store.values()
    for _ in range(3):
        it.store.put(document("a", "nonsense"))
        it.store.put(document("new", "nonsense"))
    it.store.replace(it.store.load([document("a", "nonsense"), document("b"), document("new", "nonsense")]))
    assert it.store.values() == before
    assert it.changes == []
    assert [record.args[1].name for record in caplog.records] == ["a", "new"]  # type: ignore[index,union-attr]


def test_an_object_that_is_well_again_is_taken(it: Recorder) -> None:
    it.store.put(document("a", "nonsense"))
    it.store.put(document("a", "10.9.0.0/24"))
    item = it.store.get(Key("", "a"))
    assert item is not None
    assert str(item.cidrs[0]) == "10.9.0.0/24"
