"""The gateway objects of a pool: what the API server gets, whether it is valid, and when it is written again."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from sluice_api.timers import GATEWAY_PROGRESS
from sluice_operator.core import gateway, gatewaypods
from sluice_operator.core.project import gateway_object
from sluice_operator.core.snapshot import GatewayObject, GatewaySpec, Pool, Settings

SETTINGS = Settings(namespace="sluice-system", gateway_image="registry.example/proxy:1")
POOL = Pool("partners", "uid-1", 1, "2026", ("198.51.100.0/24",))
FULL = replace(
    POOL,
    gateways=GatewaySpec(
        replicas=3,
        node_selector={"egress": "yes"},
        tolerations=({"key": "egress", "operator": "Exists", "effect": "NoSchedule"},),
        resources={"requests": {"cpu": "0.5", "memory": "64Mi"}},
        proxy_port=8080,
    ),
)


def _by_kind(pool: Pool) -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in gateway.documents(pool, SETTINGS, proxy_port=13128)}


@pytest.mark.parametrize("pool", [POOL, FULL, replace(POOL, gateways=GatewaySpec(proxy_enabled=False))])
def test_every_document_is_valid_kubernetes(pool: Pool) -> None:
    for document in gateway.documents(pool, SETTINGS, proxy_port=13128):
        kubernetes_validate.validate(document, "1.34", strict=True)


def test_the_pod_has_no_privilege_and_reaches_the_agent_by_a_read_only_mount() -> None:
    pod = _by_kind(POOL)["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["hostNetwork"]
    assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 6128,
        "runAsGroup": 6128,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["volumeMounts"] == [{"name": "agent", "mountPath": "/run/sluice", "readOnly": True}]
    assert container["args"] == ["--pool", "partners", "--listen-port", "13128", "--log-format", "json"]


def test_gateways_of_a_pool_never_share_a_node_and_spread_over_zones() -> None:
    pod = _by_kind(POOL)["Deployment"]["spec"]["template"]["spec"]
    required = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [term["topologyKey"] for term in required] == ["kubernetes.io/hostname"]
    assert [entry["topologyKey"] for entry in pod["topologySpreadConstraints"]] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]


def test_what_the_pool_says_is_in_the_pod_and_in_the_service() -> None:
    documents = _by_kind(FULL)
    spec = documents["Deployment"]["spec"]
    assert spec["replicas"] == 3
    assert spec["template"]["spec"]["nodeSelector"] == {"egress": "yes"}
    assert spec["template"]["spec"]["tolerations"][0]["key"] == "egress"
    service = documents["Service"]["spec"]
    assert service["ipFamilyPolicy"] == "PreferDualStack"
    assert service["ports"] == [{"name": "proxy", "port": 8080, "targetPort": 13128, "protocol": "TCP"}]
    assert all(document["metadata"]["ownerReferences"][0]["uid"] == "uid-1" for document in documents.values())


def test_without_a_proxy_there_is_no_service_and_the_pod_is_told() -> None:
    documents = _by_kind(replace(POOL, gateways=GatewaySpec(proxy_enabled=False)))
    assert documents.keys() == {"Deployment", "PodDisruptionBudget"}
    assert documents["Deployment"]["spec"]["template"]["spec"]["containers"][0]["args"][-1] == "--no-proxy"


def _live(document: Mapping[str, Any]) -> GatewayObject:
    """As the API server would show it: with defaults, and quantities in its own words."""
    shown = json.loads(json.dumps(document))
    shown["metadata"] |= {"uid": "x", "generation": 1}
    shown["spec"]["revisionHistoryLimit"] = 10
    container = shown["spec"]["template"]["spec"]["containers"][0]
    container["terminationMessagePath"] = "/dev/termination-log"
    container["resources"] = {"requests": {"cpu": "500m", "memory": "64Mi"}}
    return gateway_object(shown, kind="Deployment")


def test_defaults_and_rewritten_quantities_are_no_difference() -> None:
    document = _by_kind(FULL)["Deployment"]
    assert not gateway.differs(_live(document), document)


@pytest.mark.parametrize(
    "path", [("replicas",), ("template", "spec", "hostNetwork"), ("template", "spec", "containers")]
)
def test_an_edit_by_somebody_else_is_a_difference(path: tuple[str, ...]) -> None:
    document = _by_kind(FULL)["Deployment"]
    live = _live(document)
    target: Any = live.document["spec"]
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = []
    assert gateway.differs(live, document)


def test_a_changed_pool_is_a_difference() -> None:
    changed = replace(FULL, gateways=replace(FULL.gateways, resources={"requests": {"cpu": "1"}}))
    assert gateway.differs(_live(_by_kind(FULL)["Deployment"]), _by_kind(changed)["Deployment"])


def test_proxy_ports_are_unique_and_restored_from_what_runs() -> None:
    old, new = replace(POOL, name="b", created="2025"), replace(POOL, name="a", created="2026")
    running = gateway.documents(new, SETTINGS, proxy_port=13130)[0]
    live = {("Deployment", "a-gateway"): _live(running)}
    assert gateway.proxy_ports([old, new], live) == {"a": 13130, "b": 13128}
    assert gateway.proxy_ports([old, new], {}) == {"b": 13128, "a": 13129}


GIVEN = """{
  "pullPolicy": "Always", "pullSecrets": ["mirror"], "serviceAccount": "edge", "priorityClassName": "high",
  "logFormat": "text", "labels": {"team": "net", "sluice.dev/pool": "other"}, "annotations": {"note": "x"},
  "args": ["--workers=2"], "env": [{"name": "TZ", "value": "UTC"}, {"name": "EMPTY", "value": ""}]
}"""


def _given(pool: Pool = FULL) -> dict[str, dict[str, Any]]:
    settings = replace(SETTINGS, gateway_pods=gatewaypods.read(GIVEN))
    return {document["kind"]: document for document in gateway.documents(pool, settings, proxy_port=13128)}


def test_what_the_installer_says_of_pods_is_true_of_gateways_too() -> None:
    documents = _given()
    for document in documents.values():
        kubernetes_validate.validate(document, "1.34", strict=True)
        assert document["metadata"]["labels"]["team"] == "net"
    template = documents["Deployment"]["spec"]["template"]
    pod, container = template["spec"], template["spec"]["containers"][0]
    assert template["metadata"]["annotations"] == {"note": "x"}
    assert template["metadata"]["labels"]["team"] == "net"
    assert pod["imagePullSecrets"] == [{"name": "mirror"}]
    assert pod["serviceAccountName"] == "edge"
    assert pod["automountServiceAccountToken"] is False
    assert pod["priorityClassName"] == "high"
    assert container["imagePullPolicy"] == "Always"
    assert container["args"][-3:] == ["--log-format", "text", "--workers=2"]
    assert container["env"] == [{"name": "TZ", "value": "UTC"}, {"name": "EMPTY"}]


def test_no_label_of_the_installer_takes_a_gateway_from_its_pool() -> None:
    documents = _given()
    selector = documents["Deployment"]["spec"]["selector"]["matchLabels"]
    assert selector["sluice.dev/pool"] == "partners"
    assert selector.items() <= documents["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    assert documents["Deployment"]["metadata"]["labels"]["sluice.dev/pool"] == "partners"


def test_a_change_of_the_settings_is_a_difference_and_the_same_settings_are_none() -> None:
    before, after = _by_kind(FULL)["Deployment"], _given()["Deployment"]
    assert gateway.differs(_live(before), after)
    assert not gateway.differs(_live(after), after)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"pullPolicy": "Sometimes"}', "pullPolicy is 'Sometimes'"),
        ('{"pullSecret": []}', "pullSecret is"),
        ('{"labels": {"a": 1}}', "labels.a is 1"),
        ('{"env": [{"value": "x"}]}', "env.0.name"),
        ("[]", "the settings is"),
        ("{", "Invalid JSON"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        gatewaypods.read(text)


def test_a_deployment_says_within_minutes_that_its_pods_do_not_become_ready() -> None:
    """The pool repeats what it says; Kubernetes' own deadline is ten minutes."""
    assert _by_kind(POOL)["Deployment"]["spec"]["progressDeadlineSeconds"] == GATEWAY_PROGRESS <= 180
