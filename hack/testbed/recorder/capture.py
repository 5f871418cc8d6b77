"""Captures every packet that arrives on an interface, whether or not anything on the host accepts it.

Runs as a process of its own, so that services do not delay it: `run` reads packets and answers one-line questions on a
socket (`seen`, `clear`); it ends when the other end of that socket is closed, so it never outlives its parent.

Invariant: an answer covers every packet that the kernel had handed over when the question was asked, and says how many
the kernel had to drop; so an empty answer with dropped 0 proves absence.
"""

import json
import select
import socket
import struct
from dataclasses import dataclass

from testbed.recorder.flows import Flows
from testbed.recorder.packets import Address, read

# Not in the socket module of every Python: linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h.
_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 263, 6, 23
_SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 35, 33
_SNAPLEN = 256
_BUFFER = 64 << 20
_BATCH = 512


def open_socket(interface: str) -> socket.socket:
    """A packet socket that delivers what arrives on `interface`, from the IP header on. Needs NET_RAW."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    packets.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    packets.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    packets.bind((interface, _ETH_P_ALL))
    packets.setblocking(False)
    return packets


@dataclass(slots=True)
class Capture:
    """What was captured towards `addresses` (empty: towards any address)."""

    packets: socket.socket
    addresses: frozenset[Address]
    flows: Flows
    dropped: int = 0

    def drain(self, limit: int) -> int:
        """Read at most `limit` waiting packets; returns how many there were."""
        for count in range(limit):
            try:
                data, ancillary, _flags, _sender = self.packets.recvmsg(_SNAPLEN, 64)
            except BlockingIOError:
                return count
            packet = read(data)
            if packet is not None and (not self.addresses or packet.destination in self.addresses):
                self.flows.add(packet, _time(ancillary))
        return limit

    def answer(self, question: str) -> dict[str, object]:
        """Answer one question about everything that arrived before it."""
        while self.drain(_BATCH) == _BATCH:
            pass
        self.dropped += _dropped(self.packets)
        if question == "clear":
            self.flows.clear()
            self.dropped = 0
        return {"seen": [entry.to_json() for entry in self.flows.seen()], "dropped": self.dropped}


def run(packets: socket.socket, questions: socket.socket, addresses: frozenset[Address]) -> None:
    """Capture until the other end of `questions` is closed."""
    capture = Capture(packets, addresses, Flows())
    lines = questions.makefile("rwb")
    while True:
        ready, _, _ = select.select([packets, questions], [], [])
        if packets in ready:
            capture.drain(_BATCH)
        if questions in ready:
            line = lines.readline()
            if not line:
                return
            lines.write(json.dumps(capture.answer(line.decode().strip())).encode() + b"\n")
            lines.flush()


def _time(ancillary: list[tuple[int, int, bytes]]) -> int:
    """When the kernel received the packet (SO_TIMESTAMPNS, a struct timespec), in Unix nanoseconds."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            return int(seconds * 1_000_000_000 + nanoseconds)
    return 0


def _dropped(packets: socket.socket) -> int:
    """Packets dropped for want of buffer since the last call (struct tpacket_stats: packets, drops; reading resets)."""
    return int(struct.unpack("II", packets.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1])
