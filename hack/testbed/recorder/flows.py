"""Sums up packets by flow and stage: when the first and the last of each was seen, and how many.

Pure: times come in with the packets (nanoseconds of the Unix clock). Must not use sockets or the clock.

Invariant: one Seen for each distinct packet identity, however many packets; nothing is ever left out.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from testbed.recorder.packets import Address, Packet, Stage


@dataclass(frozen=True, slots=True)
class Seen:
    """Packets that arrived with the same identity (see packets.Packet); `first` and `last` in Unix nanoseconds."""

    protocol: str
    source: Address
    source_port: int
    destination: Address
    destination_port: int
    stage: Stage
    first: int
    last: int
    packets: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values, addresses as text."""
        return asdict(self) | {"source": str(self.source), "destination": str(self.destination)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Seen":
        """The reverse of to_json. Raises KeyError, TypeError or ValueError for anything else."""
        addresses = {name: ipaddress.ip_address(value[name]) for name in ("source", "destination")}
        return cls(**(value | addresses))


class Flows:
    """The sum of the packets so far."""

    def __init__(self) -> None:
        self._by_packet: dict[Packet, list[int]] = {}

    def add(self, packet: Packet, time: int) -> None:
        """Count a packet that was seen at `time` (Unix nanoseconds)."""
        entry = self._by_packet.get(packet)
        if entry is None:
            self._by_packet[packet] = [time, time, 1]
        else:
            entry[1] = max(entry[1], time)
            entry[2] += 1

    def clear(self) -> None:
        """Forget everything."""
        self._by_packet.clear()

    def seen(self) -> list[Seen]:
        """Everything, in order of first appearance."""
        return [
            Seen(p.protocol, p.source, p.source_port, p.destination, p.destination_port, p.stage, *times)
            for p, times in self._by_packet.items()
        ]


def select(seen: Iterable[Seen], *, protocol: str | None = None, since: int = 0) -> list[Seen]:
    """Those of a protocol (None: any) whose last packet came at `since` or later."""
    return [entry for entry in seen if entry.last >= since and protocol in (None, entry.protocol)]
