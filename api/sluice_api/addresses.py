"""The addresses of a pool: reading what people write, and asking what is in it.

Rules:
- An entry is an address, a range "first-last", or a CIDR without host bits.
- An IPv4 CIDR gives neither its network nor its broadcast address (prefix /30 and shorter), an IPv6 CIDR not its first
  address, which is the subnet-router anycast address (RFC 4291, section 2.6.1; prefix /126 and shorter). A range and an
  address are taken literally, and so is a CIDR in spec.exclude: it takes all of its addresses away.
- Only unicast addresses that can be routed somewhere are egress IPs.
- Entries of one pool do not overlap, the network and broadcast address of a CIDR included: an address written twice is
  more likely a mistake than meant.

Standard library only, no I/O. Addresses are `ipaddress` objects.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import pairwise

Address = IPv4Address | IPv6Address

MAX_ADDRESSES = 65536
_MAKE: dict[int, Callable[[int], Address]] = {4: IPv4Address, 6: IPv6Address}


class AddressError(ValueError):
    """An entry that cannot be used; the message names it and says what to write instead."""


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Addresses `first` to `last`, both included, of one family. `text` is how it was written."""

    first: Address
    last: Address
    text: str

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.first.version

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1


def parse_address(text: str) -> Address:
    """Read one address as strictly as inet_pton, without zones. Raises AddressError."""
    try:
        address = ip_address(text)
    except ValueError:
        raise AddressError(f"{text!r} is not an IP address: write it like 198.51.100.16 or 2001:db8::16") from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise AddressError(f"{text!r} has a zone: egress IPs are global, leave out '%{address.scope_id}'")
        if address.ipv4_mapped is not None:
            raise AddressError(f"{text!r} is an IPv4 address in IPv6 form: write {address.ipv4_mapped}")
    if address.is_unspecified or address.is_loopback or address.is_link_local or address.is_multicast:
        raise AddressError(f"{text!r} cannot be an egress IP: it is unspecified, loopback, link-local or multicast")
    if isinstance(address, IPv4Address) and (address.is_reserved or int(address) >> 24 == 0):
        raise AddressError(f"{text!r} cannot be an egress IP: 0.0.0.0/8 and 240.0.0.0/4 are never routed")
    return address


def parse_entry(text: str, *, literal: bool = False) -> AddressRange:
    """Read an address, a range or a CIDR; `literal`: a CIDR is all of its addresses, not those of hosts only.

    Raises AddressError naming the entry and the remedy.
    """
    if "/" in text:
        return _parse_cidr(text, literal=literal)
    if "-" in text:
        first_text, _, last_text = text.partition("-")
        first, last = _parse_part(first_text, text), _parse_part(last_text, text)
        if isinstance(first, IPv4Address) != isinstance(last, IPv4Address):
            raise AddressError(f"{text!r} mixes IPv4 and IPv6: write a range of one family")
        if int(first) > int(last):
            raise AddressError(f"{text!r} ends before it starts: write {last_text}-{first_text}")
        return AddressRange(first, last, text)
    address = parse_address(text)
    return AddressRange(address, address, text)


def _parse_part(part: str, entry: str) -> Address:
    try:
        return parse_address(part)
    except AddressError as error:
        raise AddressError(f"{entry!r}: {error}") from None


def _parse_cidr(text: str, *, literal: bool) -> AddressRange:
    base, _, prefix = text.partition("/")
    address = _parse_part(base, text)
    if (
        not (prefix.isascii() and prefix.isdecimal())
        or str(int(prefix)) != prefix
        or int(prefix) > address.max_prefixlen
    ):
        raise AddressError(f"{text!r} has no prefix length from 0 to {address.max_prefixlen}")
    network = ip_network((address, int(prefix)), strict=False)
    if network.network_address != address:
        raise AddressError(f"{text!r} has host bits set: write {network}, or {base} for the one address")
    first, last = int(network.network_address), int(network.broadcast_address)
    if not literal and address.max_prefixlen - network.prefixlen >= 2:
        first += 1
        last -= 1 if network.version == 4 else 0
    make = _MAKE[network.version]
    return AddressRange(make(first), make(last), text)


