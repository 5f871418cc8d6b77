"""The one family of errors of everything below hack/, and how a command line ends.

Invariant: whatever goes wrong, a command ends with a status that is not 0 and one last line that names what failed and
what to do about it. The traceback is for those who ask for it: `--debug`, or SLUICE_DEBUG=1 where make is in between.
Must not import anything but the standard library and interruption.py: the environment is made with it.
"""

import os
import sys
import traceback
from collections.abc import Callable

from testbed.interruption import Interrupted, interruptible

DEBUG = "SLUICE_DEBUG"
ASK = "run it again with --debug (SLUICE_DEBUG=1 for make) to see where it happened"


class TestbedError(Exception):
    """Something failed: `message` says what, `remedy` what to do; both are part of one sentence, on one line.

    `output` is what a program said before it failed, as many lines as are worth reading.
    """

    __test__ = False  # no test of pytest's

    def __init__(self, message: str, remedy: str = "", *, output: str = "") -> None:
        super().__init__(message, remedy, output)
        self.message, self.remedy, self.output = message, remedy, output.strip()

    def sentence(self) -> str:
        """What failed and what to do, on one line."""
        return " ".join(f"{self.message}: {self.remedy or ASK}".split())

    def __str__(self) -> str:
        """Everything, for whoever shows it some other way."""
        return "\n".join(filter(None, (f"{self.message}: {self.remedy}" if self.remedy else self.message, self.output)))


def ask_debug() -> None:
    """What `--debug` does."""
    os.environ[DEBUG] = "1"


def debugging() -> bool:
    """Is the traceback wanted?"""
    return os.environ.get(DEBUG, "") not in ("", "0")


def ended(command: Callable[[], int]) -> int:
    """Run a command line's work; its exit status. Errors are told on standard error, the last line being the sentence
    to act on; a signal to end unwinds the work first (interruption.py)."""
    try:
        with interruptible():
            return command()
    except Interrupted as interruption:
        print("\ninterrupted", file=sys.stderr, flush=True)
        return interruption.exit_code
    except Exception as error:  # nobody above could do more than show a traceback
        if debugging():
            traceback.print_exc()
        elif isinstance(error, TestbedError) and error.output:
            print(f"\n{error.output}", file=sys.stderr)
        print(f"error: {_sentence(error)}", file=sys.stderr, flush=True)
        return 1


def _sentence(error: Exception) -> str:
    if isinstance(error, TestbedError):
        return error.sentence()
    if isinstance(error, OSError):
        # what the machine refuses (no space, no permission, no such file) is said best by itself
        return TestbedError(f"{error}", f"mend that, or {ASK}").sentence()
    return TestbedError(f"{type(error).__name__}: {error}", f"this is a fault of the testbed; {ASK}").sentence()
