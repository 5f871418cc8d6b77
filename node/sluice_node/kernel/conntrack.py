"""Connection tracking through ctnetlink: find connections by an address of theirs, and delete stale ones.

Invariants: the kernel filters (CTA_FILTER, Linux 5.8), so that a busy table is not copied to find a few entries; an
entry is deleted by its own tuple and id, so that never another one goes.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.flows import Flow, Judge, suspects
from sluice_node.kernel.errors import KernelError

_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct("!BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x001, 0x004, 0x300
_NESTED: Final = 0x8000
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_IP, _PROTOCOL = 1, 2
_FILTER_SOURCE, _FILTER_DESTINATION = 1, 2
_FEW: Final = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """A connection and the attributes that name it to the kernel."""

    flow: Flow
    family: int
    name: bytes


class Conntrack:
    """A ctnetlink socket, in the network namespace of the thread that made it."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._sequence = 0

    def clean(self, old: DesiredNode | None, new: DesiredNode) -> int:
        """Delete the connections that the step from `old` to `new` made stale; gives how many."""
        sources, gone = suspects(old, new)
        judge = Judge(new, former=gone)
        found: dict[bytes, Entry] = {}
        if len(sources) + len(gone) > _FEW:
            found = {entry.name: entry for entry in self._entries(4)} | {e.name: e for e in self._entries(6)}
        else:
            for address in sources:
                found |= {entry.name: entry for entry in self._entries(address.version, source=address)}
            for address in gone:
                found |= {entry.name: entry for entry in self._entries(address.version, seen=address)}
        return sum(self._delete(entry) for entry in found.values() if judge.is_stale(entry.flow))

    def forget(self, addresses: frozenset[Address]) -> int:
        """Delete every connection whose far end sees one of the addresses; gives how many."""
        entries = (entry for address in addresses for entry in list(self._entries(address.version, seen=address)))
        return sum(self._delete(entry) for entry in entries)

    def _entries(self, version: int, *, source: Address | None = None, seen: Address | None = None) -> Iterator[Entry]:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        body = b""
        if source is not None:
            body = _filter(_ORIGINAL, source, kind=1 if version == 4 else 3, flag=_FILTER_SOURCE)
        elif seen is not None:
            body = _filter(_REPLY, seen, kind=2 if version == 4 else 4, flag=_FILTER_DESTINATION)
        for message in self._ask(_GET, family, flags=_REQUEST | _DUMP, body=body):
            entry = _entry(message, family=family)
            if entry is not None:
                yield entry

    def _delete(self, entry: Entry) -> int:
        try:
            list(self._ask(_DELETE, entry.family, flags=_REQUEST | _ACK, body=entry.name))
        except KernelError:
            return 0  # it ended by itself
        return 1

    def _ask(self, kind: int, family: int, *, flags: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        payload = _GENERIC.pack(family, 0, 0) + body
        self._socket.send(_HEADER.pack(_HEADER.size + len(payload), kind, flags, self._sequence, 0) + payload)
        while True:
            data = self._socket.recv(1 << 17)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, answer, _, sequence, _ = _HEADER.unpack_from(data, offset)
                message = data[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3
                if sequence != self._sequence:
                    continue
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    code = -struct.unpack_from("=i", message)[0]
                    if code:
                        raise KernelError(f"connection tracking refused: {errno.errorcode.get(code, code)}")
                    return
                yield message[_GENERIC.size :]

    def close(self) -> None:
        self._socket.close()


def _attribute(kind: int, payload: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _filter(which: int, address: Address, *, kind: int, flag: int) -> bytes:
    ip = _attribute(_IP | _NESTED, _attribute(kind, address.packed))
    flags = _attribute(1, struct.pack("=I", flag if which == _ORIGINAL else 0))
    flags += _attribute(2, struct.pack("=I", flag if which == _REPLY else 0))
    return _attribute(which | _NESTED, ip) + _attribute(_FILTER | _NESTED, flags)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def _entry(data: bytes, *, family: int) -> Entry | None:
    parts = _attributes(data)
    if _ORIGINAL not in parts or _REPLY not in parts:
        return None
    source, _, _, _ = _tuple(parts[_ORIGINAL])
    target, seen, port, (protocol, seen_port) = _tuple(parts[_REPLY])
    name = _attribute(_ORIGINAL | _NESTED, parts[_ORIGINAL])
    for kind in (_ID, _ZONE):
        if kind in parts:
            name += _attribute(kind, parts[kind])
    flow = Flow(source, target, protocol, target_port=port, seen=seen, seen_port=seen_port)
    return Entry(flow, family, name)


def _tuple(data: bytes) -> tuple[Address, Address, int, tuple[int, int]]:
    """Source, destination, source port, and (protocol, destination port); an ICMP identifier counts as that port."""
    parts = _attributes(data)
    ip, transport = _attributes(parts[_IP]), _attributes(parts[_PROTOCOL])
    source, destination = (ip[1], ip[2]) if 1 in ip else (ip[3], ip[4])
    ports = [int.from_bytes(transport.get(kind, b"")) for kind in (2, 3)]
    identifier = transport.get(4, transport.get(7))
    if identifier is not None:
        ports[1] = int.from_bytes(identifier)
    return ip_address(source), ip_address(destination), ports[0], (transport[1][0], ports[1])
