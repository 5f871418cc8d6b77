"""Both commands work on a Debian with python3, make, git and ca-certificates: their whole set-up, in a fresh root.

Only the programs that were built already are handed in, since building them takes minutes; that Go from the registry
builds one is seen by itself. And a failure of anything the set-up leans on ends in one sentence.
SLUICE_BARE=bookworm,trixie says which releases of Debian are tried; one is enough for every run.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from subprocess import CompletedProcess

import pytest
from tests.bare.bare_machine import CACHE, CHECKOUT, BareMachine, bare_machine

from testbed import tools

SUITES = tuple(os.environ.get("SLUICE_BARE", "trixie").split(","))
NO_REGISTRY = ("PIP_INDEX_URL=http://127.0.0.1:9/simple", "PIP_RETRIES=0")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a root of its own needs root")


@pytest.fixture(scope="module", params=SUITES)
def machine(request: pytest.FixtureRequest) -> Iterator[BareMachine]:
    with bare_machine(request.param, given=tools.cache_root() / "bin") as made:
        yield made


def test_the_machine_is_bare(machine: BareMachine) -> None:
    for program in ("pip", "pip3", "uv", "uvx", "go", "gcc", "helm", "kubectl", "buildah", "debootstrap", "curl"):
        assert machine.run("sh", "-c", f"command -v {program}").returncode != 0, program
    assert machine.run("python3", "-c", "import ensurepip").returncode != 0


def last_line(failed: CompletedProcess[str]) -> str:
    """What a command said last; make adds a line of its own."""
    assert failed.returncode != 0, failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
    return [line for line in failed.stderr.splitlines() if not line.startswith("make:")][-1]


def test_without_debian_it_says_which_package_is_wanted(machine: BareMachine) -> None:
    with broken(machine, "/usr/bin/apt-get"):
        said = last_line(machine.run("make", "venv"))
    assert "apt-get update ended with status 9" in said
    assert "install these yourself: python3-venv" in said


def test_without_the_python_registry_it_says_what_to_look_at(machine: BareMachine) -> None:
    said = last_line(machine.run("make", "venv", env=NO_REGISTRY))
    assert "pip install uv==" in said
    assert "see that the Python package registry is reachable" in said


def test_everything_that_demo_and_test_need_is_made(machine: BareMachine) -> None:
    done = machine.run("make", "prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    images = sorted(path.name.split("-")[1] for path in machine.path(f"{CACHE}/images").glob("image-*.tar"))
    assert images == ["agent", "operator", "proxy", "traffic"]
    assert machine.run(".venv/bin/pytest", "--version").returncode == 0


HELLO = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello") }\n'
BUILD = """
import os, subprocess
from testbed import binaries, tools
tools.ensure(tools.GO)
argv = [tools.GO.path, "run", "/root/hello.go"]
subprocess.run(argv, env=binaries.go_environment(os.environ), check=True)
"""


def test_go_from_the_registry_builds_a_program(machine: BareMachine) -> None:
    machine.path("/root/hello.go").write_text(HELLO)
    done = machine.run(".venv/bin/python", "-c", BUILD, env=["PYTHONPATH=hack"])
    assert "hello" in done.stdout.splitlines(), done.stdout + done.stderr


def test_what_was_prepared_is_not_prepared_again(machine: BareMachine) -> None:
    again = machine.run("make", "prepare")
    assert (again.returncode, again.stdout) == (0, ""), again.stdout + again.stderr


@dataclass(frozen=True)
class Failure:
    """`breaks` is replaced by a program that fails, `forgets` is removed so that it is made again, `env` is added;
    the last line must begin with `said`."""

    said: str
    breaks: str = ""
    forgets: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    without_programs: bool = False


IMAGES = f"{CACHE}/images/image-*"
FAILURES = {
    "apt-get": Failure("apt-get update ended", breaks="/usr/bin/apt-get", forgets=("/usr/bin/gcc",)),
    "gcc": Failure("gcc of the pause program ended", breaks="/usr/bin/gcc", forgets=(f"{CACHE}/system-images/*",)),
    "debootstrap": Failure(
        "debootstrap (for the images' base) ended",
        breaks="/usr/sbin/debootstrap",
        forgets=(IMAGES, f"{CACHE}/images/base-*"),
    ),
    "buildah": Failure("buildah bud of", breaks="/usr/bin/buildah", forgets=(IMAGES,)),
    "uv": Failure(
        "building Sluice's wheel (uv build) ended",
        breaks=f"{CACHE}/tools/uv-*/bin/uv",
        forgets=(IMAGES, f"{CACHE}/images/program-*"),
    ),
    "pip": Failure(
        "fetching the libraries of operator (pip download) ended",
        forgets=(IMAGES, f"{CACHE}/images/wheels-operator-*"),
        env=NO_REGISTRY,
    ),
    "uv sync": Failure("uv sync ended", forgets=(f"{CHECKOUT}/.venv",), env=("UV_OFFLINE=1", "UV_NO_CACHE=1")),
    "fetching Go": Failure(
        "pip install go==", forgets=(f"{CACHE}/tools/go-*",), env=NO_REGISTRY, without_programs=True
    ),
    "go": Failure("building kube-apiserver", breaks=f"{CACHE}/tools/go-*/go/bin/go", without_programs=True),
    "Go's modules": Failure("building kube-apiserver", env=("GOPROXY=http://127.0.0.1:9",), without_programs=True),
}


@pytest.mark.parametrize("what", FAILURES)
def test_what_fails_is_named_with_a_remedy(machine: BareMachine, what: str) -> None:
    failure = FAILURES[what]
    with broken(machine, failure.breaks), forgotten(machine, failure.forgets):
        there = machine if not failure.without_programs else replace(machine, given=None)
        said = last_line(there.run("make", "prepare", env=failure.env))
    assert said.startswith(f"error: {failure.said}"), said
    assert said.partition(": ")[2].count(": ") >= 1, said


@contextmanager
def broken(machine: BareMachine, program: str) -> Iterator[None]:
    """A program (a pattern of one path) replaced by one that fails."""
    if not program:
        yield
        return
    (path,) = machine.root.glob(program.lstrip("/"))
    kept = path.rename(path.with_name("kept-aside"))
    try:
        path.write_text("#!/bin/sh\necho it is broken >&2\nexit 9\n")
        path.chmod(0o755)
        yield
    finally:
        kept.rename(path)


@contextmanager
def forgotten(machine: BareMachine, patterns: tuple[str, ...]) -> Iterator[None]:
    """Files that are not there for a while."""
    found = [path for pattern in patterns for path in machine.root.glob(pattern.lstrip("/"))]
    kept = {path: path.rename(machine.root / f"kept-{number}") for number, path in enumerate(found)}
    try:
        yield
    finally:
        for path, aside in kept.items():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            aside.rename(path)