@dataclass(frozen=True, slots=True)
class PoolAddresses:
    """The addresses of a pool as ordered disjoint blocks of numbers per family."""

    v4: tuple[tuple[int, int], ...]
    v6: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, addresses: Sequence[str], exclude: Sequence[str] = ()) -> "PoolAddresses":
        """Read spec.addresses and spec.exclude.

        Raises AddressError for an entry that cannot be read, entries that overlap, an exclusion that excludes
        nothing, more than MAX_ADDRESSES addresses, or none at all.
        """
        wanted = _entries("spec.addresses", addresses)
        extents = _entries("spec.addresses", addresses, literal=True)
        without = _entries("spec.exclude", exclude, literal=True)
        _refuse_overlaps(extents)
        for entry in without:
            if not any(_meet(entry, extent) for extent in extents):
                raise AddressError(f"spec.exclude: {entry.text!r} is not in spec.addresses: remove it or correct it")
        pool = cls(_subtract(wanted, without, 4), _subtract(wanted, without, 6))
        size = pool.count(4) + pool.count(6)
        if size > MAX_ADDRESSES:
            raise AddressError(f"spec.addresses: {size} addresses are too many: a pool has at most {MAX_ADDRESSES}")
        if size == 0:
            raise AddressError("spec.exclude: nothing of spec.addresses is left: exclude less")
        return pool

    def blocks(self, version: int) -> tuple[tuple[int, int], ...]:
        """(first, last) blocks of a family, in order, as numbers."""
        return self.v4 if version == 4 else self.v6

    def count(self, version: int) -> int:
        """Number of addresses of a family."""
        return sum(last - first + 1 for first, last in self.blocks(version))

    def of_family(self, version: int, *, behind: Address | None = None) -> Iterator[Address]:
        """The addresses of a family, lowest first, made as they are asked for.

        With `behind`, which need not be one of them: from the next higher one to the end, then from the lowest on.
        """
        make, place = _MAKE[version], -1 if behind is None else int(behind)
        for low, high in ((place + 1, 1 << 128), (0, place)):
            for first, last in self.blocks(version):
                for number in range(max(first, low), min(last, high) + 1):
                    yield make(number)

    def __contains__(self, address: Address) -> bool:
        blocks, number = self.blocks(address.version), int(address)
        place = bisect_right(blocks, (number, 1 << 128)) - 1
        return place >= 0 and blocks[place][0] <= number <= blocks[place][1]

    def overlap(self, other: "PoolAddresses") -> Address | None:
        """The lowest address that is in both, or None."""
        for version in (4, 6):
            for first, last in self.blocks(version):
                for other_first, other_last in other.blocks(version):
                    if first <= other_last and other_first <= last:
                        return _MAKE[version](max(first, other_first))
        return None


def _entries(field: str, texts: Sequence[str], *, literal: bool = False) -> list[AddressRange]:
    entries = []
    for text in texts:
        try:
            entries.append(parse_entry(text, literal=literal))
        except AddressError as error:
            raise AddressError(f"{field}: {error}") from None
    return entries


def _meet(one: AddressRange, other: AddressRange) -> bool:
    return one.version == other.version and int(one.first) <= int(other.last) and int(other.first) <= int(one.last)


def _refuse_overlaps(entries: Iterable[AddressRange]) -> None:
    ordered = sorted(entries, key=lambda e: (e.version, int(e.first)))
    for before, after in pairwise(ordered):
        if _meet(before, after):
            raise AddressError(
                f"spec.addresses: {before.text!r} and {after.text!r} overlap at {after.first}: write each address once"
            )


def _subtract(
    wanted: Iterable[AddressRange], without: Iterable[AddressRange], version: int
) -> tuple[tuple[int, int], ...]:
    holes = sorted((int(e.first), int(e.last)) for e in without if e.version == version)
    left: list[tuple[int, int]] = []
    for first, last in sorted((int(e.first), int(e.last)) for e in wanted if e.version == version):
        start = first
        for hole_first, hole_last in holes:
            if hole_last < start or hole_first > last:
                continue
            if hole_first > start:
                left.append((start, hole_first - 1))
            start = hole_last + 1
        if start <= last:
            left.append((start, last))
    return tuple(left)


def object_name(address: Address) -> str:
    """Name of the EgressIP object of an address: IPv4 as it is, IPv6 exploded with '-' for ':'."""
    return address.exploded.replace(":", "-")


def address_of(name: str) -> Address:
    """The address of an EgressIP object. Raises AddressError when the name is none of object_name's."""
    address = parse_address(name.replace("-", ":"))
    if object_name(address) != name:
        raise AddressError(f"{name!r} is not the name of an egress IP: {address} is named {object_name(address)}")
    return address
