"""Which node may use which ports of an egress IP.

Invariants:
- A slice belongs to at most one node, a node has at most one slice of an egress IP.
- What a node has it keeps: slices move only when their node is gone for good (see `vanished`) or the pool's slice size
  changed.
- The lowest free slice goes to the next node in name order, so the same input gives the same output.
- Pure: no I/O, no clock.
"""

from collections.abc import Callable, Iterable
from functools import cache

from sluice_api.slices import all_slices
from sluice_operator.core.snapshot import Slice


@cache
def blocks(size: int) -> tuple[tuple[int, int], ...]:
    """Every (first, last) block of `size` ports that may be handed out, lowest first."""
    return tuple((block.first, block.last) for block in all_slices(size))


def assign(
    held: tuple[Slice, ...], nodes: Iterable[str], *, size: int, gone: Callable[[Slice], Slice | None] = lambda _: None
) -> tuple[tuple[Slice, ...], tuple[str, ...]]:
    """Give every node one slice of an egress IP.

    `held` is what the egress IP's status says now, `size` the pool's ports per slice, `gone` what becomes of a slice of
    a node that is not among `nodes` (None: it is free). Returns the slices in port order and the nodes, in name order,
    for which no slice is left.
    """
    wanted = frozenset(nodes)
    if _stands(held, wanted, size=size):
        complete = len(held) == len(wanted)
        return held, () if complete else tuple(sorted(wanted.difference(entry.node for entry in held)))
    valid = _valid(size)
    taken: dict[tuple[int, int], Slice] = {}
    served: set[str] = set()
    for entry in held:
        block = (entry.first, entry.last)
        if block not in valid or block in taken or entry.node in served:
            continue
        kept = Slice(entry.node, *block) if entry.node in wanted else gone(entry)
        if kept is not None:
            taken[block] = kept
            served.add(entry.node)
    free = (block for block in blocks(size) if block not in taken)
    unserved = sorted(wanted - served)
    given = {block: Slice(node, *block) for node, block in zip(unserved, free, strict=False)}
    return _in_port_order(taken | given), tuple(unserved[len(given) :])


@cache
def _valid(size: int) -> frozenset[tuple[int, int]]:
    return frozenset(blocks(size))


def _stands(held: tuple[Slice, ...], nodes: frozenset[str], *, size: int) -> bool:
    """Whether nothing is to be done, which is nearly always so: decided without a loop in Python."""
    if len(held) != min(len(nodes), len(blocks(size))) or not held:
        return not held and not nodes
    names, firsts, lasts, marks = zip(*held, strict=True)
    given, served = set(zip(firsts, lasts, strict=True)), set(names)
    if any(marks):
        return False
    sound = len(given) == len(served) == len(held) and served <= nodes and given <= _valid(size)
    return sound and firsts == tuple(sorted(firsts))


def _in_port_order(taken: dict[tuple[int, int], Slice]) -> tuple[Slice, ...]:
    return tuple(entry for _, entry in sorted(taken.items()))
