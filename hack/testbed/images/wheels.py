"""Collects, before an image build, the wheels that it installs: libraries from uv.lock, pip itself, and Sluice's own.

Libraries are fetched by the hashes of uv.lock for the Python and platform of the images, whatever Python runs here.
"""

import sys
from pathlib import Path

from testbed import commands, tools
from testbed.errors import TestbedError
from testbed.images.recipe import Target, digest

#: pip for the build stage: run straight from its wheel, so that the base need not have it.
PIP = f"pip=={tools.PIP.version}"
PYTHON = "3.13"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class WheelError(TestbedError):
    """Wheels could not be collected."""


def wheels_key(target: Target, lock: bytes) -> str:
    """Key of a target's library wheels."""
    return digest(
        [
            target.name.encode(),
            (target.extra or "").encode(),
            lock,
            PIP.encode(),
            PYTHON.encode(),
            *map(str.encode, PLATFORMS),
        ]
    )


def collect_pip(folder: Path) -> None:
    """Put pip's own wheel into `folder`. Raises TestbedError."""
    _download(folder, tools.PIP.pins, "fetching pip's wheel")


def collect_libraries(folder: Path, *, target: Target, project: Path) -> None:
    """Put the wheels of the target's extra and their requirements.txt into `folder`. Raises TestbedError."""
    requirements = folder / "requirements.txt"
    export = ["--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate"]
    where = [f"--project={project}", f"--extra={target.extra}", f"--output-file={requirements}"]
    _uv("export", *export, *where, shown=f"listing the libraries of {target.name} (uv export)")
    abis = [f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")]
    platforms = [f"--platform={platform}" for platform in (*PLATFORMS, "any")]
    options = [f"--python-version={PYTHON}", *abis, *platforms]
    _download(folder, requirements, f"fetching the libraries of {target.name}", *options)


def build_program(folder: Path, *, snapshot: Path) -> None:
    """Build Sluice's wheel from a copy of its sources into `folder`. Raises TestbedError."""
    _uv("build", "--quiet", "--wheel", f"--out-dir={folder}", str(snapshot), shown="building Sluice's wheel (uv build)")


def _download(folder: Path, requirements: Path, shown: str, *options: str) -> None:
    tools.ensure(tools.PIP)
    fixed = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    argv = [sys.executable, str(tools.PIP.path), "download", *fixed, *options]
    argv += [f"--dest={folder}", f"--requirement={requirements}"]
    commands.run(argv, shown=f"{shown} (pip download)", remedy=tools.REACH, error=WheelError)


def _uv(*words: str, shown: str) -> None:
    tools.ensure(tools.UV)
    argv = [str(tools.UV.path), *words]
    commands.run(argv, shown=shown, env=tools.uv_environment(), remedy=tools.REACH, error=WheelError)
