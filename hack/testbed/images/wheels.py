"""Collects, before an image build, the wheels that it installs: libraries from uv.lock, pip itself, and Sluice's own.

Libraries are fetched by the hashes of uv.lock for the Python and platform of the images, whatever Python runs here.
"""

import subprocess
from pathlib import Path

from testbed.images.recipe import Target, digest

#: pip for the build stage: run straight from its wheel, so that the base need not have it.
PIP = "pip==25.3"
PYTHON = "3.13"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class WheelError(RuntimeError):
    """Wheels could not be collected; the message is the tool's own."""


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
    """Put pip's own wheel into `folder`. Raises WheelError."""
    _run(["uvx", "--from", PIP, "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PIP])


def collect_libraries(folder: Path, *, target: Target, project: Path) -> None:
    """Put the wheels of the target's extra and their requirements.txt into `folder`. Raises WheelError."""
    requirements = folder / "requirements.txt"
    export = ["uv", "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate"]
    _run([*export, "--project", str(project), "--extra", str(target.extra), "--output-file", str(requirements)])
    abis = [f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")]
    platforms = [f"--platform={platform}" for platform in (*PLATFORMS, "any")]
    download = [
        "uvx",
        "--from",
        PIP,
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]
    _run(
        [
            *download,
            f"--python-version={PYTHON}",
            *abis,
            *platforms,
            f"--dest={folder}",
            f"--requirement={requirements}",
        ]
    )


def build_program(folder: Path, *, snapshot: Path) -> None:
    """Build Sluice's wheel from a copy of its sources into `folder`. Raises WheelError."""
    _run(["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder), str(snapshot)])


def _run(argv: list[str]) -> None:
    ran = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if ran.returncode:
        raise WheelError(f"{' '.join(argv[:4])} ended with {ran.returncode}:\n{ran.stdout[-2000:]}")
