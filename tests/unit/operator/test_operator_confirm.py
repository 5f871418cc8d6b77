"""The uninstall Job looks before it acts, says why it does not, and waits for the right to look."""

from typing import Any

import pytest
from tests.unit.operator.operator_fakes import FakeApi
from tests.unit.operator.test_operator_deletion import made_by, operator

from sluice_operator.shell import confirm, kube
from sluice_operator.shell.kube import Document, Rejected, Resource

NAMESPACE = "sluice-system"


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class ForbiddingApi(FakeApi):
    """Forbids reading until `allowed` (seconds)."""

    def __init__(self, clock: Clock, allowed: float) -> None:
        super().__init__()
        self.clock, self.allowed = clock, allowed
        self.posted: list[Any] = []

    async def get(self, resource: Resource, name: str, *, namespace: str = "") -> Document:
        if self.clock() < self.allowed:
            raise Rejected(f"GET {name}: 403 forbidden")
        return await super().get(resource, name, namespace=namespace)

    async def create(self, resource: Resource, document: Any, *, namespace: str = "") -> Document:
        self.posted.append(document)
        return await super().create(resource, document, namespace=namespace)


async def ask(
    monkeypatch: pytest.MonkeyPatch, manager: str, *, allowed: float = 0.0
) -> tuple[bool, list[str], list[Any]]:
    clock, lines = Clock(), list[str]()
    api = ForbiddingApi(clock, allowed)
    api.put(kube.NAMESPACE, {"metadata": {"name": NAMESPACE}})
    job, deployment = made_by(manager), operator("helm")
    job["metadata"]["namespace"] = deployment["metadata"]["namespace"] = NAMESPACE
    deployment["metadata"]["name"] = confirm.OPERATOR_DEPLOYMENT
    api.put(kube.JOB, {"apiVersion": "batch/v1", "kind": "Job", **job})
    api.put(kube.DEPLOYMENT, deployment)
    monkeypatch.setattr("sluice_operator.shell.confirm.asyncio.sleep", clock.sleep)
    meant = await confirm.meant(api, job="sluice-uninstall", namespace=NAMESPACE, say=lines.append, clock=clock)
    return meant, lines, api.posted


async def test_a_deletion_goes_ahead_and_says_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    meant, lines, posted = await ask(monkeypatch, "helm")
    assert meant
    assert lines == ["Job sluice-uninstall was made by helm, which is deleting its release"]
    assert not posted


async def test_an_applied_job_says_in_its_log_and_in_an_event_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    meant, lines, (event,) = await ask(monkeypatch, "kubectl")
    assert not meant
    assert "nothing was removed" in lines[-1]
    assert "kubectl label namespace sluice-system sluice.dev/confirm-uninstall=true" in lines[-1]
    assert event["note"] == lines[-1][:1024]
    assert event["type"] == "Warning"
    assert event["regarding"]["kind"] == "Job"


async def test_rights_that_come_after_the_job_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    meant, lines, _ = await ask(monkeypatch, "helm", allowed=5)
    assert meant
    assert "403" in lines[0]


async def test_evidence_that_may_not_be_read_counts_against_the_uninstall(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed Job must not fail: a tool that waits for it would be stuck."""
    meant, lines, _ = await ask(monkeypatch, "helm", allowed=3600)
    assert not meant
    assert "nothing was removed: GET sluice-uninstall: 403" in lines[-1]
