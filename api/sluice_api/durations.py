"""Lengths of time as people write them in a spec: "1h", "90m", "1h30m", "45s", "0s".

The form is that of Go's time.ParseDuration (as in other Kubernetes objects) without fractions and signs, units from the
longest to the shortest, each at most once.
Standard library only, no I/O.
"""

import re
from typing import Final

PATTERN: Final = r"^([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,7}s)?$"
"""For schemas too (RE2 and ECMA 262 read it alike); an empty text matches it, and is none."""

_UNITS: Final = (3600, 60, 1)


def seconds(text: str) -> int:
    """The length in seconds. Raises ValueError when it is not of the form above."""
    found = re.fullmatch(PATTERN, text, re.ASCII)
    if not text or found is None:
        raise ValueError(f"{text!r} is no length of time: write hours, minutes and seconds like 1h, 90m or 1h30m")
    return sum(int(part[:-1]) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part)
