"""Which gateways answer: a state machine fed with probes sent and echoes heard.

Rules:
- Unknown until the first echo or the first verdict of death; unknown counts as not alive.
- Dead after DEAD_AFTER probes in a row of which no echo has come. An echo of any probe newer than the last one heard
  ends the row: a path slower than the interval between probes is alive.
- Alive again after ALIVE_AFTER probes in a row were answered: a path that loses packets does not flap.
- Only probes count, never mere time: an agent that was stopped for a while has sent none, so it condemns nobody.
Pure: no I/O, no clock (the caller calls `tick` every PROBE_INTERVAL, and measures round trips).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sluice_api.timers import PROBES_TO_DEATH

DEAD_AFTER: Final = PROBES_TO_DEATH
ALIVE_AFTER: Final = PROBES_TO_DEATH
_SMOOTHING: Final = 8
"""The weight of the past in the smoothed round-trip time (RFC 6298, section 2: alpha 1/8)."""


class State(Enum):
    """What is known of a gateway."""

    UNKNOWN = "unknown"
    ALIVE = "alive"
    DEAD = "dead"


@dataclass(slots=True)
class _Target:
    state: State = State.UNKNOWN
    sent: int = 0
    heard: int = 0
    missed: int = 0
    answered: int = 0
    rtt: float = 0.0


@dataclass(frozen=True, slots=True)
class Sight:
    """How a gateway looks from here. `rtt` in seconds, smoothed; 0 before the first echo."""

    alive: bool
    rtt: float


class Liveness:
    """Follows a set of gateways, each known by its tunnel MAC."""

    def __init__(self) -> None:
        self._targets: dict[str, _Target] = {}

    def follow(self, macs: Iterable[str]) -> None:
        """Follow these and no others; what is known of those that stay is kept."""
        wanted = set(macs)
        self._targets = {mac: self._targets.get(mac) or _Target() for mac in sorted(wanted)}

    def tick(self) -> tuple[list[tuple[str, int]], frozenset[str]]:
        """Judge the probes sent before, and say which to send now.

        Call it every PROBE_INTERVAL, after all echoes that have arrived were given to `hear`. Returns (MAC, sequence)
        pairs to send and the MACs that are known dead from now on.
        """
        probes, died = [], []
        for mac, target in self._targets.items():
            if target.sent > target.heard:
                target.missed += 1
                if target.missed >= DEAD_AFTER and target.state is not State.DEAD:
                    target.state = State.DEAD
                    target.answered = 0
                    died.append(mac)
            target.sent += 1
            probes.append((mac, target.sent))
        return probes, frozenset(died)

    def hear(self, mac: str, *, sequence: int, rtt: float) -> bool:
        """Take note of an echo and its round trip in seconds; True when the gateway is alive from now on.

        An echo of a probe that was never sent, or that is not newer than the last one heard, is ignored.
        """
        target = self._targets.get(mac)
        if target is None or not target.heard < sequence <= target.sent:
            return False
        target.rtt = rtt if target.heard == 0 else target.rtt + (rtt - target.rtt) / _SMOOTHING
        target.answered = target.answered + 1 if sequence == target.heard + 1 else 1
        target.heard = sequence
        target.missed = 0
        if target.state is State.ALIVE or (target.state is State.DEAD and target.answered < ALIVE_AFTER):
            return False
        target.state = State.ALIVE
        return True

    @property
    def settled(self) -> bool:
        """Whether there is a verdict on every gateway."""
        return all(target.state is not State.UNKNOWN for target in self._targets.values())

    def sights(self) -> Mapping[str, Sight]:
        """MAC -> how it looks."""
        return {mac: Sight(target.state is State.ALIVE, target.rtt) for mac, target in self._targets.items()}
