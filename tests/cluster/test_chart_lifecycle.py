"""The chart from the first install to the last trace of it, on a cluster of its own.

One story: the tests run in the order in which they stand, each from the state the one before left.
"""

import time
from collections.abc import Iterator

import pytest

from testbed.cluster import ClusterError, ClusterOptions
from testbed.system import CHART, NAMESPACE, RELEASE, System, policy, pool, running, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ADDRESS = "198.18.0.220"
TESTED = "198.18.0.228"
POOL = pool("partners", f"{ADDRESS}-198.18.0.227", gateways={"replicas": 1})
POLICY = policy("default", "billing", "partners", {"app": "billing"})
MADE_BY_THE_CLUSTER = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
KEPT_FOR_A_REINSTALL = {"configmap/sluice-policy-ids", "lease.coordination.k8s.io/sluice-operator"}
NAMESPACED = (
    "deployments,daemonsets,jobs,pods,services,poddisruptionbudgets,networkpolicies,"
    "serviceaccounts,roles,rolebindings,configmaps,leases"
)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """A cluster with the images on its nodes; nothing installed."""
    with running(ClusterOptions(name="chart", nodes=2), say=print) as started:
        yield started


def names(system: System, kinds: str, *where: str) -> set[str]:
    """`kind/name` of each object."""
    return set(system.kubectl("get", kinds, *where, "-o", "name", "--ignore-not-found").split())


def ready_with_its_address(system: System) -> None:
    system.wait_condition("egresspolicy", "billing", "Ready", namespace="default", seconds=60)
    assert system.addresses_of("default", "billing") == [ADDRESS]


def helm_test(system: System, *options: str) -> str:
    return system.helm("test", RELEASE, "--namespace", NAMESPACE, "--timeout", "200s", *options)


def test_one_command_installs_it_and_helm_test_agrees(system: System) -> None:
    system.install()
    assert "Succeeded" in helm_test(system)
    assert names(system, "egressnodes") == {f"egressnode.sluice.dev/{node}" for node in system.cluster.nodes}


def test_a_policy_becomes_ready(system: System) -> None:
    system.apply(POOL, POLICY)
    system.wait_condition("egresspool", "partners", "Ready", seconds=60)
    ready_with_its_address(system)


@pytest.mark.parametrize("outside", [True, False], ids=["a host outside is asked", "nobody is asked"])
def test_helm_test_shows_the_address_that_a_connection_left_with(system: System, *, outside: bool) -> None:
    system.apply(pool("tested", f"{TESTED}-198.18.0.235", gateways={"replicas": 1}, quarantine="0s"))
    system.wait_condition("egresspool", "tested", "Ready", seconds=60)
    url = f"http://{system.outside.address(4)}:8080/whoami" if outside else ""
    system.install("test.pool=tested", f"test.url={url}")
    said = helm_test(system, "--logs")
    assert f"left as {TESTED} port" in said, said
    assert (f"{url} says that it was asked from {TESTED}" in said) is outside
    assert not system.get("egresspolicy", "sluice-test", NAMESPACE)
    system.delete("egresspool", "tested")


def test_an_upgrade_with_other_values_keeps_what_was_assigned(system: System) -> None:
    system.install("agent.podAnnotations.changed=yes", "operator.replicas=1")
    agents = system.get("daemonset", "sluice-agent", NAMESPACE)
    assert agents["spec"]["template"]["metadata"]["annotations"] == {"changed": "yes"}
    assert agents["status"]["updatedNumberScheduled"] == len(system.cluster.nodes)
    assert system.get("deployment", "sluice-operator", NAMESPACE)["spec"]["replicas"] == 1
    assert "Succeeded" in helm_test(system)
    ready_with_its_address(system)


def test_an_uninstall_leaves_what_the_user_made_and_its_addresses(system: System) -> None:
    system.uninstall()
    assert names(system, "egresspools,egresspolicies,egressips", "-A") == {
        "egresspool.sluice.dev/partners",
        "egresspolicy.sluice.dev/billing",
        f"egressip.sluice.dev/{ADDRESS}",
    }


def test_after_an_uninstall_nothing_says_that_it_is_ready(system: System) -> None:
    for kind, name, where in (("egresspool", "partners", None), ("egresspolicy", "billing", "default")):
        found = system.wait_condition(kind, name, "Ready", namespace=where, status="False", seconds=1)
        assert found["reason"] == "Removed"
        assert "Sluice is not installed" in found["message"]


def test_an_uninstall_leaves_nothing_else_in_the_cluster(system: System) -> None:
    expected = MADE_BY_THE_CLUSTER | KEPT_FOR_A_REINSTALL
    wait_for("an empty namespace", lambda: names(system, NAMESPACED, "-n", NAMESPACE) <= expected, seconds=60)
    assert names(system, "egressnodes") == set()
    assert not [name for name in names(system, "clusterroles,clusterrolebindings") if "sluice" in name]


def test_an_uninstall_leaves_nothing_in_the_kernel_of_any_node(system: System) -> None:
    for name in system.cluster.nodes:
        node = system.cluster.host(name)
        assert "sluice" not in node.run(["nft", "list", "tables"]).stdout
        assert "sluice" not in node.run(["ip", "-o", "link"]).stdout
        for family in ("-4", "-6"):
            assert not [
                line
                for line in node.run(["ip", family, "rule"]).stdout.splitlines()
                if line.startswith(("600:", "601:"))
            ]
            assert not node.run(["ip", family, "route", "show", "table", "all", "proto", "101"]).stdout


def test_a_reinstall_gives_every_policy_the_address_it_had(system: System) -> None:
    system.install()
    ready_with_its_address(system)


def test_a_policy_and_its_pool_can_be_deleted_and_leave_nothing_but_an_address_that_rests(system: System) -> None:
    system.delete("egresspolicy", "billing", "default")
    system.delete("egresspool", "partners")
    wait_for("the egress IP rests", lambda: system.get("egressip", ADDRESS)["status"].get("restingSince"), seconds=30)
    wait_for("no pool left", lambda: not names(system, "egresspools"), seconds=30)
    system.delete("egressip", ADDRESS)
    assert not names(system, "egressips")
    wait_for("no gateway left", lambda: not system.get("deployment", "partners-gateway", NAMESPACE), seconds=60)


def test_an_uninstall_whose_image_never_came_fails_soon_and_says_so(system: System) -> None:
    system.uninstall()
    values = ("image.registry=127.0.0.1:1/nowhere", "uninstall.pullSeconds=15")
    sets = [word for value in values for word in ("--set", value)]
    system.helm("install", RELEASE, str(CHART), "--namespace", NAMESPACE, *sets)
    started = time.monotonic()
    with pytest.raises(ClusterError, match="sluice-uninstall-image") as caught:
        system.uninstall()
    print(f"{time.monotonic() - started:.0f} s: {caught.value}")
    assert time.monotonic() - started < 60
    assert system.get("daemonset", "sluice-agent", NAMESPACE), "a failed hook stops the uninstall"


def test_it_is_removed_without_hooks_when_nothing_ever_ran(system: System) -> None:
    system.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--no-hooks", "--wait")
    system.delete("job", "sluice-uninstall-image", NAMESPACE)
    assert not system.get("daemonset", "sluice-agent", NAMESPACE)
