"""What rules of iptables' older backend (ip_tables, ip6_tables) do with packet marks.

Only tables that somebody made are looked into: to ask for another would make the kernel make it. Sources:
linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h.

Invariants: reads only; an entry that does not lead on to a next one ends the reading.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sluice_node.kernel.foreign import Foreign, Machine

_GET_INFO, _GET_ENTRIES = 64, 65
_NAME: Final = 32
_INFO: Final = struct.Struct("=32sI5I5III")
_ENTRIES_BEGIN: Final = 40
_EXTENSION: Final = struct.Struct("=H29sB")
_FORWARD: Final = 2
_DROP: Final = -1
"""The verdict of a chain's policy, as the kernel writes it: -NF_DROP - 1."""


@dataclass(frozen=True, slots=True)
class _Family:
    """Where the tables of an address family are, and how its entries are laid out, in bytes."""

    word: str
    names: str
    socket: int
    level: int
    offsets: int
    size: int


_FAMILIES: Final = (
    _Family("iptables-legacy", "ip_tables_names", socket.AF_INET, socket.IPPROTO_IP, offsets=88, size=112),
    _Family("ip6tables-legacy", "ip6_tables_names", socket.AF_INET6, socket.IPPROTO_IPV6, offsets=140, size=168),
)


def read(found: Foreign, proc: Path = Path("/proc/net")) -> None:
    """Add what the older tables of this network namespace hold; one that cannot be read is said to be unread."""
    for family in _FAMILIES:
        try:
            names = (proc / family.names).read_text().split()
        except OSError:
            continue
        for name in names:
            try:
                _table(family, name, found)
            except OSError as error:
                found.unread.append(f"table {name} of {family.word} cannot be read ({error.strerror})")


def _table(family: _Family, name: str, found: Foreign) -> None:
    raw = socket.socket(family.socket, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
    try:
        asked = bytearray(_INFO.size)
        asked[: len(name)] = name.encode()
        info = _INFO.unpack(_option(raw, family.level, _GET_INFO, asked))
        policy_at, size = info[7 + _FORWARD], info[13]
        asked = bytearray(_ENTRIES_BEGIN + size)
        asked[: len(name)] = name.encode()
        struct.pack_into("=I", asked, _NAME, size)
        entries = _option(raw, family.level, _GET_ENTRIES, asked)[_ENTRIES_BEGIN:]
    finally:
        raw.close()
    for offset, target in _walk(family, entries):
        machine = Machine(f"{family.word} table {name}")
        for kind, word, revision, content in _extensions(entries, offset + family.size, target):
            machine.extension(kind, word, revision, content)
        found.marks += machine.uses
        if machine.reverse_path and family.socket == socket.AF_INET6:
            found.rpfilter6.append(machine.where)
        if name == "filter" and offset == policy_at and _verdict(entries, target) == _DROP:
            found.drops.append(f"{family.word} chain FORWARD")


def _walk(family: _Family, entries: bytes) -> Iterator[tuple[int, int]]:
    """Where each entry begins, and where its target does."""
    offset = 0
    while offset + family.size <= len(entries):
        target, following = struct.unpack_from("=HH", entries, offset + family.offsets)
        if following < family.size:
            return
        yield offset, offset + target
        offset += following


def _extensions(entries: bytes, offset: int, target: int) -> Iterator[tuple[str, str, int, bytes]]:
    """The matches of an entry, and its target."""
    while offset + _EXTENSION.size <= len(entries) and offset <= target:
        size, name, revision = _EXTENSION.unpack_from(entries, offset)
        if size < _EXTENSION.size:
            return
        word = name.split(b"\0", 1)[0].decode(errors="replace")
        yield "target" if offset == target else "match", word, revision, entries[offset + 32 : offset + size]
        offset += size


def _verdict(entries: bytes, target: int) -> int:
    return int(struct.unpack_from("=i", entries, target + 32)[0])


def _option(raw: socket.socket, level: int, option: int, asked: bytearray) -> bytes:
    """getsockopt with an answer of any length, which Python's own limits to 1,024 bytes."""
    buffer = (ctypes.c_char * len(asked)).from_buffer(asked)
    length = ctypes.c_uint(len(asked))
    library = ctypes.CDLL(None, use_errno=True)
    if library.getsockopt(raw.fileno(), level, option, buffer, ctypes.byref(length)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return bytes(asked[: length.value])
