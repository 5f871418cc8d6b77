"""What helm runs before it deletes, and when it tests."""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from sluice_api.names import AGENT_SOCKET, CHECK_UID

Render = Callable[..., list[dict[str, Any]]]

HOOK, WEIGHT, POLICY = "helm.sh/hook", "helm.sh/hook-weight", "helm.sh/hook-delete-policy"


def hooks(objects: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [item for item in objects if item["metadata"].get("annotations", {}).get(HOOK) == event]


def clean_up(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (job,) = [
        item
        for item in hooks(objects, "pre-delete")
        if (item["kind"], item["metadata"]["name"]) == ("Job", "sluice-uninstall")
    ]
    return job


def test_an_uninstall_first_cleans_the_nodes_and_a_failure_stops_it(render: Render) -> None:
    job = clean_up(render())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["uninstall"]
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_clean_up_knows_the_job_it_runs_in_by_its_real_name(render: Render) -> None:
    """A renamed Job (kustomize's namePrefix) cannot read about itself, and so does nothing."""
    job = clean_up(render())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    sources = {entry["name"]: entry.get("valueFrom", {}).get("fieldRef", {}) for entry in container["env"]}
    assert sources["SLUICE_JOB"] == {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}


def test_the_clean_up_is_not_waited_for_longer_than_helm_waits(render: Render) -> None:
    job = clean_up(render())
    assert job["spec"]["activeDeadlineSeconds"] < 300


def test_an_image_that_never_comes_is_found_out_soon_by_a_job_that_does_nothing_else(render: Render) -> None:
    objects = render()
    (job,) = [item for item in hooks(objects, "pre-delete") if item["metadata"]["name"] == "sluice-uninstall-image"]
    pod, other = job["spec"]["template"]["spec"], clean_up(objects)["spec"]["template"]["spec"]
    assert job["spec"]["activeDeadlineSeconds"] == 60
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["args"] == ["--version"]
    for key in ("nodeSelector", "tolerations"):
        assert pod[key] == other[key]
    assert pod["containers"][0]["image"] == other["containers"][0]["image"]


def test_helm_prints_the_names_of_nodes_that_were_not_cleaned(render: Render) -> None:
    assert clean_up(render())["metadata"]["annotations"]["helm.sh/hook-output-log-policy"] == "hook-failed"


def test_a_failed_clean_up_leaves_its_log(render: Render) -> None:
    for item in hooks(render(), "pre-delete"):
        assert "hook-failed" not in item["metadata"]["annotations"][POLICY]


def test_what_hooks_need_is_made_before_them_and_goes_with_them(render: Render) -> None:
    for event in ("pre-delete", "test"):
        for item in hooks(render(), event):
            annotations = item["metadata"]["annotations"]
            weight = {"Job": 0, "Pod": 0}.get(item["kind"], -10)
            if item["metadata"]["name"] == "sluice-uninstall-image":
                weight = -5
            assert int(annotations[WEIGHT]) == weight, item["metadata"]["name"]
            assert set(annotations[POLICY].split(",")) == {"before-hook-creation", "hook-succeeded"}


def test_the_clean_up_can_be_left_out(render: Render) -> None:
    assert hooks(render({"uninstall": {"enabled": False}}), "pre-delete") == []


def test_helm_test_checks_the_agents(render: Render) -> None:
    (pod,) = [item for item in hooks(render(), "test") if item["kind"] == "Pod"]
    (container,) = pod["spec"]["containers"]
    compile(container["args"][0], "check.py", "exec")
    assert "daemonsets/sluice-agent" in container["args"][0]


def connection(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    (pod,) = [item for item in hooks(objects, "test") if item["kind"] == "Pod"]
    return [container for container in pod["spec"]["containers"] if container["name"] == "connection"]


def test_helm_test_opens_a_connection_only_for_a_pool_that_was_named(render: Render) -> None:
    assert connection(render()) == []
    (container,) = connection(render({"test": {"pool": "partners", "url": "http://203.0.113.10/"}}))
    compile(container["args"][0], "connection.py", "exec")
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert (values["SLUICE_TEST_POOL"], values["SLUICE_TEST_URL"]) == ("partners", "http://203.0.113.10/")
    assert container["securityContext"]["runAsUser"] == CHECK_UID, "the agent knows the check by its user"
    (mount,) = container["volumeMounts"]
    assert mount["mountPath"] == str(PurePosixPath(AGENT_SOCKET).parent)
    assert mount["readOnly"]
