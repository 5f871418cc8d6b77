"""Connection tracking through ctnetlink: find connections by an address of theirs, and delete stale ones.

For few IPv4 addresses the kernel filters (CTA_FILTER, Linux 5.8), so that a busy table is not copied to find some
entries. Its IPv6 filter is of no use: ctnetlink_filter_match_tuple compares the wrong way round and gives all others
(seen up to Linux 6.18). Invariants: what the kernel gives is checked again here; an entry is deleted by its own tuple
and id, so that never another one goes.
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.flows import Flow, Judge, Suspects, suspects
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.raw import (
    ACK,
    DUMP,
    NESTED,
    NETLINK_NETFILTER,
    REQUEST,
    RawNetlink,
    attribute,
    attributes,
    number,
)

_GENERIC: Final = struct.Struct("!BBH")
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_IP, _PROTOCOL = 1, 2
_FILTER_SOURCE, _FILTER_DESTINATION = 1, 2
_FEW: Final = 64
_FEW_FAIL: Final = 8
_ATTRIBUTE: Final = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Entry:
    """A connection and the attributes that name it to the kernel."""

    flow: Flow
    family: int
    name: bytes


class Conntrack:
    """A ctnetlink socket, in the network namespace of the thread that made it."""

    def __init__(self) -> None:
        self._netlink = RawNetlink(NETLINK_NETFILTER)

    def clean(
        self, old: DesiredNode | None, new: DesiredNode, *, retired: frozenset[Address]
    ) -> tuple[int, tuple[str, ...]]:
        """Delete the connections that the step from `old` to `new` made stale; gives how many, and why single ones
        could not be.

        `retired` are further addresses that were egress IPs before. Raises KernelError when it is not about single
        ones.
        """
        where = suspects(old, new)
        where = replace(where, seen=where.seen | retired)
        judge = Judge(new, former=where.seen)
        stale = [entry for entry in self._involving(where) if judge.is_stale(entry.flow)]
        cut, failed = 0, []
        for entry in stale:
            try:
                cut += self._delete(entry)
            except KernelError as error:
                failed.append(str(error))
                if len(failed) > _FEW_FAIL:
                    raise
        return cut, tuple(failed)

    def forget(self, addresses: frozenset[Address]) -> int:
        """Delete every connection whose far end sees one of the addresses; gives how many."""
        return sum(self._delete(entry) for entry in list(self._involving(Suspects(seen=addresses))))

    def opened_by(self, source: Address) -> list[Flow]:
        """The connections that an address of this node has opened. Raises KernelError."""
        where = Suspects(sources=frozenset({source}))
        return [entry.flow for entry in self._involving(where) if entry.flow.source == source]

    def _involving(self, where: Suspects) -> Iterator[Entry]:
        """The connections in question."""
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            skip = _Glance(where, version)
            for request in _requests(where, version):
                for entry in self._entries(family, request, skip):
                    if entry.flow in where:
                        yield entry

    def _entries(self, family: int, request: bytes, glance: "_Glance") -> Iterator[Entry]:
        body = _GENERIC.pack(family, 0, 0) + request
        try:
            for message in self._netlink.ask(_GET, flags=REQUEST | DUMP, body=body):
                if glance.rules_out(message):
                    continue
                entry = _entry(message[_GENERIC.size :], family=family)
                if entry is not None:
                    yield entry
        except OSError as error:
            raise KernelError(f"cannot read connections (nf_conntrack_netlink): {error.strerror}") from error

    def _delete(self, entry: Entry) -> int:
        request = _GENERIC.pack(entry.family, 0, 0) + entry.name
        try:
            list(self._netlink.ask(_DELETE, flags=REQUEST | ACK, body=request))
        except FileNotFoundError:
            return 0  # it ended by itself
        except OSError as error:
            where = f"from {entry.flow.source} to {entry.flow.target}"
            raise KernelError(f"cannot forget a connection {where}: {error.strerror}") from error
        return 1

    def close(self) -> None:
        self._netlink.close()


class _Glance:
    """Rules out, at a tenth of the cost of reading it, a connection that is none of those in question.

    The kernel writes both tuples first, each with its addresses first (ctnetlink_fill_info, ctnetlink_dump_tuples);
    what does not look so is read.
    """

    def __init__(self, where: Suspects, version: int) -> None:
        self._size = 4 if version == 4 else 16
        self._sources = {address.packed for address in where.sources if address.version == version}
        self._seen = {address.packed for address in where.seen if address.version == version}
        self._all = where.everything or any(network.version == version for network in where.targets)
        address = _ATTRIBUTE.pack(_ATTRIBUTE.size + self._size, 1 if version == 4 else 3)
        addresses = _ATTRIBUTE.pack(_ATTRIBUTE.size + 2 * (_ATTRIBUTE.size + self._size), _IP | NESTED)
        self._start = addresses + address
        """What a tuple begins with, up to its source address."""

    def rules_out(self, message: bytes) -> bool:
        """Whether the connection can be left out."""
        if self._all:
            return False
        length, kind = _ATTRIBUTE.unpack_from(message, _GENERIC.size)
        opened = _GENERIC.size + _ATTRIBUTE.size
        replied = opened + (length + 3 & ~3)
        skip, size = len(self._start), self._size
        if (
            kind != _ORIGINAL | NESTED
            or message[opened : opened + skip] != self._start
            or message[replied : replied + skip] != self._start
        ):
            return False
        source = opened + skip
        seen = replied + skip + size + _ATTRIBUTE.size
        return message[source : source + size] not in self._sources and message[seen : seen + size] not in self._seen


def _requests(where: Suspects, version: int) -> list[bytes]:
    """What to ask the kernel for: some connections each, or all."""
    if where.everything:
        return [b""]
    sources = [address for address in where.sources if address.version == version]
    seen = [address for address in where.seen if address.version == version]
    targets = [network for network in where.targets if network.version == version]
    single = all(network.prefixlen == network.max_prefixlen for network in targets)
    if version == 6 or not single or len(sources) + len(seen) + len(targets) > _FEW:
        return [b""] if sources or seen or targets else []
    requests = [_filter(_ORIGINAL, a, flag=_FILTER_SOURCE) for a in sources]
    requests += [_filter(_REPLY, a, flag=_FILTER_DESTINATION) for a in seen]
    return requests + [_filter(_REPLY, n.network_address, flag=_FILTER_SOURCE) for n in targets]


def _filter(which: int, address: Address, *, flag: int) -> bytes:
    """What makes the kernel dump only connections with this IPv4 address as source or destination of a tuple."""
    ip = attribute(_IP | NESTED, attribute(flag, address.packed))
    flags = attribute(1, number(flag if which == _ORIGINAL else 0)) + attribute(
        2, number(flag if which == _REPLY else 0)
    )
    return attribute(which | NESTED, ip) + attribute(_FILTER | NESTED, flags)


def _entry(data: bytes, *, family: int) -> Entry | None:
    """The connection of a message; None when it is of no kind that is known here, which must not keep all others from
    being judged."""
    parts = attributes(data)
    try:
        source, _, _, _ = _tuple(parts[_ORIGINAL])
        target, seen, port, (protocol, seen_port) = _tuple(parts[_REPLY])
    except (KeyError, IndexError, ValueError):
        return None
    name = attribute(_ORIGINAL | NESTED, parts[_ORIGINAL])
    for kind in (_ID, _ZONE):
        if kind in parts:
            name += attribute(kind, parts[kind])
    flow = Flow(source, target, protocol, target_port=port, seen=seen, seen_port=seen_port)
    return Entry(flow, family, name)


def _tuple(data: bytes) -> tuple[Address, Address, int, tuple[int, int]]:
    """Source, destination, source port, and (protocol, destination port); an ICMP identifier counts as that port."""
    parts = attributes(data)
    ip, transport = attributes(parts[_IP]), attributes(parts[_PROTOCOL])
    source, destination = (ip[1], ip[2]) if 1 in ip else (ip[3], ip[4])
    ports = [int.from_bytes(transport.get(kind, b"")) for kind in (2, 3)]
    identifier = transport.get(4, transport.get(7))
    if identifier is not None:
        ports[1] = int.from_bytes(identifier)
    return ip_address(source), ip_address(destination), ports[0], (transport[1][0], ports[1])
