"""The Kubernetes programs, built from Go modules with pinned versions, once per machine.

Each group is a folder of hack/binaries with a go.mod and a go.sum (and Go files where we choose what a program is made
of); its programs land in <cache>/sluice/bin/<group>-<hash of those files>/, so a changed version is another folder and
never mixes with the old. The programs of a group are built by one `go build`, which compiles what they share once and
links them side by side.
Invariant: a program appears under its name only when it is complete (built aside, then renamed).
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import commands, tools
from testbed.errors import TestbedError
from testbed.tools import cache_root

MODULES = Path(__file__).resolve().parent.parent / "binaries"
STRIP = "-s -w"
# what the compiler would write for debuggers takes a tenth of its time, and the linker drops it
NO_DEBUGGING = "-gcflags=all=-dwarf=false"
_SOURCES = ("GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GOAUTH", "GOINSECURE", "GOVCS")


class BinaryError(TestbedError):
    """A program could not be built."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Programs of one Go module: `programs` maps a program to its package, `seconds` is roughly what building them
    takes on two cores."""

    name: str
    programs: Mapping[str, str]
    seconds: float
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
    seconds=290,
    # without a version the kubelet registers as v0.0.0, which clients and charts refuse
    version_package="k8s.io/component-base/version",
    version_module="k8s.io/kubernetes",
)
ETCD = Group("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}, seconds=25)
CONTAINERD = Group(
    "containerd",
    {
        name: f"github.com/containerd/containerd/v2/cmd/{name}"
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    },
    seconds=50,
    tags="no_btrfs,no_devmapper,no_zfs",
)
HELM = Group("helm", {"helm": "helm.sh/helm/v4/cmd/helm"}, seconds=110)
# our own main package: the plugins that a Corefile of ours names
COREDNS = Group("coredns", {"coredns": "sluice.dev/hack/binaries/coredns"}, seconds=25)
KUBECTL = Group(
    "kubernetes",
    {"kubectl": KUBERNETES.programs["kubectl"]},
    seconds=90,
    version_package=KUBERNETES.version_package,
    version_module=KUBERNETES.version_module,
)
KIND = Group("kind", {"kind": "sigs.k8s.io/kind"}, seconds=20)
# what the two kinds of cluster need, and what their users do
FOR_KIND = (KUBECTL, HELM, KIND)
GROUPS = (KUBERNETES, ETCD, CONTAINERD, HELM, COREDNS)


def group_key(*sources: bytes) -> str:
    """What names a build: the pinned versions, the hashes of their sources, and our own."""
    return hashlib.sha256(b"".join(sources)).hexdigest()[:16]


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


def build_command(group: Group, programs: Sequence[str], *, output: Path, go_mod: str) -> list[str]:
    """The `go build` of some programs of a group into the folder `output`, each called as its package's path ends."""
    tags = ["-tags", group.tags] if group.tags else []
    packages = [group.programs[program] for program in programs]
    return [
        str(tools.GO.path), "build", "-trimpath", NO_DEBUGGING, *tags, "-ldflags", linker_flags(group, go_mod),
        "-o", f"{output}/", *packages,
    ]  # fmt: skip


def built_name(package: str) -> str:
    """What `go build` calls the program of a package: the last element of its path that is no version."""
    words = [word for word in package.split("/") if not re.fullmatch(r"v[0-9]+", word)]
    return words[-1]


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
    sources = [module / "go.mod", module / "go.sum", *sorted(module.glob("*.go"))]
    return cache_root() / "bin" / f"{group.name}-{group_key(*(file.read_bytes() for file in sources))}"


def program_path(group: Group, program: str) -> Path:
    """Path of a program; `ensure` makes it exist."""
    return folder(group) / program


def built(group: Group, program: str) -> str:
    """Path of a program that is there. Raises BinaryError when it was never built."""
    path = program_path(group, program)
    if not os.access(path, os.X_OK):
        raise BinaryError(f"{program} is not built", "build it: make prepare")
    return str(path)


def missing(groups: Sequence[Group] = GROUPS) -> dict[Group, list[str]]:
    """What has still to be built of each group."""
    lacking = {group: [p for p in group.programs if not os.access(program_path(group, p), os.X_OK)] for group in groups}
    return {group: programs for group, programs in lacking.items() if programs}


def ensure(groups: Sequence[Group] = GROUPS, *, say: Callable[[str], None] = print) -> None:
    """Build what is missing, with a line for each group. Raises TestbedError."""
    for group, programs in missing(groups).items():
        say(f"building {', '.join(programs)} (once, about {group.seconds:.0f} s on two cores)")
        build(group, programs)


def build(group: Group, programs: Sequence[str]) -> None:
    """Build some programs of a group. Raises TestbedError."""
    tools.ensure(tools.GO)
    into = folder(group)
    into.mkdir(parents=True, exist_ok=True)
    go_mod = (MODULES / group.name / "go.mod").read_text()
    with tempfile.TemporaryDirectory(prefix=".", dir=into) as aside:
        commands.run(
            build_command(group, programs, output=Path(aside), go_mod=go_mod),
            shown=f"building {', '.join(programs)} (go build)",
            cwd=MODULES / group.name,
            env={**go_environment(os.environ), "GOTMPDIR": aside},
            remedy="see that the Go module proxy is reachable (GOPROXY, SSL_CERT_FILE and https_proxy are honoured)",
            error=BinaryError,
        )
        for program in programs:
            (Path(aside) / built_name(group.programs[program])).rename(into / program)
