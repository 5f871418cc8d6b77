"""What is known of each held stream, and what that amounts to.

A stream is opening, open or lost. It makes progress whenever the other end shows that it still has it: an echo, a
pushed number, a reply. Lost is final. At a verification every open stream has to make progress once more, or counts as
lost.

Pure: times come in (seconds of any steady clock). Must not use sockets or the clock.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How a stream shows that it lives."""

    IDLE = "idle"
    """TCP, silent until a verification."""
    CLIENT_PUSH = "client-push"
    """TCP, the client sends and the server echoes."""
    SERVER_PUSH = "server-push"
    """TCP, the server sends, the client never does."""
    UDP = "udp"
    """Datagrams from one socket, echoed."""
    PING = "ping"
    """ICMP echo with one identifier."""
    CONNECT = "connect"
    """A new TCP connection each time: not a stream that can be cut, but shows whether new ones get through."""


class Phase(StrEnum):
    """Where a stream is in its life."""

    OPENING = "opening"
    OPEN = "open"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Stream:
    """One held stream. Times in seconds; `gap` is the longest time between two signs of progress so far."""

    kind: Kind
    phase: Phase = Phase.OPENING
    progressed_at: float = 0.0
    gap: float = 0.0
    answers: int = 0
    failures: int = 0
    address: str | None = None
    reason: str | None = None

    def opened(self, now: float, *, address: str | None = None) -> "Stream":
        """The other end answered for the first time; `address` is what it sees of us."""
        if self.phase is not Phase.OPENING:
            return self
        return replace(self, phase=Phase.OPEN, progressed_at=now, address=address)

    def progressed(self, now: float) -> "Stream":
        """The other end showed that it still has the stream."""
        if self.phase is not Phase.OPEN:
            return self
        gap = max(self.gap, now - self.progressed_at)
        return replace(self, progressed_at=now, gap=gap, answers=self.answers + 1)

    def failed_once(self) -> "Stream":
        """Something went wrong that does not end the stream: an ICMP error, a connection that was not made."""
        return replace(self, failures=self.failures + 1)

    def lost(self, reason: str) -> "Stream":
        """The stream ended although it was to be held. The first reason stays."""
        return self if self.phase is Phase.LOST else replace(self, phase=Phase.LOST, reason=reason)

    def verified(self, since: float) -> "Stream":
        """The outcome of a verification that began at `since`."""
        if self.phase is Phase.OPEN and self.progressed_at < since:
            return self.lost("no progress")
        return self.lost("never opened") if self.phase is Phase.OPENING else self


def proven(streams: Iterable[Stream], since: float) -> bool:
    """Whether a verification that began at `since` has nothing more to wait for."""
    return all(
        stream.phase is Phase.LOST or (stream.phase is Phase.OPEN and stream.progressed_at >= since)
        for stream in streams
    )


def summary(streams: Iterable[Stream], now: float) -> dict[str, dict[str, Any]]:
    """By kind: how many streams are in each phase, why the lost ones are, and how steadily the open ones progress.

    `silent` is the longest time that an open stream has made no progress until now, `gap` the longest ever; seconds.
    """
    by_kind: dict[Kind, list[Stream]] = {}
    for stream in streams:
        by_kind.setdefault(stream.kind, []).append(stream)
    return {kind.value: _summary(members, now) for kind, members in sorted(by_kind.items())}


def _summary(streams: list[Stream], now: float) -> dict[str, Any]:
    phases = Counter(stream.phase for stream in streams)
    open_streams = [stream for stream in streams if stream.phase is Phase.OPEN]
    return {
        **{phase.value: phases[phase] for phase in Phase},
        "errors": dict(Counter(stream.reason for stream in streams if stream.reason)),
        "answers": sum(stream.answers for stream in streams),
        "failures": sum(stream.failures for stream in streams),
        "silent": round(max((now - stream.progressed_at for stream in open_streams), default=0.0), 3),
        "gap": round(max((stream.gap for stream in streams), default=0.0), 3),
        "addresses": dict(Counter(stream.address for stream in streams if stream.address)),
    }
