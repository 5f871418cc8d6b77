"""Makes .venv from the lock file: `python3 -m testbed.bootstrap`, run by hack/bootstrap.sh with the machine's Python.

Must not import anything but the standard library and the modules of testbed that hold to that: there is no environment
yet.
"""

import sys
from pathlib import Path

from testbed import commands, tools
from testbed.errors import ended

PROJECT = Path(__file__).resolve().parents[2]


def make_environment() -> int:
    """Make .venv as uv.lock says. Raises TestbedError."""
    tools.ensure(tools.UV, say=say)
    say("installing the Python environment from uv.lock")
    commands.run(
        [str(tools.UV.path), "sync", "--quiet", "--locked", "--all-extras", f"--project={PROJECT}"],
        shown="uv sync",
        env=tools.uv_environment(UV_PROJECT_ENVIRONMENT=".venv"),
        cwd=PROJECT,
        remedy=tools.REACH,
        error=tools.ToolError,
    )
    return 0


def say(text: str) -> None:
    """One line of progress."""
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    sys.exit(ended(make_environment))
