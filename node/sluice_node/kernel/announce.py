"""Telling the LAN where an egress IP now is: gratuitous ARP and unsolicited neighbour advertisements.

Invariants: each announcement is sent three times, once at once and once each time `repeat` is called (every second),
as neither protocol acknowledges anything.
"""

import socket
from collections.abc import Iterable
from typing import Final

from sluice_node.core.desired import Address
from sluice_node.core.frames import announcement

_TIMES: Final = 3


class Announcer:
    """Sends frames on interfaces of the network namespace of the thread that made it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._pending: dict[tuple[Address, str, str], int] = {}

    def start(self, answers: Iterable[tuple[Address, str, str]]) -> int:
        """Announce (address, interface, MAC); gives how many there are."""
        new = list(answers)
        self._pending.update(dict.fromkeys(new, _TIMES))
        self.repeat()
        return len(new)

    def repeat(self) -> None:
        """Send what is still due."""
        for (address, interface, mac), times in list(self._pending.items()):
            if self._sent(announcement(address, mac), interface) and times > 1:
                self._pending[address, interface, mac] = times - 1
            else:
                del self._pending[address, interface, mac]

    def _sent(self, frame: bytes, interface: str) -> bool:
        try:
            self._socket.sendto(frame, (interface, 0))
        except OSError:
            return False  # the interface is gone: whoever holds the address next announces it
        return True

    def stop(self, address: Address) -> None:
        """Announce this address no more: another node holds it."""
        self._pending = {key: times for key, times in self._pending.items() if key[0] != address}

    def close(self) -> None:
        self._socket.close()
