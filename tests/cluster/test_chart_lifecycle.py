"""The chart from the first install to the last trace of it, on a real cluster of its own.

One cluster, one story: the tests run in the order in which they stand, each from the state the one before left.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import binaries
from testbed.cluster import Cluster, ClusterError, ClusterOptions, open_cluster
from testbed.images.build import build

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CHART = Path(__file__).parents[2] / "charts" / "sluice"
NAMESPACE = "sluice-system"
KINDS = ("egresspools", "egresspolicies", "egressips", "egressnodes")
DEV_IMAGES = ("--set", "image.tag=dev", "--set", "image.pullPolicy=Never")
POOL_AND_POLICY = """
apiVersion: sluice.dev/v1alpha1
kind: EgressPool
metadata: {name: partners}
spec:
  addresses: [198.18.0.200-198.18.0.207]
  gateways: {replicas: 1}
---
apiVersion: sluice.dev/v1alpha1
kind: EgressPolicy
metadata: {name: billing, namespace: default}
spec:
  pool: partners
  podSelector: {matchLabels: {app: billing}}
"""
MADE_BY_THE_CLUSTER = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
KEPT_BY_THE_OPERATOR = {"configmap/sluice-policy-ids", "lease.coordination.k8s.io/sluice-operator"}


class Installation:
    """The cluster under test, and helm and kubectl to look at it with."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        binaries.ensure((binaries.HELM,))
        self._helm = str(binaries.program_path(binaries.HELM, "helm"))

    def helm(self, *arguments: str) -> str:
        """Run helm in Sluice's namespace; fails the test with what helm and the pods say."""
        command = [self._helm, "--kubeconfig", str(self.cluster.kubeconfig), "--namespace", NAMESPACE, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        if result.returncode:
            pods = self.cluster.kubectl("get", "pods", "-A", "-o", "wide", check=False)
            logs = self.cluster.kubectl(
                "-n", NAMESPACE, "logs", "-l", "app.kubernetes.io/part-of=sluice", "--tail=15", "--prefix", check=False
            )
            pytest.fail(f"helm {' '.join(arguments)}:\n{result.stdout}{result.stderr}\n{pods}\n{logs}", pytrace=False)
        return result.stdout

    def get(self, *arguments: str) -> Any:
        """`kubectl get ... -o json`."""
        return json.loads(self.cluster.kubectl("get", *arguments, "-o", "json"))

    def names(self, kinds: str, *arguments: str) -> set[str]:
        """`kind/name` of each object."""
        return set(self.cluster.kubectl("get", kinds, *arguments, "-o", "name", "--ignore-not-found").split())

    def addresses(self) -> list[str]:
        """The egress IPs of the policy; empty while it has none."""
        status: dict[str, Any] = self.get("egresspolicy", "billing").get("status", {})
        return list(status.get("addresses") or [])

    def condition(self, kind: str, name: str, wanted: str) -> str:
        """Status of a condition, or an empty string."""
        conditions = self.get(kind, name).get("status", {}).get("conditions") or []
        return next((str(each["status"]) for each in conditions if each["type"] == wanted), "")


def eventually(what: str, holds: Callable[[], bool], *, seconds: float = 60) -> None:
    """Ask until it holds; fails with `what` when the time is up."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:.0f} s: {what}", pytrace=False)
        time.sleep(0.5)


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """A cluster with the images on its nodes and a namespace that admits privileged pods; nothing installed."""
    cluster = open_cluster(ClusterOptions(name="chart", nodes=2))
    archives = build(targets=("operator", "agent", "proxy"))
    try:
        cluster.up()
        for archive in archives.values():
            cluster.load_image(archive)
        cluster.kubectl("create", "namespace", NAMESPACE)
        cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged")
        yield Installation(cluster)
    finally:
        cluster.down()


def test_one_command_installs_it_and_helm_test_agrees(installation: Installation) -> None:
    installation.helm("install", "sluice", str(CHART), *DEV_IMAGES, "--wait", "--timeout", "120s")
    installation.helm("test", "sluice", "--timeout", "120s")
    nodes = {f"egressnode.sluice.dev/{node}" for node in installation.cluster.nodes}
    assert installation.names("egressnodes") == nodes


def test_a_policy_becomes_ready(installation: Installation) -> None:
    installation.cluster.kubectl("apply", "-f", "-", input=POOL_AND_POLICY)
    eventually("policy Ready", lambda: installation.condition("egresspolicy", "billing", "Ready") == "True")
    assert installation.addresses() == ["198.18.0.200"]


def test_an_upgrade_with_other_values_keeps_what_was_assigned(installation: Installation) -> None:
    installation.helm(
        "upgrade", "sluice", str(CHART), *DEV_IMAGES,
        "--set", "agent.podAnnotations.changed=yes", "--set", "operator.replicas=1",
        "--wait", "--timeout", "180s",
    )  # fmt: skip
    agents = installation.get("daemonset", "sluice-agent", "-n", NAMESPACE)
    assert agents["spec"]["template"]["metadata"]["annotations"] == {"changed": "yes"}
    assert agents["status"]["updatedNumberScheduled"] == len(installation.cluster.nodes)
    assert installation.get("deployment", "sluice-operator", "-n", NAMESPACE)["spec"]["replicas"] == 1
    installation.helm("test", "sluice", "--timeout", "120s")
    assert installation.addresses() == ["198.18.0.200"]
    eventually("policy Ready", lambda: installation.condition("egresspolicy", "billing", "Ready") == "True")


def test_an_uninstall_leaves_the_users_objects_and_nothing_else(installation: Installation) -> None:
    installation.helm("uninstall", "sluice", "--wait", "--timeout", "280s")

    assert installation.names("egresspools,egresspolicies,egressips", "-A") == {
        "egresspool.sluice.dev/partners",
        "egresspolicy.sluice.dev/billing",
        "egressip.sluice.dev/198.18.0.200",
    }
    assert installation.names("egressnodes") == set()
    everything = "deployments,daemonsets,jobs,pods,services,poddisruptionbudgets,serviceaccounts,roles,rolebindings"

    def left() -> set[str]:
        found = installation.names(f"{everything},configmaps,leases,networkpolicies", "-n", NAMESPACE)
        return found - MADE_BY_THE_CLUSTER - KEPT_BY_THE_OPERATOR

    eventually("an empty namespace", lambda: not left(), seconds=40)
    cluster_wide = installation.names("clusterroles,clusterrolebindings")
    assert not [name for name in cluster_wide if "sluice" in name]


def test_an_uninstall_leaves_nothing_in_the_kernel_of_any_node(installation: Installation) -> None:
    for name in installation.cluster.nodes:
        node = installation.cluster.host(name)
        assert "sluice" not in node.run(["nft", "list", "tables"]).stdout
        assert "sluice" not in node.run(["ip", "-o", "link"]).stdout
        for family in ("-4", "-6"):
            assert "7100" not in node.run(["ip", family, "rule"]).stdout
            assert not node.run(["ip", family, "route", "show", "table", "all", "proto", "101"]).stdout


def test_a_reinstall_gives_every_policy_the_address_it_had(installation: Installation) -> None:
    installation.helm("install", "sluice", str(CHART), *DEV_IMAGES, "--wait", "--timeout", "120s")
    eventually("policy Ready", lambda: installation.condition("egresspolicy", "billing", "Ready") == "True")
    assert installation.addresses() == ["198.18.0.200"]


def test_a_pool_and_its_policy_can_be_deleted_and_free_the_address(installation: Installation) -> None:
    installation.cluster.kubectl("delete", "egresspolicy", "billing", "--timeout=60s")
    installation.cluster.kubectl("delete", "egresspool", "partners", "--timeout=60s")
    eventually("no egress IP", lambda: installation.names("egressips") == set())
    with pytest.raises(ClusterError):
        installation.get("egresspool", "partners")
