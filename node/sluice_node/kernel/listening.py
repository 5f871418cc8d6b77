"""Asking a link who has an address, and hearing who says so: two packet sockets on one interface.

Invariants: filters in the kernel let through only neighbour advertisements, and ARP of addresses in the given ranges,
so that a busy link costs the agent nothing; neither socket sees what this node itself sends. Never blocks.
"""

import ctypes
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from sluice_node.core.desired import Address
from sluice_node.core.frames import Say, parse_say, question
from sluice_node.kernel.errors import KernelError

_ARP, _IPV6 = 0x0806, 0x86DD
_ETHERNET: Final = 1
_ATTACH_FILTER: Final = 26
_LOAD_WORD, _LOAD_BYTE, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_NOT_LESS, _RETURN = 0x20, 0x30, 0x15, 0x25, 0x35, 0x06
_ALL: Final = 0xFFFF
_MOST_RANGES: Final = 1000
"""A filter has room for 4096 instructions (BPF_MAXINSNS)."""
_AT_ONCE: Final = 1000
_ADVERTISEMENTS: Final = (
    (_LOAD_BYTE, 0, 0, 14 + 6),
    (_JUMP_EQUAL, 0, 3, 58),
    (_LOAD_BYTE, 0, 0, 14 + 40),
    (_JUMP_EQUAL, 0, 1, 136),
    (_RETURN, 0, 0, _ALL),
    (_RETURN, 0, 0, 0),
)
"""Classic BPF: ICMPv6 without extension headers, type neighbour advertisement."""


def _senders_in(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int, int, int], ...]:
    """Classic BPF: ARP whose sender's IPv4 address is within one of the ranges (first, last)."""
    if len(ranges) > _MOST_RANGES:
        return ((_RETURN, 0, 0, _ALL),)
    program = [(_LOAD_WORD, 0, 0, 14 + 14)]
    for first, last in ranges:
        program += [(_JUMP_NOT_LESS, 0, 2, first), (_JUMP_GREATER, 1, 0, last), (_RETURN, 0, 0, _ALL)]
    return (*program, (_RETURN, 0, 0, 0))


class LinkSocket:
    """An Ethernet interface. Raises KernelError when it is not there, or is of another kind."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._sockets: list[socket.socket] = []
        self._ranges: Sequence[tuple[int, int]] | None = None
        try:
            for protocol in (_ARP, _IPV6):
                # No protocol before the filter is there: nothing else gets in meanwhile.
                made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
                self._sockets.append(made)
                made.setblocking(False)
                _attach(made, _ADVERTISEMENTS if protocol == _IPV6 else _senders_in(()))
                made.bind((interface, protocol))
        except OSError as error:
            self.close()
            raise KernelError(f"interface {interface} cannot be listened to: {error.strerror}") from error
        _, _, _, kind, mac = self._sockets[0].getsockname()
        if kind != _ETHERNET:
            self.close()
            raise KernelError(f"interface {interface} is no Ethernet: nobody can be asked there")
        self.mac: str = mac.hex(":")

    def hear_of(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Let through ARP of IPv4 addresses in these ranges, as numbers (first, last)."""
        if ranges != self._ranges:
            _attach(self._sockets[0], _senders_in(ranges))
            self._ranges = ranges

    def filenos(self) -> tuple[int, ...]:
        """The descriptors to wait on."""
        return tuple(each.fileno() for each in self._sockets)

    def ask(self, address: Address) -> None:
        """Ask who has an address. Raises KernelError when the interface is gone or down."""
        try:
            self._sockets[0].send(question(address, self.mac))
        except BlockingIOError:
            return  # the queue is full: two more questions follow
        except OSError as error:
            raise KernelError(f"interface {self._interface}: {error.strerror}") from error

    def heard(self) -> Iterator[Say]:
        """Who says to have an address, since the last call. Raises KernelError when the interface is gone or down."""
        for each in self._sockets:
            for _ in range(_AT_ONCE):
                try:
                    frame = each.recv(256)
                except BlockingIOError:
                    break
                except OSError as error:
                    raise KernelError(f"interface {self._interface}: {error.strerror}") from error
                said = parse_say(frame)
                if said is not None and said.mac != self.mac:
                    yield said

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def _attach(to: socket.socket, instructions: Sequence[tuple[int, int, int, int]]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    to.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", len(instructions), ctypes.addressof(buffer)))
