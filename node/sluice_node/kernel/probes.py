"""Liveness probes on the tunnel device: frames out to a gateway's MAC, frames back from its kernel.

Invariants: a filter in the kernel lets only returned probes through to the socket, so that a busy tunnel costs the
agent nothing. Never blocks.
"""

import ctypes
import errno
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

from sluice_api.names import PROBE_PORT, TUNNEL_DEVICE
from sluice_node.core.frames import PROBE_ADDRESS, PROBE_TTL, Echo, parse_probe, probe
from sluice_node.kernel.errors import KernelError

_ETH_IPV4: Final = 0x0800
_ATTACH_FILTER: Final = 26
_GONE: Final = frozenset({errno.ENETDOWN, errno.ENXIO, errno.ENODEV})
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _JUMP_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_FILTER: Final = (
    (_LOAD_WORD, 0, 0, 14 + 16),
    (_JUMP_EQUAL, 0, 5, int(PROBE_ADDRESS)),
    (_LOAD_HALF, 0, 0, 14 + 20 + 2),
    (_JUMP_EQUAL, 0, 3, PROBE_PORT),
    (_LOAD_BYTE, 0, 0, 14 + 8),
    (_JUMP_EQUAL, 1, 0, PROBE_TTL),
    (_RETURN, 0, 0, 0xFFFF),
    (_RETURN, 0, 0, 0),
)
"""Classic BPF: destination is the probe address, destination port the probe port, TTL has been lowered."""


class Probes:
    """A packet socket on the tunnel device, which must be there; `mac` is this node's tunnel MAC."""

    def __init__(self, mac: str) -> None:
        self._mac = mac
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.setblocking(False)
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _FILTER)
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("@HP", len(_FILTER), ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
        try:
            self._socket.bind((TUNNEL_DEVICE, _ETH_IPV4))
        except OSError as error:
            self._socket.close()
            raise KernelError(f"no probes: device {TUNNEL_DEVICE} is not there: {error.strerror}") from error

    def fileno(self) -> int:
        """The descriptor to wait on for returned probes."""
        return self._socket.fileno()

    def send(self, *, gateway: str, sequence: int) -> bool:
        """Send a probe to a gateway's tunnel MAC; False when it could not be sent (it then counts as lost).

        Raises KernelError when the device is gone: open anew.
        """
        frame = probe(source=self._mac, gateway=gateway, sequence=sequence, sent=time.monotonic_ns())
        try:
            self._socket.send(frame)
        except OSError as error:
            if error.errno in _GONE:
                raise KernelError(f"no probes: device {TUNNEL_DEVICE} is gone") from error
            return False
        return True

    def received(self) -> Iterator[Echo]:
        """The probes that have come back since the last call; `sent` is on the clock of time.monotonic_ns.

        Raises KernelError when the device is gone: open anew.
        """
        while True:
            try:
                frame = self._socket.recv(256)
            except BlockingIOError:
                return
            except OSError as error:
                raise KernelError(f"no probes: device {TUNNEL_DEVICE} is gone") from error
            echo = parse_probe(frame)
            if echo is not None:
                yield echo

    def close(self) -> None:
        self._socket.close()
