"""How far a long piece of work is: which steps of how many, how long it has taken, what is likely left.

On a terminal one live line; elsewhere one plain line for each step that ends, and nothing in between.
`remaining` is pure; `Progress` is the shell around it. Must not know what the steps are.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

Clock = Callable[[], float]
REFRESHES_PER_SECOND = 2


def remaining(expected: Mapping[str, float], ended: Mapping[str, float], running: Mapping[str, float]) -> float:
    """Seconds that the work of one lane is likely to take yet.

    `expected` has the rough seconds of every step, `ended` what those that ended took, `running` how long those that
    run have taken so far. Steps that took longer than expected make the rest so, in proportion.
    """
    known = sum(expected[step] for step in ended)
    # a guess until enough has been seen of this machine
    pace = sum(ended.values()) / known if known >= 10 else 1.0
    left = 0.0
    for step, seconds in expected.items():
        if step not in ended:
            left += max(seconds * pace - running.get(step, 0.0), 0.0)
    return left


def spoken(seconds: float) -> str:
    """A duration as one says it: 40 s, 3 min."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@dataclass(slots=True)
class Progress:
    """The steps of a piece of work. `lanes` has the steps, with their rough seconds, that are done one after another;
    lanes go on side by side."""

    title: str
    lanes: Mapping[str, Mapping[str, float]]
    console: Console = field(default_factory=lambda: Console(file=sys.stdout, highlight=False))
    clock: Clock = time.monotonic
    _began: float = 0.0
    _running: dict[str, float] = field(default_factory=dict)
    _ended: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while the work is done."""
        self._began = self.clock()
        if not self.console.is_terminal:
            yield
            return
        live = Live(
            console=self.console,
            get_renderable=lambda: Text(self.line(), overflow="ellipsis", no_wrap=True),
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
        )
        with live:
            yield

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One of the steps; said when it ends."""
        began = self.clock()
        with self._lock:
            self._running[name] = began
        try:
            yield
        except BaseException:
            with self._lock:
                del self._running[name]
            raise
        with self._lock:
            del self._running[name]
            self._ended[name] = self.clock() - began
            text = f"{name}: {spoken(self._ended[name])} ({self._counted()})"
        self.say(text)

    def say(self, text: str) -> None:
        """One line for good, above the live one."""
        self.console.print(f"{self.title}: {text}", markup=False, soft_wrap=True)

    def line(self) -> str:
        """The live line."""
        with self._lock:
            now = ", ".join(self._running) or "beginning"
            return f"{self.title}: {now} ({self._counted()})"

    def _counted(self) -> str:
        total = sum(map(len, self.lanes.values()))
        text = f"{len(self._ended)} of {total}, {spoken(self.clock() - self._began)} so far"
        if len(self._ended) == total:
            return text
        return f"{text}, about {spoken(self._left())} left"

    def _left(self) -> float:
        now = self.clock()
        running = {step: now - began for step, began in self._running.items()}
        return max(
            remaining(lane, {step: s for step, s in self._ended.items() if step in lane}, running)
            for lane in self.lanes.values()
        )
