"""No container of the chart may do more than it must."""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest

from sluice_api.names import AGENT_SOCKET

Render = Callable[..., list[dict[str, Any]]]

ADDED_CAPABILITIES = {"sluice-agent": ["NET_ADMIN", "NET_RAW"]}
RUNS_AS_ROOT = {"sluice-agent"}
ON_THE_HOST_NETWORK = {"sluice-agent"}
HOST_PATHS = {"sluice-agent": {"/run/sluice", "/proc/sys/net"}}


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod spec of everything that runs, hooks and tests included."""
    for item in objects:
        name, spec = item["metadata"]["name"], item.get("spec", {})
        if item["kind"] == "Pod":
            yield name, spec
        elif item["kind"] in {"Deployment", "DaemonSet", "Job"}:
            yield name, spec["template"]["spec"]


def containers(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pod in pods(objects):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield name, container


def test_the_walk_sees_everything_that_runs(render: Render) -> None:
    assert {name for name, _ in pods(render())} == {
        "sluice-operator",
        "sluice-agent",
        "sluice-uninstall-image",
        "sluice-uninstall",
        "sluice-test",
    }


def test_no_container_can_gain_privileges(render: Render) -> None:
    for name, container in containers(render()):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["privileged"] is False, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name


def test_every_capability_is_dropped_but_the_two_of_the_agent(render: Render) -> None:
    for name, container in containers(render()):
        capabilities = container["securityContext"]["capabilities"]
        assert capabilities["drop"] == ["ALL"], name
        assert capabilities.get("add", []) == ADDED_CAPABILITIES.get(name, []), name


def test_only_the_agent_is_root(render: Render) -> None:
    for name, container in containers(render()):
        context = container["securityContext"]
        assert (context["runAsUser"] == 0) is (name in RUNS_AS_ROOT), name
        assert context.get("runAsNonRoot", False) is (name not in RUNS_AS_ROOT), name


def test_no_container_can_write_its_own_files(render: Render) -> None:
    for name, container in containers(render()):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name


def test_only_the_agent_sees_the_host_and_no_more_of_it_than_it_needs(render: Render) -> None:
    for name, pod in pods(render()):
        assert pod.get("hostNetwork", False) is (name in ON_THE_HOST_NETWORK), name
        assert not pod.get("hostPID")
        assert not pod.get("hostIPC")
        paths = {volume["hostPath"]["path"] for volume in pod.get("volumes", []) if "hostPath" in volume}
        assert paths == HOST_PATHS.get(name, set()), name


def test_the_agent_can_make_its_socket_where_proxies_look_for_it(render: Render) -> None:
    (agent,) = [container for name, container in containers(render()) if name == "sluice-agent"]
    mounts = {mount["name"]: mount for mount in agent["volumeMounts"]}
    assert mounts["run"]["mountPath"] == str(PurePosixPath(AGENT_SOCKET).parent)
    assert not mounts["run"].get("readOnly")


def test_the_agent_writes_sysctls_through_the_mount_it_is_told_of(render: Render) -> None:
    (agent,) = [container for name, container in containers(render()) if name == "sluice-agent"]
    (mount,) = [mount for mount in agent["volumeMounts"] if mount["name"] == "sysctl-net"]
    assert f"--sysctl-root={mount['mountPath']}" in agent["args"]
    assert not mount.get("readOnly")


def test_every_container_says_what_it_needs_and_how_much_memory_it_may_take(render: Render) -> None:
    for name, container in containers(render()):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
        assert "memory" in container["resources"]["limits"], name


@pytest.mark.parametrize("registry", ["registry.example", "mirror.example:5000"])
def test_every_image_names_one_build(render: Render, registry: str) -> None:
    for name, container in containers(render({"image": {"registry": registry}})):
        _, _, tag = container["image"].rpartition(":")
        assert tag, name
        assert tag != "latest", name
        assert "/" not in tag, f"{name}: no tag"


def test_each_program_has_a_service_account_of_its_own(render: Render) -> None:
    accounts = [pod["serviceAccountName"] for name, pod in pods(render()) if name != "sluice-uninstall-image"]
    assert len(set(accounts)) == len(accounts)
    made = {item["metadata"]["name"] for item in render() if item["kind"] == "ServiceAccount"}
    # the gateways' account is used by the pods that the operator makes
    assert {*accounts, "sluice-gateway"} == made
