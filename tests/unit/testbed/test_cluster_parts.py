"""The small parts of the local cluster: certificates, image archives, processes, build commands, state, faults."""

import base64
import json
import os
import re
import tarfile
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from testbed import binaries, prerequisites
from testbed.cluster import ClusterError, ClusterOptions, chosen_backend
from testbed.local import dns, network, oci, pki
from testbed.local.api import is_ready
from testbed.local.limits import shortage
from testbed.local.plan import Plan
from testbed.local.process import Cgroup, Process, parse_status, run, wait_until
from testbed.local.state import State

PLAN = Plan(ClusterOptions(nodes=1))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    pki.write(folder, PLAN)
    return folder


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())


def test_every_certificate_is_signed_by_the_clusters_authority(certificates: Path) -> None:
    authority = certificate(certificates, "ca")
    for subject in pki.subjects(PLAN):
        certificate(certificates, subject.file).verify_directly_issued_by(authority)


def test_a_kubelet_is_the_node_user_that_the_node_authorizer_expects(certificates: Path) -> None:
    name = certificate(certificates, "kubelet-n1").subject.rfc4514_string()
    assert name == "CN=system:node:n1,O=system:nodes"


def test_the_api_server_is_valid_where_nodes_pods_and_the_machine_reach_it(certificates: Path) -> None:
    extension = certificate(certificates, "apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName)
    served = extension.value.get_values_for_type(x509.IPAddress)
    wanted = ("198.18.0.10", "fd00:18::10", "169.254.77.2", "10.96.0.1", "fd00:10:96::1")
    assert set(map(ip_address, wanted)) <= set(served)
    assert "kubernetes.default.svc" in extension.value.get_values_for_type(x509.DNSName)


def test_a_kubeconfig_needs_no_other_file_and_holds_the_key_of_its_user(certificates: Path) -> None:
    document = json.loads(pki.kubeconfig(certificates, "admin", "https://198.18.0.10:6443"))
    user = document["users"][0]["user"]
    assert base64.b64decode(user["client-key-data"]) == (certificates / "admin.key").read_bytes()
    assert "certificate-authority" not in document["clusters"][0]["cluster"]


def test_an_authority_may_sign_and_others_may_not(certificates: Path) -> None:
    constraints = certificate(certificates, "ca").extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.value.ca
    assert isinstance(certificate(certificates, "ca").public_key(), ec.EllipticCurvePublicKey)
    with pytest.raises(x509.ExtensionNotFound):
        certificate(certificates, "admin").extensions.get_extension_for_class(x509.BasicConstraints)


def test_an_archive_holds_the_program_under_the_image_name_and_every_blob_by_its_hash(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    target = tmp_path / "image.tar"
    oci.write_archive(target, "docker.io/x/y:dev", files={"/bin/y": program}, entrypoint=["/bin/y"])
    with tarfile.open(target) as tar:
        blobs = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    described = json.loads(blobs["index.json"])["manifests"][0]
    assert described["annotations"]["io.containerd.image.name"] == "docker.io/x/y:dev"
    manifest = json.loads(blobs["blobs/sha256/" + described["digest"].removeprefix("sha256:")])
    layer = blobs["blobs/sha256/" + manifest["layers"][0]["digest"].removeprefix("sha256:")]
    assert b"\x7fELF" in layer
    assert len(layer) == manifest["layers"][0]["size"]
    assert not list(tmp_path.glob("*.partial"))


STATUS = "Name:\tkubelet\nState:\tS (sleeping)\nPid:\t700\nNSpid:\t700\t71\n"


def test_a_process_of_a_node_is_known_by_its_name_and_its_pid_inside() -> None:
    assert parse_status(700, STATUS) == Process(700, "kubelet", 1, 71)


def test_a_process_that_has_ended_is_none() -> None:
    assert parse_status(700, STATUS.replace("S (sleeping)", "Z (zombie)")) is None


def test_joining_a_cgroup_keeps_every_argument_as_it_is() -> None:
    argv = ["printf", "%s", "a 'b' $HOME \"c\""]
    assert Cgroup("x/y").joining(argv)[-3:] == argv


def test_a_cgroup_that_is_not_there_has_no_process_and_is_removed_without_error() -> None:
    cgroup = Cgroup(f"sluice-testbed-missing-{os.getpid()}/x")
    assert (cgroup.exists(), cgroup.processes(), cgroup.frozen(), cgroup.children()) == (False, [], False, [])
    cgroup.kill()
    cgroup.remove()


def test_a_wait_that_fails_names_what_and_the_log() -> None:
    with pytest.raises(ClusterError, match=r"waited 0 s for the moon: see /log"):
        wait_until(lambda: False, seconds=0, what="the moon", log=Path("/log"))


def test_a_failing_program_is_an_error_with_its_output_and_the_command_that_was_meant() -> None:
    with pytest.raises(ClusterError, match=r"^meant 'to be' ended with status 3\nwhy$"):
        run(["sh", "-c", "echo why >&2; exit 3"], shown=["meant", "to be"])
    assert run(["sh", "-c", "exit 3"], check=False).returncode == 3


GO_MOD = "module x\n\nrequire (\n\tk8s.io/api v0.36.3\n\tk8s.io/kubernetes v1.36.3\n)\n"


def test_kubernetes_is_built_with_the_version_it_is_pinned_to() -> None:
    argv = binaries.build_command(binaries.KUBERNETES, ["kubelet", "kubectl"], output=Path("/o"), go_mod=GO_MOD)
    flags = argv[argv.index("-ldflags") + 1]
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in flags
    assert "gitMajor=1" in flags
    assert "gitMinor=36" in flags
    assert argv[-2:] == ["k8s.io/kubernetes/cmd/kubelet", "k8s.io/kubernetes/cmd/kubectl"]
    assert argv[argv.index("-o") + 1] == "/o/"


def test_containerd_is_built_without_the_file_systems_it_does_not_need() -> None:
    argv = binaries.build_command(binaries.CONTAINERD, ["ctr"], output=Path("/o"), go_mod=GO_MOD)
    assert argv[argv.index("-tags") + 1] == "no_btrfs,no_devmapper,no_zfs"


def test_a_module_that_is_not_pinned_is_an_error() -> None:
    with pytest.raises(binaries.BinaryError, match=r"does not require k8s\.io/none"):
        binaries.pinned_version(GO_MOD, "k8s.io/none")


def test_another_version_or_another_hash_is_another_build() -> None:
    assert len({binaries.group_key(b"a", b"b"), binaries.group_key(b"a", b"c"), binaries.group_key(b"b", b"b")}) == 3


def test_every_group_has_pinned_modules_in_the_tree() -> None:
    for group in (*binaries.GROUPS, *binaries.FOR_KIND):
        module = (binaries.MODULES / group.name / "go.mod").read_text()
        for package in group.programs.values():
            ours = f"module {package}\n"
            assert f"tool {package}\n" in module or f"\t{package}\n" in module or ours in module, package


@pytest.mark.parametrize(
    ("package", "program"),
    [
        ("go.etcd.io/etcd/server/v3", "server"),
        ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
        ("sigs.k8s.io/kind", "kind"),
    ],
)
def test_what_go_calls_a_program_is_the_last_word_that_is_no_version(package: str, program: str) -> None:
    assert binaries.built_name(package) == program


def test_coredns_has_the_plugins_that_its_configuration_names() -> None:
    imported = set(re.findall(r"coredns/plugin/(\w+)", (binaries.MODULES / "coredns" / "main.go").read_text()))
    lines = dns.corefile(Plan(ClusterOptions())).splitlines()
    named = {line.split()[0] for line in lines if line.startswith("    ") and not line.startswith("     ")} - {"}"}
    assert named == imported


def test_without_a_package_manager_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(prerequisites, "APT_GET", tmp_path / "apt-get")
    absent = (prerequisites.Package("thing", "/nowhere/thing"), prerequisites.Package("shell", "/bin/sh"))
    with pytest.raises(prerequisites.PrerequisiteError, match=r"by Debian's names: thing: install these"):
        prerequisites.ensure(absent, say=lambda _: None)


def test_what_a_cluster_was_started_with_is_read_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    plan = Plan(ClusterOptions(name="a", nodes=2, cni="bridge"), 7)
    assert State("a").load() is None
    State("a").save(plan)
    assert State("a").load() == plan


def test_an_unknown_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_TESTBED_BACKEND", "vmware")
    with pytest.raises(ClusterError, match="use 'kind' or 'local'"):
        chosen_backend()


def test_a_partition_is_both_ways_and_healing_names_the_same_pair() -> None:
    pair = '"n1" . "n2", "n2" . "n1"'
    assert pair in network.partition_rules("n1", "n2")
    assert pair in network.heal_rules("n1", "n2")


def node(status: str, beat: str) -> dict[str, object]:
    return {"status": {"conditions": [{"type": "Ready", "status": status, "lastHeartbeatTime": beat}]}}


def test_a_node_is_ready_only_by_a_heartbeat_later_than_asked_for() -> None:
    beat = "1970-01-01T00:01:40Z"
    assert is_ready(node("True", beat), after=100)
    assert not is_ready(node("True", beat), after=101)
    assert not is_ready(node("False", beat))
    assert not is_ready({"status": {}})


def test_a_cluster_that_the_kernel_would_refuse_instances_to_is_seen_before_it_starts() -> None:
    assert shortage(nodes=3, allowed=128, used=92) == 0
    assert shortage(nodes=3, allowed=128, used=93) > 0


def required(group: binaries.Group) -> dict[str, str]:
    words = re.findall(
        r"^\s*(?:require )?(\S+\.\S+/\S+) (v\S+)", (binaries.MODULES / group.name / "go.mod").read_text(), re.M
    )
    return dict(words)


def test_helm_and_coredns_share_versions_so_that_what_both_need_is_compiled_once() -> None:
    helm, coredns = required(binaries.HELM), required(binaries.COREDNS)
    shared = helm.keys() & coredns.keys()
    assert "k8s.io/client-go" in shared
    assert {name: helm[name] for name in shared} == {name: coredns[name] for name in shared}
