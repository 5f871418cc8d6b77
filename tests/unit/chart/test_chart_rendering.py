"""What the chart renders is what Kubernetes takes, for every switch of it."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from sluice_api.names import RESERVED_PREFIX
from sluice_operator.core import gatewaypods

CHART = Path(__file__).parents[3] / "charts" / "sluice"
KUBERNETES_VERSIONS = ["1.34", "1.36"]
NOT_OF_KUBERNETES = {"monitoring.coreos.com/v1"}
#: The API server's own addresses are an EndpointSlice in the namespace default.
ELSEWHERE = {
    "default": {"sluice-agent", "sluice-operator-api-server"},
    "kube-public": {"sluice-operator-cluster-info"},
}
"""Roles to read one object of another namespace: those that say where the API server is."""
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}

DIGEST = "sha256:" + "0" * 64
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "egress", "operator": "Exists"}]}]
        }
    }
}
EVERYTHING_ON = {
    "image": {"registry": "mirror.example/egress", "tag": "1.2.3", "pullPolicy": "Always", "pullSecrets": ["mirror"]},
    "commonLabels": {"cost-centre": "7", "app.kubernetes.io/name": "mine"},
    "logFormat": "json",
    "logLevel": "debug",
    "operator": {
        "replicas": 3,
        "podLabels": {"team": "net", "app.kubernetes.io/name": "mine"},
        "podAnnotations": {"note": "a"},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "affinity": AFFINITY,
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "extraArgs": ["--metrics-host=127.0.0.1"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "serviceAccount": {"annotations": {"note": "c"}},
        "tolerations": [{"key": "control-plane", "operator": "Exists", "effect": "NoSchedule"}],
    },
    "agent": {
        "podLabels": {"team": "net"},
        "podAnnotations": {"note": "b"},
        "affinity": AFFINITY,
        "extraArgs": ["--socket=/run/sluice/agent.sock"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "serviceAccount": {"create": False, "name": "mine"},
        "maxUnavailable": "10%",
        "excludedCIDRs": ["192.0.2.0/24"],
    },
    "gateway": {
        "image": {"repository": "other/proxy", "tag": "9", "digest": DIGEST},
        "priorityClassName": "high",
        "podLabels": {"tier": "edge"},
        "podAnnotations": {"note": "d"},
        "extraArgs": ["--workers=2"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "serviceAccount": {"name": "edge", "annotations": {"note": "e"}},
    },
    "metrics": {
        "serviceMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prom"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prom"}},
    },
}
EVERYTHING_OFF = {
    "crds": {"enabled": False},
    "operator": {"replicas": 1, "nodeSelector": {}, "priorityClassName": ""},
    "agent": {"nodeSelector": {}, "tolerations": []},
    "rbac": {"aggregateToUserRoles": False},
    "networkPolicy": {"enabled": False},
    "uninstall": {"enabled": False},
    "metrics": {"enabled": False},
}
VALUE_SETS = {"defaults": {}, "everything on": EVERYTHING_ON, "everything off": EVERYTHING_OFF}

Render = Callable[..., list[dict[str, Any]]]


def one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def test_helm_lint_has_nothing_to_say(helm: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = helm("lint", "--strict", "--quiet", str(CHART))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_every_object_is_valid_for_kubernetes(render: Render, values: dict[str, Any], version: str) -> None:
    for item in render(values):
        if item["apiVersion"] not in NOT_OF_KUBERNETES:
            kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_no_object_is_rendered_twice_and_each_is_in_the_namespace_of_the_release(
    render: Render, values: dict[str, Any]
) -> None:
    seen = set()
    for item in render(values):
        key = item["kind"], item["metadata"]["name"]
        assert key not in seen
        seen.add(key)
        if item["kind"] not in CLUSTER_SCOPED:
            role = item["kind"] in ("Role", "RoleBinding")
            where = next((place for place, names in ELSEWHERE.items() if role and key[1] in names), "sluice-system")
            assert item["metadata"]["namespace"] == where, key


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_every_object_says_which_release_it_belongs_to(render: Render, values: dict[str, Any]) -> None:
    for item in render(values):
        if item["kind"] != "CustomResourceDefinition":
            labels = item["metadata"]["labels"]
            assert labels["app.kubernetes.io/instance"] == "egress"
            assert labels["app.kubernetes.io/part-of"] == "sluice"


def test_images_have_the_version_of_the_application_unless_told_otherwise(render: Render) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    objects = render()
    operator = one(objects, "Deployment", "sluice-operator")["spec"]["template"]["spec"]["containers"][0]
    agent = one(objects, "DaemonSet", "sluice-agent")["spec"]["template"]["spec"]["containers"][0]
    gateway = {entry["name"]: entry.get("value") for entry in operator["env"]}["SLUICE_GATEWAY_IMAGE"]
    assert [operator["image"], agent["image"], gateway] == [
        f"registry.example/sluice/{name}:{version}" for name in ("operator", "agent", "proxy")
    ]


def test_registry_and_tags_reach_the_image_that_the_operator_gives_to_gateways(render: Render) -> None:
    operator = one(render(EVERYTHING_ON), "Deployment", "sluice-operator")["spec"]["template"]["spec"]
    environment = {entry["name"]: entry.get("value") for entry in operator["containers"][0]["env"]}
    assert operator["containers"][0]["image"] == "mirror.example/egress/sluice/operator:1.2.3"
    assert environment["SLUICE_GATEWAY_IMAGE"] == f"mirror.example/egress/other/proxy:9@{DIGEST}"
    assert operator["imagePullSecrets"] == [{"name": "mirror"}]


def test_selectors_find_the_pods_they_are_meant_for(render: Render) -> None:
    objects = render()
    pods = {
        "sluice-operator": one(objects, "Deployment", "sluice-operator")["spec"]["template"]["metadata"]["labels"],
        "sluice-agent": one(objects, "DaemonSet", "sluice-agent")["spec"]["template"]["metadata"]["labels"],
    }
    selectors = [
        ("sluice-operator", one(objects, "Deployment", "sluice-operator")["spec"]["selector"]["matchLabels"]),
        ("sluice-operator", one(objects, "PodDisruptionBudget", "sluice-operator")["spec"]["selector"]["matchLabels"]),
        ("sluice-operator", one(objects, "NetworkPolicy", "sluice-operator")["spec"]["podSelector"]["matchLabels"]),
        ("sluice-operator", one(objects, "Service", "sluice-operator-metrics")["spec"]["selector"]),
        ("sluice-agent", one(objects, "DaemonSet", "sluice-agent")["spec"]["selector"]["matchLabels"]),
        ("sluice-agent", one(objects, "Service", "sluice-agent-metrics")["spec"]["selector"]),
    ]
    for name, selector in selectors:
        found = {pod for pod, labels in pods.items() if selector.items() <= labels.items()}
        assert found == {name}, selector


def test_a_label_of_the_user_does_not_replace_one_that_selectors_need(render: Render) -> None:
    labels = one(render(EVERYTHING_ON), "Deployment", "sluice-operator")["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "net"
    assert labels["app.kubernetes.io/name"] == "sluice-operator"


def test_two_agents_never_run_on_one_node_during_an_upgrade(render: Render) -> None:
    strategy = one(render(), "DaemonSet", "sluice-agent")["spec"]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def test_the_agent_runs_on_tainted_nodes_too(render: Render) -> None:
    pod = one(render(), "DaemonSet", "sluice-agent")["spec"]["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"


def test_networks_that_are_excluded_are_told_to_the_agent(render: Render) -> None:
    (agent,) = one(render(EVERYTHING_ON), "DaemonSet", "sluice-agent")["spec"]["template"]["spec"]["containers"]
    assert "--exclude=192.0.2.0/24" in agent["args"]


def test_probes_ask_the_ports_the_containers_open(render: Render) -> None:
    objects = render()
    for kind, name, port in (("Deployment", "sluice-operator", 9810), ("DaemonSet", "sluice-agent", 9811)):
        (container,) = one(objects, kind, name)["spec"]["template"]["spec"]["containers"]
        (opened,) = container["ports"]
        assert opened["containerPort"] == port
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": opened["name"]}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": opened["name"]}


def test_an_install_without_a_registry_says_where_images_come_from(
    helm: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    result = helm("template", "egress", str(CHART))
    assert result.returncode != 0
    assert "image.registry is not set" in result.stderr
    assert "make images" in result.stderr


def test_labels_of_the_installer_are_on_everything_and_replace_none_of_ours(render: Render) -> None:
    for item in render(EVERYTHING_ON):
        if item["kind"] != "CustomResourceDefinition":
            labels = item["metadata"]["labels"]
            assert labels["cost-centre"] == "7", item["metadata"]["name"]
            assert labels["app.kubernetes.io/name"] != "mine"


def test_pods_get_what_the_installer_says_of_them(render: Render) -> None:
    objects = render(EVERYTHING_ON)
    deployment = one(objects, "Deployment", "sluice-operator")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    operator, agent = (
        deployment["template"]["spec"],
        one(objects, "DaemonSet", "sluice-agent")["spec"]["template"]["spec"],
    )
    assert operator["affinity"] == agent["affinity"] == AFFINITY
    assert operator["topologySpreadConstraints"][0]["topologyKey"] == "topology.kubernetes.io/zone"
    for pod, argument in ((operator, "--metrics-host=127.0.0.1"), (agent, "--socket=/run/sluice/agent.sock")):
        (container,) = pod["containers"]
        assert {"--log-format=json", "--log-level=debug", argument} <= set(container["args"])
        assert {"name": "TZ", "value": "UTC"} in container["env"]


def test_an_account_made_by_somebody_else_gets_the_rights_and_is_not_made(render: Render) -> None:
    objects = render(EVERYTHING_ON)
    made = {item["metadata"]["name"] for item in objects if item["kind"] == "ServiceAccount"}
    assert "sluice-agent" not in made
    assert one(objects, "DaemonSet", "sluice-agent")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    subjects = [subject for item in objects for subject in item.get("subjects", ())]
    given = {subject["name"] for subject in subjects if subject["kind"] == "ServiceAccount"}
    assert given == {"mine", "sluice-operator", "sluice-uninstall", "sluice-test"}


@pytest.mark.parametrize("program", ["operator", "agent"])
def test_every_right_of_a_program_goes_to_the_account_that_it_runs_as(render: Render, program: str) -> None:
    objects = render({program: {"serviceAccount": {"create": False, "name": "mine"}}})
    subjects = [subject["name"] for item in objects for subject in item.get("subjects", ())]
    assert "mine" in subjects
    assert f"sluice-{program}" not in subjects


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_the_operator_can_read_the_settings_of_gateways(render: Render, values: dict[str, Any]) -> None:
    pods = gatewaypods.read(gateway_settings(render(values)))
    assert pods.service_account == ("edge" if values is EVERYTHING_ON else "sluice-gateway")


def test_what_is_said_of_gateways_reaches_the_operator(render: Render) -> None:
    assert gatewaypods.read(gateway_settings(render(EVERYTHING_ON))) == gatewaypods.GatewayPods(
        pull_policy="Always",
        pull_secrets=("mirror",),
        service_account="edge",
        priority_class="high",
        log_format="json",
        labels={"tier": "edge", "cost-centre": "7", "app.kubernetes.io/name": "mine"},
        annotations={"note": "d"},
        arguments=("--workers=2",),
        environment=({"name": "TZ", "value": "UTC"},),
    )


def gateway_settings(objects: list[dict[str, Any]]) -> str:
    (operator,) = one(objects, "Deployment", "sluice-operator")["spec"]["template"]["spec"]["containers"]
    settings: str = {entry["name"]: entry.get("value") for entry in operator["env"]}["SLUICE_GATEWAY_SETTINGS"]
    return settings


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_no_pool_can_be_named_as_a_service_of_the_chart(render: Render, values: dict[str, Any]) -> None:
    """A pool's Service bears the pool's name; the API server refuses pools whose name begins with the prefix."""
    for item in render(values):
        if item["kind"] in {"Service", "Deployment", "PodDisruptionBudget"}:
            name = item["metadata"]["name"]
            assert name.startswith(RESERVED_PREFIX), name
            assert not name.endswith("-gateway"), name


def test_two_digests_for_one_image_are_refused_by_name(helm: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    tag = f"1.2.3@{DIGEST}"
    values = ["image.registry=registry.example", f"image.tag={tag}", f"agent.image.digest={DIGEST}"]
    result = helm("template", "egress", str(CHART), *(word for value in values for word in ("--set", value)))
    assert result.returncode != 0
    assert f"the tag {tag} of sluice/agent has a digest already" in result.stderr
