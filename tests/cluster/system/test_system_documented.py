"""Every command of the documentation works as it is written, in the order of the page, on a cluster without Sluice.

The only words that are replaced: the example registry by the one whose names the images of this cluster bear.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cluster.system.world import World
from tests.documented import DOCUMENTS, PROJECT, Block, read

from testbed import binaries
from testbed.system import NAMESPACE as SLUICE
from testbed.system import RELEASE, System

REGISTRY = {"registry.example.com/sluice": "docker.io"}
INSTALLING = ("README.md", "docs/install.md", "charts/sluice/README.md")
"""Pages that begin with an install; the others follow the first of them, whose pool and policy they speak of."""
SECONDS = 300


def is_run(block: Block) -> bool:
    """Whether a reader is meant to run it, and a test does."""
    return block.language == "sh" and not block.excuse


PAGES = [str(path) for path in DOCUMENTS if any(map(is_run, read(path)))]
ORDER = [INSTALLING[0], *(page for page in PAGES if page not in INSTALLING), *INSTALLING[1:]]


@dataclass(frozen=True, slots=True)
class Reader:
    """One who follows the documentation: a folder with the project in it, kubectl and helm on PATH, a cluster."""

    system: System
    folder: Path

    def follow(self, block: Block) -> str:
        """Do what a block says; what it printed."""
        if block.file:
            text = block.text
            for example, real in REGISTRY.items():
                text = text.replace(example, real)
            (self.folder / block.file).write_text(text + "\n")
            return ""
        if not is_run(block):
            return ""
        if block.on_a_node:
            return "".join(self.system.cluster.host(n).run(["sh", "-ec", block.text]).stdout for n in self._nodes)
        folders = [str(binaries.folder(group)) for group in (binaries.KUBERNETES, binaries.HELM)]
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self.folder,
            env={
                **os.environ,
                "KUBECONFIG": str(self.system.cluster.kubeconfig),
                "PATH": ":".join([*folders, os.environ["PATH"]]),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert ran.returncode == 0, (
            f"{block.where} ended with {ran.returncode}:\n{block.text}\n{ran.stdout}{ran.stderr}"
        )
        return ran.stdout

    @property
    def _nodes(self) -> tuple[str, ...]:
        return self.system.cluster.nodes

    def begin_anew(self) -> None:
        """Take everything of Sluice out of the cluster."""
        if self.system.helm("list", "--namespace", SLUICE, "--short").split() == [RELEASE]:
            self.system.uninstall()
        self.system.kubectl("delete", "namespace", SLUICE, "billing", "--ignore-not-found")
        kinds = [f"{kind}.sluice.dev" for kind in ("egresspolicies", "egresspools", "egressips", "egressnodes")]
        self.system.kubectl("delete", "crd", *kinds, "--ignore-not-found", "--timeout=60s")


@pytest.fixture(scope="module")
def reader(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader in a folder of the project's own files."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("charts", "crds"):
        (folder / name).symlink_to(PROJECT / name)
    reader = Reader(world.system, folder)
    yield reader
    reader.begin_anew()


@pytest.mark.cluster
@pytest.mark.parametrize("page", ORDER)
def test_the_commands_of_a_page_work_as_they_are_written(reader: Reader, page: str) -> None:
    if page in INSTALLING:
        reader.begin_anew()
    for block in read(Path(page)):
        print(reader.follow(block))
    if page == "README.md":
        shown = reader.system.kubectl("get", "egresspools,egresspolicies,egressips,egressnodes", "--all-namespaces")
        assert headers(shown) == {
            h for block in read(Path(page)) if block.language == "text" for h in headers(block.text)
        }


def headers(text: str) -> set[tuple[str, ...]]:
    """The column names of every table in an output of `kubectl get`."""
    return {tuple(line.split()) for line in text.splitlines() if line.startswith(("NAME ", "NAMESPACE "))}
