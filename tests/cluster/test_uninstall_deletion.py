"""Who may make the uninstall Job act, on a real API server, which writes down who made what.

There is no controller, so the Job's pod is played by the test: it runs the program with what the pod would be told.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.operator_bed import ROOT, eventually

from testbed.apiserver import ApiServer
from testbed.binaries import HELM, program_path

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMESPACE, RELEASE = "sluice-system", "sluice"
VALUES = ("--set", "crds.enabled=false", "--set", "image.registry=registry.example")
HOOK_SECONDS = "8s"
DONE, REFUSED = "done: ", "nothing was removed: "


class Bed:
    """An API server with the CRDs, and Sluice's chart to install on it in one way or another."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        chart = str(ROOT / "charts" / "sluice")
        self.rendered = self.helm("template", RELEASE, chart, "--namespace", NAMESPACE, *VALUES).stdout
        self.manifests = folder / "manifests.yaml"
        self.manifests.write_text(self.rendered)

    def helm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"KUBECONFIG": str(self.server.kubeconfig), "HELM_CACHE_HOME": str(self.folder)}
        argv = [str(program_path(HELM, "helm")), *arguments]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.server.kubectl(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(self) -> None:
        self.helm("install", RELEASE, str(ROOT / "charts" / "sluice"), "--namespace", NAMESPACE, *VALUES)

    def account(self) -> dict[str, str]:
        """The environment of the Job's pod: its account's token, nothing else."""
        kubeconfig = json.loads(self.server.kubeconfig.read_text())
        token = self.kubectl("-n", NAMESPACE, "create", "token", "sluice-uninstall").strip()
        kubeconfig["users"][0]["user"] = {"token": token}
        path = self.folder / "kubeconfig-of-the-job"
        path.write_text(json.dumps(kubeconfig))
        return os.environ | {"KUBECONFIG": str(path)}

    def run_the_job(self, environment: dict[str, str] | None = None) -> str:
        """What the Job's pod says; it never fails."""
        argv = [sys.executable, "-m", "sluice_operator", "uninstall", "--namespace", NAMESPACE]
        argv += ["--job", "sluice-uninstall", "--timeout", "20"]
        environment = environment or self.account()
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def replicas(self) -> int:
        found = json.loads(self.kubectl("-n", NAMESPACE, "get", "deployment", "sluice-operator", "-o", "json"))
        count: int = found["spec"]["replicas"]
        return count

    def makers(self) -> set[str]:
        job = self.kubectl("-n", NAMESPACE, "get", "job", "sluice-uninstall", "-o", "json", "--show-managed-fields")
        return {entry["manager"] for entry in json.loads(job)["metadata"]["managedFields"]}

    def complete(self, job: str) -> None:
        """What the Job controller writes when a Job's pod has ended well."""
        conditions = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
        times = {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:01Z"}
        self.end(job, {"succeeded": 1, "conditions": conditions, **times})

    def out_of_time(self, job: str) -> None:
        """What the Job controller writes when a Job's deadline has passed."""
        why = {"reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}
        conditions = [{"type": kind, "status": "True", **why} for kind in ("FailureTarget", "Failed")]
        self.end(job, {"failed": 1, "conditions": conditions, "startTime": "2026-01-01T00:00:00Z"})

    def end(self, job: str, status: dict[str, Any]) -> None:
        """Write the status of a Job as soon as it is there."""
        command = ["-n", NAMESPACE, "patch", "job", job, "--subresource=status", "--type=merge"]
        patch = json.dumps({"status": status})
        eventually(lambda: self.server.kubectl(*command, "--patch", patch).returncode == 0)

    def clean(self) -> None:
        self.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--no-hooks", "--ignore-not-found")
        self.kubectl("delete", "-f", str(self.manifests), "--ignore-not-found", "--wait=false")
        self.kubectl("label", "namespace", NAMESPACE, "sluice.dev/confirm-uninstall-")


@pytest.fixture(name="shared", scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with ApiServer() as server:
        bed = Bed(server, tmp_path_factory.mktemp("chart"))
        bed.kubectl("apply", "-f", str(ROOT / "crds"))
        bed.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        bed.kubectl("create", "namespace", NAMESPACE)
        yield bed


@pytest.fixture(name="bed")
def _bed(shared: Bed) -> Iterator[Bed]:
    yield shared
    shared.clean()


def apply(bed: Bed) -> None:
    bed.kubectl("apply", "-f", str(bed.manifests))


def apply_by_the_server(bed: Bed) -> None:
    bed.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(bed.manifests))


def apply_in_the_name_of_helm(bed: Bed) -> None:
    bed.kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", str(bed.manifests))


def apply_at_the_client_in_the_name_of_helm(bed: Bed) -> None:
    bed.kubectl("apply", "--field-manager=helm", "-f", str(bed.manifests))


def kustomize(bed: Bed) -> None:
    customization = {"resources": ["manifests.yaml"], "commonAnnotations": {"team": "net"}}
    (bed.folder / "kustomization.yaml").write_text(yaml.safe_dump(customization))
    bed.kubectl("apply", "-k", str(bed.folder))


def create(bed: Bed) -> None:
    """It refuses what is there, and makes the rest."""
    bed.server.kubectl("create", "-f", str(bed.manifests))


def flux_kustomization(bed: Bed) -> None:
    """kustomize-controller applies by the server under its own name."""
    command = ["apply", "--server-side", "--force-conflicts", "--field-manager=kustomize-controller"]
    bed.kubectl(*command, "-f", str(bed.manifests))


APPLIERS = (
    apply,
    apply_by_the_server,
    apply_in_the_name_of_helm,
    apply_at_the_client_in_the_name_of_helm,
    kustomize,
    create,
    flux_kustomization,
)


@pytest.mark.parametrize("installed", [False, True], ids=["bare", "helm-installed"])
@pytest.mark.parametrize("applier", APPLIERS)
def test_rendered_manifests_remove_nothing(bed: Bed, applier: Callable[[Bed], None], *, installed: bool) -> None:
    if installed:
        bed.install()
    applier(bed)
    said = bed.run_the_job()
    assert REFUSED in said
    assert DONE not in said
    assert bed.replicas() == 2
    events: list[Any] = json.loads(bed.kubectl("-n", NAMESPACE, "get", "events", "-o", "json"))["items"]
    assert any(event["reason"] == "NotUninstalled" for event in events)


def test_helm_install_makes_no_uninstall_job(bed: Bed) -> None:
    bed.install()
    assert bed.server.kubectl("-n", NAMESPACE, "get", "job", "sluice-uninstall").returncode != 0


def test_helm_uninstall_acts_whatever_was_upgraded_and_rolled_back_before(bed: Bed) -> None:
    bed.install()
    chart = str(ROOT / "charts" / "sluice")
    bed.helm("upgrade", RELEASE, chart, "--namespace", NAMESPACE, *VALUES, "--set", "operator.replicas=3")
    bed.helm("rollback", RELEASE, "1", "--namespace", NAMESPACE)
    with ThreadPoolExecutor(1) as pool:
        command = ["uninstall", RELEASE, "--namespace", NAMESPACE, "--timeout", HOOK_SECONDS]
        uninstall = pool.submit(bed.helm, *command, check=False)
        bed.complete("sluice-uninstall-image")
        # No controller runs the other Job, so helm gives up on it and leaves it there.
        assert uninstall.result().returncode != 0
    assert bed.makers() == {"helm"}
    said = bed.run_the_job(os.environ | {"KUBECONFIG": str(bed.server.kubeconfig)})
    assert "made by helm, which is deleting its release" in said
    assert DONE in said
    assert bed.replicas() == 0


def test_helm_names_the_image_when_it_never_came_and_removes_nothing(bed: Bed) -> None:
    bed.install()
    with ThreadPoolExecutor(1) as pool:
        uninstall = pool.submit(bed.helm, "uninstall", RELEASE, "--namespace", NAMESPACE, check=False)
        bed.out_of_time("sluice-uninstall-image")
        failed = uninstall.result()
    print(failed.stderr)
    assert failed.returncode != 0
    assert "sluice-uninstall-image" in failed.stderr
    assert bed.replicas() == 2
    assert bed.server.kubectl("-n", NAMESPACE, "get", "job", "sluice-uninstall").returncode != 0


def test_flux_acts_as_it_deletes_a_release(bed: Bed) -> None:
    """helm-controller is helm's library under its own name."""
    bed.install()
    apply_hooks(bed, "helm-controller")
    assert DONE in bed.run_the_job()


def test_argo_cd_acts_as_it_runs_the_hook(bed: Bed) -> None:
    """It renders with `helm template`, applies all but hooks, and creates a deletion's hooks without naming a manager:
    the API server then takes the first word of the user agent, which is the program's name."""
    without_hooks = [
        document
        for document in yaml.safe_load_all(bed.rendered)
        if document and "helm.sh/hook" not in (document["metadata"].get("annotations") or {})
    ]
    bed.kubectl("apply", "--field-manager=argocd-controller", "-f", "-", stdin=yaml.safe_dump_all(without_hooks))
    apply_hooks(bed, "argocd-application-controller")
    assert DONE in bed.run_the_job()


def apply_hooks(bed: Bed, manager: str) -> None:
    """What a tool creates as it deletes: the hooks, under its own name."""
    hooks = [
        document
        for document in yaml.safe_load_all(bed.rendered)
        if document and (document["metadata"].get("annotations") or {}).get("helm.sh/hook") == "pre-delete"
    ]
    bed.kubectl("create", f"--field-manager={manager}", "-f", "-", stdin=yaml.safe_dump_all(hooks))
    assert bed.makers() == {manager}


def test_an_administrator_can_confirm_it_for_any_tool(bed: Bed) -> None:
    apply(bed)
    bed.kubectl("label", "namespace", NAMESPACE, "sluice.dev/confirm-uninstall=true")
    assert DONE in bed.run_the_job()
    assert bed.replicas() == 0
