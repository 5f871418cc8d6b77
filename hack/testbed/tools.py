"""The tools that are not the machine's: where each comes from, which version, and the path it is called by.

They are wheels of the Python package registry, named with their hashes in hack/tools/<tool>.txt and kept in
<cache>/sluice/tools/<tool>-<hash of that file>/; so a changed version is another folder. pip, the registry's ordinary
client, fetches them and is told by the usual variables (PIP_INDEX_URL, PIP_CERT, https_proxy) where from. Debian's own
programs are prerequisites.py's, and what is built from Go modules binaries.py's.
Invariants: a tool is never looked for on PATH. A folder that exists is complete (made aside, then renamed).
Must not import anything but the standard library and the modules of testbed that hold to that: the environment is made
with it.
"""

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import commands, prerequisites
from testbed.errors import TestbedError

PINS = Path(__file__).resolve().parent.parent / "tools"
REACH = (
    "see that the Python package registry is reachable (https_proxy, and of pip and uv PIP_INDEX_URL, PIP_CERT, "
    "UV_DEFAULT_INDEX and SSL_CERT_FILE are honoured)"
)
Say = Callable[[str], None]


class ToolError(TestbedError):
    """A tool could not be had."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool: `name` is that of its file of hashes, `program` what is called, below its folder."""

    name: str
    program: str
    size: str

    @property
    def pins(self) -> Path:
        """Its version and hashes, as a requirements file of pip."""
        return PINS / f"{self.name}.txt"

    @property
    def version(self) -> str:
        """The version that is wanted."""
        return self.pins.read_text().split()[0].partition("==")[2]

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return tools_root() / f"{self.name}-{hashlib.sha256(self.pins.read_bytes()).hexdigest()[:16]}"

    @property
    def path(self) -> Path:
        """What to call; `ensure` makes it exist."""
        return self.folder / self.program


UV = Tool("uv", "bin/uv", "18 MB")
GO = Tool("go", "go/bin/go", "70 MB")
# called as `python <path>`: pip is a package with a __main__
PIP = Tool("pip", "pip", "2 MB")
TOOLS = (UV, GO, PIP)


def cache_root() -> Path:
    """Where everything that can be made again is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice"


def tools_root() -> Path:
    """Where the tools are kept."""
    return cache_root() / "tools"


def ensure(*wanted: Tool, say: Say = print) -> None:
    """Fetch the tools that are not there yet. Raises ToolError."""
    if all(tool.path.exists() for tool in wanted):
        return
    with _alone():
        for tool in wanted:
            if not tool.path.exists():
                say(f"getting {tool.name} {tool.version} ({tool.size}, once)")
                _fetch(tool, say)


def uv_environment(**settings: str) -> dict[str, str]:
    """What uv is run with: it takes the machine's Python, and no build of Python from elsewhere."""
    python = getattr(sys, "_base_executable", sys.executable)
    return commands.environment(UV_PYTHON_DOWNLOADS="never", UV_PYTHON=python, **settings)


def _fetch(tool: Tool, say: Say) -> None:
    aside = tools_root() / f".{tool.name}"
    shutil.rmtree(aside, ignore_errors=True)
    options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"]
    argv = [str(_installer(say)), "-m", "pip", "install", *options, f"--target={aside}", f"--requirement={tool.pins}"]
    commands.run(argv, shown=f"pip install {tool.name}=={tool.version}", remedy=REACH, error=ToolError)
    if not (aside / tool.program).exists():
        raise ToolError(f"the wheel of {tool.name} {tool.version} has no {tool.program}", f"change {tool.pins}")
    shutil.rmtree(tool.folder, ignore_errors=True)
    aside.rename(tool.folder)


def _installer(say: Say) -> Path:
    """A Python that has pip: Debian's own knows it only as part of the venv module."""
    folder = tools_root() / f"installer-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin" / "python"
    if python.exists() and (folder / "complete").exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    make = [getattr(sys, "_base_executable", sys.executable), "-m", "venv", str(folder)]
    shown = "making a virtual environment (python3 -m venv)"
    if commands.run(make, check=False, shown=shown, error=ToolError).returncode:
        shutil.rmtree(folder, ignore_errors=True)
        prerequisites.install(("python3-venv",), say=say)
        commands.run(make, shown=shown, remedy="install the venv module of python3", error=ToolError)
    (folder / "complete").touch()
    return python


@contextmanager
def _alone() -> Iterator[None]:
    """Only one process fetches at a time."""
    root = tools_root()
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
