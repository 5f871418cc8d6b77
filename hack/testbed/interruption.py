"""Being told to end (Ctrl-C, SIGTERM, a closed terminal) without leaving anything behind.

Invariants:
- The first signal interrupts what is being done; those that follow do not interrupt the cleaning up.
- A child that cleans up by itself is told once, by a signal that Python programs clean up on, and is waited for.
Must not know what is cleaned up.
"""

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked this program to end; a KeyboardInterrupt, so that whatever cleans up on Ctrl-C does so."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, the first of the signals raises Interrupted in the main thread and the later ones are ignored.

    Ignored by the programs started from then on too (signal(7): what is ignored stays so across an execve), since
    Ctrl-C reaches them as well and they do the cleaning up.
    """
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within, the signals are ignored: for cleaning up that is done by whoever was interrupted, or not at all."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def run_to_its_end(argv: Sequence[str], *, env: Mapping[str, str]) -> int:
    """Run a program that cleans up after itself on SIGINT; its exit status.

    It runs in a process group of its own, so that Ctrl-C reaches it once, from here. (`subprocess.run` would kill it a
    quarter of a second later, in the midst of its cleaning up.) Raises Interrupted once the program has ended.
    """
    with subprocess.Popen(argv, env=dict(env), stdin=subprocess.DEVNULL, process_group=0) as child:
        try:
            return child.wait()
        except Interrupted:
            print("\ninterrupted: waiting for the step to clean up", flush=True)
            child.send_signal(signal.SIGINT)
            child.wait()
            raise
