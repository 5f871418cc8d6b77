"""How messages name several things at once: at most a handful, then how many more."""

from collections.abc import Iterable
from typing import Final

SHOWN: Final = 5


def names(items: Iterable[object]) -> str:
    """ "a, b, c", or with more than five "a, b, c, d, e and 12 more"."""
    texts = [str(item) for item in items]
    shown = ", ".join(texts[:SHOWN])
    return shown if len(texts) <= SHOWN else f"{shown} and {len(texts) - SHOWN} more"


def count(number: int, singular: str, plural: str = "") -> str:
    """ "1 node", "3 nodes"; irregular plurals are given."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
