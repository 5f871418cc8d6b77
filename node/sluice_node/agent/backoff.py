"""How long to wait before trying again: longer each time, and never in step with other agents."""

import random
from collections.abc import Callable


class Backoff:
    """Doubles from `first` to `most` seconds; each wait is drawn from the upper half, so that agents which lost the
    same server spread out. `draw` gives numbers in 0..1."""

    def __init__(self, *, first: float, most: float, draw: Callable[[], float] = random.random) -> None:
        self._first = first
        self._most = most
        self._draw = draw
        self._next = first

    def seconds(self) -> float:
        """The next wait."""
        ceiling, self._next = self._next, min(self._next * 2, self._most)
        return ceiling * (0.5 + 0.5 * self._draw())

    def reset(self) -> None:
        """It worked: start from `first` again."""
        self._next = self._first
