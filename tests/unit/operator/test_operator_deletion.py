"""Only a tool that is deleting Sluice makes the uninstall act: what each tool leaves in managedFields, judged."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_operator.core.deletion import judge

Object = dict[str, Any]
HOOK = {"helm.sh/hook": "pre-delete", "helm.sh/hook-weight": "0"}
KUBECTL = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
RELEASE = {"meta.helm.sh/release-name": "sluice", "meta.helm.sh/release-namespace": "sluice-system"}
PLAIN: Object = {"metadata": {"name": "sluice-system"}}


def made_by(manager: str, operation: str = "Update", annotations: Mapping[str, str] = HOOK) -> Object:
    """The Job as the API server has it: made by `manager`, and its status written by the Job controller."""
    fields = {"f:metadata": {"f:annotations": {f"f:{key}": {} for key in annotations}}, "f:spec": {"f:template": {}}}
    status = {"f:status": {"f:ready": {}}}
    entries = [
        {"manager": manager, "operation": operation, "fieldsV1": fields},
        {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status", "fieldsV1": status},
    ]
    return {"metadata": {"name": "sluice-uninstall", "annotations": dict(annotations), "managedFields": entries}}


def operator(manager: str, annotations: Mapping[str, str] = RELEASE) -> Object:
    """The operator's Deployment: installed by `manager`, its replicas scaled by somebody else."""
    document = made_by(manager, annotations=annotations)
    scaled = {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    document["metadata"]["managedFields"].append(scaled)
    return document


@pytest.mark.parametrize(
    ("installer", "deleter", "operation"),
    [
        ("helm", "helm", "Apply"),
        ("helm", "helm", "Update"),
        ("helm-controller", "helm-controller", "Update"),
        ("helm-controller", "helm", "Apply"),
        ("terraform-provider-helm_v2.17.0_x5", "terraform-provider-helm_v3.0.2_x5", "Update"),
        ("fleetagent", "fleetagent", "Update"),
    ],
)
def test_what_installed_a_release_uninstalls_it(installer: str, deleter: str, operation: str) -> None:
    assert judge(job=made_by(deleter, operation), operator=operator(installer), namespace=PLAIN).meant


def test_argo_cd_runs_the_hook_of_what_it_rendered_itself() -> None:
    job, rendered = made_by("argocd-application-controller"), operator("argocd-controller", {})
    assert judge(job=job, operator=rendered, namespace=PLAIN).meant


def test_an_uninstall_is_repeated_after_the_operator_is_gone() -> None:
    assert judge(job=made_by("helm"), operator=None, namespace=PLAIN).meant


@pytest.mark.parametrize("installed", [operator("helm"), operator("kubectl-client-side-apply", KUBECTL), None])
@pytest.mark.parametrize(
    "job",
    [
        made_by("kubectl-client-side-apply", annotations=HOOK | KUBECTL),
        made_by("kubectl", "Apply"),
        made_by("kubectl-create"),
        made_by("kubectl-replace"),
        made_by("kustomize-controller", "Apply"),
        made_by("before-first-apply"),
        made_by("helm", annotations=HOOK | KUBECTL),
        made_by("argocd-controller", annotations={}),
        made_by("helm", annotations={}),
        made_by("helm", annotations={"helm.sh/hook": "post-install"}),
    ],
    ids=lambda job: job["metadata"]["managedFields"][0]["manager"],
)
def test_a_job_that_was_only_applied_removes_nothing(installed: Object | None, job: Object) -> None:
    assert not judge(job=job, operator=installed, namespace=PLAIN).meant


def test_a_name_borrowed_from_helm_is_not_enough_where_helm_installed_nothing() -> None:
    """kubectl apply --server-side --field-manager=helm"""
    judgement = judge(job=made_by("helm", "Apply"), operator=operator("helm", {}), namespace=PLAIN)
    assert not judgement.meant
    assert "not installed by helm" in judgement.why


def test_a_job_that_several_made_is_judged_by_all_of_them() -> None:
    job = made_by("helm")
    job["metadata"]["managedFields"] += made_by("kubectl", "Apply")["metadata"]["managedFields"]
    judgement = judge(job=job, operator=operator("helm"), namespace=PLAIN)
    assert not judgement.meant
    assert "made by helm, kubectl" in judgement.why


@pytest.mark.parametrize("where", ["labels", "annotations"])
@pytest.mark.parametrize(("value", "meant"), [("true", True), ("false", False), ("", False)])
def test_the_namespace_can_confirm_the_uninstall_of_any_tool(where: str, value: str, meant: bool) -> None:
    namespace = {"metadata": {"name": "sluice-system", where: {"sluice.dev/confirm-uninstall": value}}}
    assert judge(job=made_by("kubectl"), operator=None, namespace=namespace).meant is meant
    assert judge(job=None, operator=None, namespace=namespace).meant is meant


_JSON = st.recursive(
    st.none() | st.text(max_size=5), lambda inner: st.dictionaries(st.sampled_from(["f:spec", "f:x"]), inner)
)


@given(st.lists(st.fixed_dictionaries({"manager": st.text(max_size=20), "fieldsV1": _JSON}), max_size=4))
def test_nothing_odd_in_managed_fields_makes_it_act(entries: list[Object]) -> None:
    job: Object = {"metadata": {"name": "j", "annotations": HOOK, "managedFields": entries}}
    known = {"helm", "helm-controller", "argocd-controller", "argocd-application-controller"}
    if not known & {entry["manager"] for entry in entries}:
        assert not judge(job=job, operator=None, namespace=PLAIN).meant
