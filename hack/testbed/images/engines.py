"""The two programs that can build a Dockerfile: docker buildx where an engine answers, buildah where none does.

Both build one target of a context folder and write it as an OCI layout folder. Neither knows what the images are.
"""

import resource
import shutil
import tarfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

from testbed import commands
from testbed.errors import TestbedError
from testbed.images.archive import complete_layout

ENGINES = ("docker", "buildah")
REGISTRY_BASE = "python:3.13-slim-trixie"


class EngineError(TestbedError):
    """No engine, or its build failed."""


class Engine(Protocol):
    """Builds images from a context folder."""

    #: Whether the base image comes from a registry (else from a root file system made here).
    reaches_registry: bool

    def build(self, *, target: str, dockerfile: Path, context: Path, base: str, layout: Path) -> None:
        """Build `target` on image `base` into the OCI layout folder `layout`. Raises EngineError."""


class Docker:
    """docker buildx on a working engine."""

    reaches_registry = True

    def build(self, *, target: str, dockerfile: Path, context: Path, base: str, layout: Path) -> None:
        """See Engine."""
        # Through the engine's own store, since its default builder cannot write an OCI layout itself; `docker save`
        # writes one from Docker 25 on.
        name = f"sluice/{target}:dev"
        argv = ["docker", "buildx", "build", "--progress=plain", "--provenance=false", "--load", "--target", target]
        argv += ["--tag", name, "--build-arg", f"BASE={base}", "--file", str(dockerfile), str(context)]
        _run(argv, shown=f"docker buildx build of {target}")
        saved = layout.with_suffix(".saved")
        _run(["docker", "save", "--output", str(saved), name], shown=f"docker save of {target}")
        with tarfile.open(saved) as archive:
            archive.extractall(layout, filter="data")
        saved.unlink()


class Buildah:
    """Debian's buildah, as root, with images in a storage folder of its own: nothing outside `storage` is written."""

    reaches_registry = False

    def __init__(self, storage: Path, policy: Path) -> None:
        """`policy` is the signature policy file: passed, so that no /etc/containers/policy.json is needed."""
        self._storage = storage
        self._policy = ["--signature-policy", str(policy)]

    def build(self, *, target: str, dockerfile: Path, context: Path, base: str, layout: Path) -> None:
        """See Engine."""
        name = f"localhost/sluice/{target}:dev"
        argv = [*self._buildah("bud"), "--layers", "--pull=never", *_limits()]
        argv += ["--target", target, "--tag", name]
        argv += ["--build-arg", f"BASE={base}", "--file", str(dockerfile), str(context)]
        _run(argv, shown=f"buildah bud of {target}", env=self._env())
        # Not buildah's own layouts: those it always compresses, every layer again for every image, which takes longer
        # than the rest of a build, and the nodes would only have to undo it.
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        push = [*self._buildah("push"), "--quiet", "--disable-compression", "--format", "oci", name, f"dir:{blobs}"]
        _run(push, shown=f"buildah push of {target}", env=self._env())
        complete_layout(layout)

    def import_base(self, root_tar: Path, name: str) -> None:
        """Make a root file system available as image `name`, unless it already is. Raises EngineError."""
        inspect = [*self._buildah("inspect", policy=False), "--type", "image", name]
        if commands.run(inspect, check=False, env=self._env(), error=EngineError).returncode:
            dockerfile = root_tar.with_name("Dockerfile")
            dockerfile.write_text(f"FROM scratch\nADD {root_tar.name} /\n")
            argv = [*self._buildah("bud"), "--tag", name, "--file", str(dockerfile), str(root_tar.parent)]
            _run(argv, shown="buildah bud of the images' base", env=self._env())

    def _buildah(self, command: str, *, policy: bool = True) -> list[str]:
        storage = [
            "--storage-driver",
            self._driver,
            "--root",
            str(self._storage / self._driver),
            "--runroot",
            str(self._storage / "run"),
        ]
        return [*commands.CONTAINED, "buildah", *storage, command, *(self._policy if policy else [])]

    @cached_property
    def _driver(self) -> str:
        return _storage_driver(self._storage)

    @staticmethod
    def _env() -> Mapping[str, str]:
        # chroot: a container without namespaces, which works inside containers that may not make any.
        return commands.environment(BUILDAH_ISOLATION="chroot")


def _limits() -> list[str]:
    """The limits of this process for what a build runs: buildah of Debian 13 raises them of its own accord, which is
    denied where the machine itself is a container."""
    hard = {
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "nproc": resource.getrlimit(resource.RLIMIT_NPROC)[1],
    }
    return [f"--ulimit={name}={limit}:{limit}" for name, limit in hard.items() if limit != resource.RLIM_INFINITY]


def choose(engine: str | None, *, storage: Path, policy: Path) -> Engine:
    """The engine called `engine`, or else the one that works here. Raises EngineError."""
    if engine == "docker" or (engine is None and _docker_works()):
        return Docker()
    if engine == "buildah" or (engine is None and shutil.which("buildah", path=commands.SYSTEM_PATH)):
        return Buildah(storage, policy)
    raise EngineError(
        f"no engine to build images with (wanted: {engine or 'docker or buildah'})",
        "start a Docker engine, or on Debian: apt-get install buildah debootstrap",
    )


def _docker_works() -> bool:
    probes = (["docker", "version"], ["docker", "buildx", "version"])
    try:
        return all(commands.run(probe, check=False, seconds=10).returncode == 0 for probe in probes)
    except TestbedError:  # there is none
        return False


def _storage_driver(storage: Path) -> str:
    """overlay where the kernel mounts one over the storage folder, else vfs (copies every layer, works everywhere)."""
    folders = {name: storage / "probe" / name for name in ("lower", "upper", "work", "merged")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={folders['lower']},upperdir={folders['upper']},workdir={folders['work']}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(folders["merged"])]
    probe = commands.run([*commands.CONTAINED, *mount], check=False, error=EngineError)
    shutil.rmtree(storage / "probe")
    return "vfs" if probe.returncode else "overlay"


def _run(argv: list[str], *, shown: str, env: Mapping[str, str] | None = None) -> None:
    remedy = "see what it wrote above; `python -m testbed.images clean` removes what is cached"
    commands.run(argv, shown=shown, env=env, remedy=remedy, error=EngineError)
