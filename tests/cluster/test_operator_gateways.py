"""A pool's gateway objects on a real API server: what refuses them is said, what happens to them is undone."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.cluster.operator_bed import GROUP, NAMESPACE, OperatorBed, condition, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
WORDS = "three gateways are one too many here"


def _said(bed: OperatorBed, kind: str, pool: str = "p") -> tuple[str, str, str]:
    found = bed.items("egresspools")[pool]["status"]["conditions"]
    entry = next(entry for entry in found if entry["type"] == kind)
    return entry["status"], entry["reason"], entry["message"]


def _undone(holds: Callable[[], Any]) -> float:
    """Seconds until it holds again, looking every 20 ms."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < 10, "not repaired"
        time.sleep(0.02)
    return time.monotonic() - started


def test_a_gateway_object_that_is_deleted_or_edited_is_repaired_within_a_second(bed: OperatorBed) -> None:
    bed.operator("a")
    bed.pool("p", ["198.51.100.16/29"])
    deployment = eventually(lambda: _find(bed, DEPLOYMENTS, "p-gateway"))
    eventually(lambda: condition(bed.items("egresspools")["p"], "Ready")[1] == "NoGatewayReady")
    time.sleep(2)  # the namespace's watches come up with the operator; what is measured is one that runs
    bed.call("DELETE", f"{DEPLOYMENTS}/p-gateway")
    first = deployment["metadata"]["uid"]
    took = {
        "deleted Deployment": _undone(
            lambda: (_find(bed, DEPLOYMENTS, "p-gateway") or deployment)["metadata"]["uid"] != first
        )
    }
    bed.merge(f"{DEPLOYMENTS}/p-gateway", {"spec": {"replicas": 0}})
    took["scaled Deployment"] = _undone(lambda: bed.call("GET", f"{DEPLOYMENTS}/p-gateway")["spec"]["replicas"] == 2)
    bed.call("DELETE", f"{SERVICES}/p")
    took["deleted Service"] = _undone(lambda: _find(bed, SERVICES, "p"))
    print(", ".join(f"{what}: {1000 * seconds:.0f} ms" for what, seconds in took.items()))
    assert max(took.values()) < 1.0, took


def test_what_the_api_server_refuses_of_a_pool_stands_there_until_it_is_mended(bed: OperatorBed) -> None:
    """By an admission policy, as a platform team would write one: the schema of a pool cannot know of it."""
    _deny_three(bed)
    try:
        bed.operator("a")
        bed.pool("p", ["198.51.100.16/29"], gateways={"replicas": 3})
        eventually(lambda: _said(bed, "Stalled")[:2] == ("True", "GatewayRejected"))
        assert _said(bed, "Ready")[:2] == ("False", "GatewayRejected")
        assert _said(bed, "Degraded")[:2] == ("True", "GatewayRejected")
        for kind in ("Ready", "Degraded", "Stalled"):
            message = _said(bed, kind)[2]
            assert "Deployment p-gateway" in message
            assert WORDS in message
            assert "/apis/" not in message
        assert _find(bed, DEPLOYMENTS, "p-gateway") is None
        print(bed.kubectl("wait", "egresspool/p", "--for=condition=Stalled", "--timeout=5s"))
        bed.merge(f"{GROUP}/egresspools/p", {"spec": {"gateways": {"replicas": 2}}})
        eventually(lambda: _said(bed, "Stalled")[:2] == ("False", "AsExpected"))
        assert _find(bed, DEPLOYMENTS, "p-gateway") is not None
    finally:
        bed.call("DELETE", f"{ADMISSION}/validatingadmissionpolicybindings/two-gateways")
        bed.call("DELETE", f"{ADMISSION}/validatingadmissionpolicies/two-gateways")


def test_why_a_deployment_gets_no_pods_is_said_at_the_pool(bed: OperatorBed) -> None:
    bed.operator("a")
    bed.pool("p", ["198.51.100.16/29"])
    eventually(lambda: _find(bed, DEPLOYMENTS, "p-gateway"))
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"}
    times = {"lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    bed.merge(f"{DEPLOYMENTS}/p-gateway/status", {"status": {"conditions": [failure | times]}})
    eventually(lambda: "FailedCreate: exceeded quota: small" in _said(bed, "Ready")[2])


def _find(bed: OperatorBed, collection: str, name: str) -> dict[str, Any] | None:
    answer = bed.server.request("GET", f"{collection}/{name}")
    return answer.body if answer.status == 200 else None


def _deny_three(bed: OperatorBed) -> None:
    """An admission policy that refuses Deployments of more than two replicas; returns when it is in force."""
    deployments = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [deployments | {"resources": ["deployments"]}]},
        "validations": [{"expression": "object.spec.replicas < 3", "message": WORDS}],
    }
    bed.call("POST", f"{ADMISSION}/validatingadmissionpolicies", {"metadata": {"name": "two-gateways"}, "spec": spec})
    bed.call(
        "POST",
        f"{ADMISSION}/validatingadmissionpolicybindings",
        {"metadata": {"name": "two-gateways"}, "spec": {"policyName": "two-gateways", "validationActions": ["Deny"]}},
    )
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    three = {
        "metadata": {"name": "three"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    eventually(lambda: WORDS in bed.server.request("POST", f"{DEPLOYMENTS}?dryRun=All", three).message)
