"""Being told to end: what cleans up is told once, is waited for, and is not disturbed by further signals."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PARENT = """
import os, sys
from testbed.interruption import Interrupted, interruptible, run_to_its_end
try:
    with interruptible():
        run_to_its_end([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], env=os.environ)
except Interrupted as interruption:
    sys.exit(interruption.exit_code)
"""
# Cleans up for as long as nobody writes into the pipe called `go`, and then says that it is done.
STEP = """
import sys
from pathlib import Path
started, cleaning, go, cleaned = map(Path, sys.argv[1:])
try:
    started.write_text("")
    started.read_text()
except KeyboardInterrupt:
    cleaning.write_text("")
    go.read_text()
    cleaned.write_text("yes")
"""
PROTECTED = """
import os, signal, sys
from testbed.interruption import Interrupted, interruptible, uninterrupted
try:
    with interruptible():
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        print("cleaned up", flush=True)
        os.kill(os.getpid(), signal.SIGHUP)
except Interrupted as interruption:
    sys.exit(interruption.exit_code)
"""
HACK = Path(__file__).resolve().parents[3] / "hack"


def python(*arguments: str) -> "subprocess.Popen[str]":
    """A Python program that may import the testbed, in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(HACK)}
    return subprocess.Popen(
        [sys.executable, "-c", *arguments], env=environment, stdout=subprocess.PIPE, text=True, process_group=0
    )


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_step_cleans_up_to_its_end_however_often_one_asks(first: signal.Signals, tmp_path: Path) -> None:
    pipes = [tmp_path / name for name in ("started", "cleaning", "go")]
    for pipe in pipes:
        os.mkfifo(pipe)
    started, cleaning, go = pipes
    cleaned = tmp_path / "cleaned"
    parent = python(PARENT, STEP, *map(str, pipes), str(cleaned))
    started.read_text()
    os.killpg(parent.pid, first)
    cleaning.read_text()
    for again in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        os.killpg(parent.pid, again)
    go.write_text("")
    parent.communicate(timeout=30)
    assert parent.returncode == 128 + first
    assert cleaned.read_text() == "yes"


def test_what_must_not_be_interrupted_is_not(tmp_path: Path) -> None:
    program = python(PROTECTED)
    said, _ = program.communicate(timeout=30)
    assert said == "cleaned up\n"
    assert program.returncode == 128 + signal.SIGHUP
