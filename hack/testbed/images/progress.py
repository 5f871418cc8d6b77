"""Progress lines with the seconds since the start: `images:  12.3 s  agent: installing`."""

import time
from collections.abc import Callable

#: What is told how far a build is: one line of text.
Report = Callable[[str], None]


def timed(report: Report) -> Report:
    """A report that puts the seconds since now before each line."""
    start = time.monotonic()

    def with_seconds(line: str) -> None:
        report(f"images: {time.monotonic() - start:6.1f} s  {line}")

    return with_seconds


def printed(line: str) -> None:
    """Report to standard output at once, so that a log shows the step that hangs."""
    print(line, flush=True)
