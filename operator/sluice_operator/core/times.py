"""Moments as the API server keeps them (RFC 3339 in UTC, whole seconds), and as numbers to reckon with.

Pure: no I/O, no clock.
"""

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=4096)
def seconds(moment: str) -> int | None:
    """Seconds since 1970 of a moment; None for a text that is none."""
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def moment(number: int) -> str:
    """The moment that is `number` seconds after 1970 began."""
    return datetime.fromtimestamp(number, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
