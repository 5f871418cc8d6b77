"""The one place where hack/ starts programs of the machine and waits for their end.

Invariants: a program that is missing, fails, or does not end in time raises the family of testbed.errors, never what
subprocess raises. Programs are looked for where Debian's packages put them before anywhere else, so that what happens
to come first on the caller's PATH changes nothing. Whatever runs when this process is told to end, is ended first
(`end_all`), whichever thread waits for it.
Must not import anything but the standard library and testbed.errors: the environment is made with it.
"""

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from testbed.errors import TestbedError

#: Where Debian's packages put programs.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
LAST_LINES = 40
END_SECONDS = 2

#: Before the command of a program that mounts and starts others: what it leaves is gone when it ends, however it does,
#: and it ends when this process does, even by SIGKILL.
CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
)


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with the system's programs first on PATH, and `settings`."""
    # a Docker engine's client may be anywhere, and is the user's to bring
    path = ":".join(filter(None, (SYSTEM_PATH, os.environ.get("PATH"))))
    return {**os.environ, "PATH": path, **settings}


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    stdin: str | IO[bytes] | None = None,
    shown: Sequence[str] | str | None = None,
    remedy: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float | None = None,
    error: type[TestbedError] = TestbedError,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, its output kept. `shown` stands for `argv` in errors; `remedy` says what to do when it
    fails or hangs; `env` replaces `environment()`. Raises `error` when it cannot be started, when it has not ended
    after `seconds`, and, with `check`, when it ends with another status than 0."""
    name = shown if isinstance(shown, str) else shlex.join(shown or argv)
    try:
        result = _finished(argv, stdin, environment() if env is None else env, cwd, seconds)
    except subprocess.TimeoutExpired as late:
        raise error(f"{name} did not end within {seconds:g} s", remedy) from late
    except OSError as refused:
        why = refused.strerror or str(refused)
        raise error(
            f"{name} cannot be started ({why})", f"see that {argv[0]} is installed and may be executed"
        ) from refused
    if check and result.returncode:
        output = "\n".join(f"{result.stdout}{result.stderr}".splitlines()[-LAST_LINES:])
        raise error(f"{name} ended with status {result.returncode}", remedy, output=output)
    return result


_running: set[subprocess.Popen[str]] = set()


def end_all() -> None:
    """End every program that `run` waits for, in whatever thread."""
    for process in list(_running):
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a program and what it started, which are a process group; they are given a moment to do it themselves."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)


def _finished(
    argv: Sequence[str], stdin: str | IO[bytes] | None, env: Mapping[str, str], cwd: Path | None, seconds: float | None
) -> subprocess.CompletedProcess[str]:
    """subprocess.run, with the program known to `end_all` meanwhile."""
    given = subprocess.PIPE if isinstance(stdin, str) else stdin or subprocess.DEVNULL
    with subprocess.Popen(
        argv,
        stdin=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=env,
        cwd=cwd,
        process_group=0,
    ) as process:
        _running.add(process)
        try:
            output, errors = process.communicate(stdin if isinstance(stdin, str) else None, timeout=seconds)
        except BaseException:
            _end(process)
            raise
        finally:
            _running.discard(process)
    return subprocess.CompletedProcess(argv, process.returncode, output, errors)
