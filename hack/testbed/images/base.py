"""The base image where no registry is reached: a trimmed Debian 13 with Python, made by debootstrap.

Makes files only: the root file system as a tar archive, and for each target the .deb files of its packages with what
they depend on beyond the base, so that the image build itself needs no network. Needs root (debootstrap does).

Invariant: debootstrap's mounts live in a mount namespace of their own, so that an interrupted run leaves none behind.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from testbed import commands
from testbed.errors import TestbedError
from testbed.images.progress import Report
from testbed.images.recipe import digest, digest_files

SUITE = "trixie"

#: Paths of the root file system that no container needs: what dpkg.cfg keeps out of later installations, lists, caches,
#: logs, and what describes the machine that the root was made on.
TRIMMED = (
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "usr/share/bug",
    "var/lib/apt/lists",
    "var/cache",
    "var/log",
    "etc/resolv.conf",
    "etc/hostname",
    "etc/machine-id",
    "dev",
)


class BaseError(TestbedError):
    """The base could not be made."""


def base_key(recipe: Mapping[str, bytes]) -> str:
    """Key of the base: the Debian suite, what is trimmed, and hack/images/packages."""
    packages = {path: data for path, data in recipe.items() if path.startswith("packages/")}
    return digest([SUITE.encode(), "\n".join(TRIMMED).encode(), digest_files(packages).encode()])


def make_base(folder: Path, *, packages: Path, targets: tuple[str, ...], report: Report) -> None:
    """Fill `folder` with root.tar and <target>/*.deb for each of `targets`; `packages` is hack/images/packages.

    Raises BaseError.
    """
    root = folder / "root"
    names = (packages / "base").read_text().split()
    report(f"base: Debian {SUITE} with {' '.join(names)} (about 45 s)")
    _run(["debootstrap", "--variant=minbase", f"--include={','.join(names)}", SUITE, str(root)], "debootstrap")
    shutil.copy(packages / "dpkg.cfg", root / "etc/dpkg/dpkg.cfg.d/trimmed")
    report("base: fetching the targets' Debian packages")
    _run(["chroot", str(root), "apt-get", "update"], "apt-get update")
    for target in targets:
        _download(root, folder / target, (packages / target).read_text().split())
    report("base: trimming and packing")
    _trim(root)
    _run(
        [
            "tar",
            "--create",
            "--numeric-owner",
            "--sort=name",
            f"--file={folder / 'root.tar'}",
            f"--directory={root}",
            ".",
        ],
        "tar",
    )
    shutil.rmtree(root)


def _download(root: Path, into: Path, names: list[str]) -> None:
    """Fetch the .deb files of `names` and of what they depend on that `root` lacks."""
    archives = root / "debs"
    (archives / "partial").mkdir(parents=True)
    apt = ["apt-get", "install", "--yes", "--no-install-recommends", "--download-only"]
    options = ["--option", "Dir::Cache::archives=/debs", "--option", "APT::Sandbox::User=root"]
    _run(["chroot", str(root), *apt, *options, *names], "apt-get download")
    into.mkdir()
    for archive in archives.glob("*.deb"):
        archive.rename(into / archive.name)
    shutil.rmtree(archives)


def _trim(root: Path) -> None:
    """Empty the trimmed folders, remove the trimmed files, and keep of the documentation the licences only."""
    for name in TRIMMED:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
            path.mkdir()
        else:
            path.unlink(missing_ok=True)
    for path in sorted((root / "usr/share/doc").rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.name != "copyright":
            path.unlink()


def _run(argv: list[str], step: str) -> None:
    """Run a step in a mount namespace of its own, quietly."""
    remedy = "see that Debian's mirror is reachable (http_proxy is honoured) and the disk has room"
    commands.run(
        [*commands.CONTAINED, *argv],
        shown=f"{step} (for the images' base)",
        remedy=remedy,
        error=BaseError,
    )
