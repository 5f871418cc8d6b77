"""The Kubernetes programs, built from Go modules with pinned versions, once per machine.

Each group is a folder of hack/binaries with a go.mod and a go.sum; its programs land in
<cache>/sluice/bin/<group>-<hash of both files>/, so a changed version is another folder and never mixes with the old.
Invariant: a program appears under its name only when it is complete (built aside, then renamed).
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import commands, tools
from testbed.errors import TestbedError
from testbed.tools import cache_root

MODULES = Path(__file__).resolve().parent.parent / "binaries"
STRIP = "-s -w"
_SOURCES = ("GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GOAUTH", "GOINSECURE", "GOVCS")


class BinaryError(TestbedError):
    """A program could not be built."""


@dataclass(frozen=True, slots=True)
class Group:
    """Programs of one Go module: `programs` maps a program to its package."""

    name: str
    programs: Mapping[str, str]
    version_package: str = ""
    version_module: str = ""
    tags: str = ""


KUBERNETES = Group(
    "kubernetes",
    {
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        )
    },
    # without a version the kubelet registers as v0.0.0, which clients and charts refuse
    version_package="k8s.io/component-base/version",
    version_module="k8s.io/kubernetes",
)
ETCD = Group("etcd", {"etcd": "go.etcd.io/etcd/server/v3"})
CONTAINERD = Group(
    "containerd",
    {
        name: f"github.com/containerd/containerd/v2/cmd/{name}"
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    },
    tags="no_btrfs,no_devmapper,no_zfs",
)
HELM = Group("helm", {"helm": "helm.sh/helm/v4/cmd/helm"})
COREDNS = Group("coredns", {"coredns": "github.com/coredns/coredns"})
KUBECTL = Group(
    "kubernetes",
    {"kubectl": KUBERNETES.programs["kubectl"]},
    version_package=KUBERNETES.version_package,
    version_module=KUBERNETES.version_module,
)
KIND = Group("kind", {"kind": "sigs.k8s.io/kind"})
# what the two kinds of cluster need, and what their users do
FOR_KIND = (KUBECTL, HELM, KIND)
GROUPS = (KUBERNETES, ETCD, CONTAINERD, HELM, COREDNS)


def group_key(go_mod: bytes, go_sum: bytes) -> str:
    """What names a build: the pinned versions and the hashes of their sources."""
    return hashlib.sha256(go_mod + go_sum).hexdigest()[:16]


def pinned_version(go_mod: str, module: str) -> str:
    """Version of a required module in a go.mod, e.g. 'v1.36.3'. Raises BinaryError when it is not required."""
    for line in go_mod.splitlines():
        words = line.removeprefix("require").split()
        if len(words) >= 2 and words[0] == module and words[1].startswith("v"):
            return words[1]
    raise BinaryError(
        f"go.mod does not require {module}", f"add it: go get {module}@VERSION in its folder of {MODULES}"
    )


def linker_flags(group: Group, go_mod: str) -> str:
    """The -ldflags of a group: stripped, and with the version where the program reports one."""
    if not group.version_package:
        return STRIP
    version = pinned_version(go_mod, group.version_module)
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join([STRIP, *(f"-X {group.version_package}.{name}={value}" for name, value in values.items())])


def build_command(group: Group, program: str, *, output: Path, go_mod: str) -> list[str]:
    """The `go build` of one program."""
    tags = ["-tags", group.tags] if group.tags else []
    return [
        str(tools.GO.path), "build", "-trimpath", *tags, "-ldflags", linker_flags(group, go_mod), "-o", str(output),
        group.programs[program],
    ]  # fmt: skip


def go_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What `go` is run with: of the caller's own settings of Go only those that say where modules come from."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(("GO", "CGO")) or name in _SOURCES}
    settings = {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOPATH": str(cache_root() / "go"),
        "GOCACHE": str(cache_root() / "go" / "build"),
        "GOTELEMETRY": "off",
    }
    return {**kept, **settings, "PATH": commands.SYSTEM_PATH}


def folder(group: Group) -> Path:
    """Where the programs of a group are, or will be."""
    module = MODULES / group.name
    key = group_key((module / "go.mod").read_bytes(), (module / "go.sum").read_bytes())
    return cache_root() / "bin" / f"{group.name}-{key}"


def program_path(group: Group, program: str) -> Path:
    """Path of a program; `ensure` makes it exist."""
    return folder(group) / program


def missing(groups: Sequence[Group] = GROUPS) -> list[tuple[Group, str]]:
    """What has still to be built, in order."""
    return [(g, p) for g in groups for p in g.programs if not os.access(program_path(g, p), os.X_OK)]


def ensure(groups: Sequence[Group] = GROUPS, *, say: Callable[[str], None] = print) -> None:
    """Build what is missing, with a line for each program. Raises TestbedError."""
    todo = missing(groups)
    if todo:
        tools.ensure(tools.GO, say=say)
    for number, (group, program) in enumerate(todo, 1):
        say(f"building {program} ({number} of {len(todo)}; once, minutes on a small machine)")
        started = time.monotonic()
        _build(group, program)
        say(f"built {program} in {time.monotonic() - started:.0f} s")


def _build(group: Group, program: str) -> None:
    target = program_path(group, program)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{program}.{os.getpid()}")
    go_mod = (MODULES / group.name / "go.mod").read_text()
    try:
        commands.run(
            build_command(group, program, output=aside, go_mod=go_mod),
            shown=f"building {program}",
            cwd=MODULES / group.name,
            env=go_environment(os.environ),
            remedy="see that the Go module proxy is reachable (GOPROXY, SSL_CERT_FILE and https_proxy are honoured)",
            error=BinaryError,
        )
        aside.rename(target)
    finally:
        aside.unlink(missing_ok=True)
