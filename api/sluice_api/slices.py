"""Port slices: aligned blocks of an egress IP's ports, each of which one node may use.

Invariants: a slice's size is a power of two within MIN_SIZE..MAX_SIZE and divides its first port, so the high bits of a
port name its slice; no slice reaches below port 1024, which many firewalls treat as servers' ports.
Standard library only, no I/O.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MIN_SIZE = 128
MAX_SIZE = 16384
LOWEST_PORT = 1024
PORTS = 1 << 16


class SliceError(ValueError):
    """A size or a range that is no slice; the message says why."""


@dataclass(frozen=True, slots=True, order=True)
class PortSlice:
    """Ports `index * size` to `index * size + size - 1`."""

    index: int
    size: int

    @property
    def first(self) -> int:
        """Its lowest port."""
        return self.index * self.size

    @property
    def last(self) -> int:
        """Its highest port."""
        return self.first + self.size - 1

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def check_size(size: int) -> int:
    """The size, when it is one. Raises SliceError otherwise."""
    if not MIN_SIZE <= size <= MAX_SIZE or size & (size - 1):
        raise SliceError(f"{size} ports per slice: use a power of two from {MIN_SIZE} to {MAX_SIZE}")
    return size


def all_slices(size: int) -> Iterator[PortSlice]:
    """Every slice of that size that may be handed out, lowest first. Raises SliceError for a bad size."""
    check_size(size)
    lowest = -(-LOWEST_PORT // size)
    return (PortSlice(index, size) for index in range(lowest, PORTS // size))


def parse(text: str) -> PortSlice:
    """Read "first-last". Raises SliceError when that is not exactly one slice."""
    first_text, dash, last_text = text.partition("-")
    if not dash or not (
        first_text.isascii() and first_text.isdecimal() and last_text.isascii() and last_text.isdecimal()
    ):
        raise SliceError(f"{text!r} is no range of ports: write first-last, for example 40960-41983")
    first, last = int(first_text), int(last_text)
    size = check_size(last - first + 1)
    if first % size or first < LOWEST_PORT or last >= PORTS:
        raise SliceError(f"{text!r} is not aligned to its {size} ports within {LOWEST_PORT}-{PORTS - 1}")
    found = PortSlice(first // size, size)
    if str(found) != text:
        raise SliceError(f"{text!r} has leading zeros: write {found}")
    return found


def ranges(slices: Iterable[PortSlice]) -> tuple[tuple[int, int], ...]:
    """The slices as (first, last) ranges in port order, adjacent ones merged: one SNAT range each."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted((s.first, s.last) for s in slices):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
