"""Whether the uninstall is meant: was its Job made by a tool that is deleting Sluice, or only applied with the rest?

The chart's Job is a hook, which helm, Flux and Argo CD create when they delete and at no other time. Rendered to plain
manifests (`helm template | kubectl apply`, kustomize, any GitOps tool that does not know hooks) it is a Job as any
other: it would run as soon as it is applied, and remove what has just been installed. Who made an object is written in
its `metadata.managedFields`, by the API server and not by the maker's manifest:

    deleting tool             maker (field manager) of the Job   besides
    helm and its libraries    helm, or the program's name        helm has put meta.helm.sh/release-name on the
                                                                 operator's Deployment, which no rendering has
    Flux (HelmRelease)        helm-controller                    the same
    Argo CD, 3.3 and later    argocd-application-controller      runs this hook (PreDelete) only as it deletes

Invariants:
- In doubt the answer is no: an uninstall that did not happen can be asked for again, one that did cut traffic.
- Pure: no I/O; must not import the shell.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sluice_api.names import CONFIRM_UNINSTALL

HOOKS: Final = {"helm.sh/hook": "pre-delete", "argocd.argoproj.io/hook": "PreDelete"}
HELM: Final = frozenset({"helm", "helm-controller"})
ARGO_CD: Final = frozenset({"argocd-application-controller", "argocd-controller"})
"""The first creates PreDelete hooks; the second applies. Neither touches an object that is only a PreDelete hook
except to run it."""
INSTALLED_BY_HELM: Final = "meta.helm.sh/release-name"
APPLIED_BY_KUBECTL: Final = "kubectl.kubernetes.io/last-applied-configuration"
_VERSION: Final = re.compile(r"[_-]v\d.*$|\.exe$")

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether to uninstall, and the evidence in words."""

    meant: bool
    why: str


def judge(*, job: Document | None, operator: Document | None, namespace: Document) -> Judgement:
    """Look at the Job that runs the uninstall, the operator's Deployment and Sluice's namespace (None: not there)."""
    if _confirmation(namespace) == "true":
        return Judgement(True, f"the namespace has {CONFIRM_UNINSTALL}: true")
    if job is None:
        return Judgement(False, "the Job that runs this is not there any more")
    makers = frozenset(_makers(job, "f:spec"))
    made_by = f"Job {job['metadata']['name']} was made by {', '.join(sorted(makers)) or 'nobody it knows of'}"
    annotations = job["metadata"].get("annotations") or {}
    if not any(kind in str(annotations.get(key, "")).split(",") for key, kind in HOOKS.items()):
        return Judgement(False, f"{made_by} and is not a hook that runs before a deletion")
    if APPLIED_BY_KUBECTL in annotations:
        return Judgement(False, f"{made_by} with kubectl apply")
    if makers and makers <= ARGO_CD:
        return Judgement(True, f"{made_by} as its PreDelete hook")
    return _judge_helm(makers, made_by, operator)


def _judge_helm(makers: frozenset[str], made_by: str, operator: Document | None) -> Judgement:
    """Helm's mark on what it installed tells a release from rendered manifests, whatever name an applier takes."""
    installers = HELM
    if operator is not None:
        if INSTALLED_BY_HELM not in (operator["metadata"].get("annotations") or {}):
            return Judgement(False, f"{made_by}, but Sluice was not installed by helm")
        installers |= frozenset(_makers(operator, "f:metadata", "f:annotations", f"f:{INSTALLED_BY_HELM}"))
    if makers and makers <= installers:
        return Judgement(True, f"{made_by}, which is deleting its release")
    return Judgement(False, f"{made_by}, which is not what installed Sluice")


def _makers(document: Document, *field: str) -> Iterator[str]:
    """Field managers that set a field, without the version that some carry in their name (helm_v3, ..._v2.17.0_x5)."""
    for entry in document["metadata"].get("managedFields") or ():
        part: Any = entry.get("fieldsV1") or {}
        for step in field:
            part = part.get(step) if isinstance(part, Mapping) else None
        if part is not None and not entry.get("subresource"):
            yield _VERSION.sub("", str(entry.get("manager", "")))


def _confirmation(namespace: Document) -> str:
    metadata = namespace.get("metadata") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return str(labels.get(CONFIRM_UNINSTALL) or annotations.get(CONFIRM_UNINSTALL) or "").lower()
