"""Finding out for whose sake the kernel refuses a transaction that holds the rules of many.

A transaction is taken whole or not at all, and what is wrong with it may be one policy. So it is tried without those
that the kernel has not taken before, which are then added by halves. Invariants: after a call the kernel holds what was
taken last; what it held before is never put at risk for what is new.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar

from sluice_node.kernel.errors import KernelError

_T = TypeVar("_T")
MOST_REFUSED: Final = 8
"""Beyond so many it is no item's fault: the kernel lacks memory, say, and each attempt only costs."""


def split(
    items: Sequence[_T], take: Callable[[Sequence[_T]], None], *, good: Collection[_T]
) -> tuple[Sequence[_T], dict[_T, str]]:
    """The items that the kernel takes together, and of each other one why it does not.

    `take` tries some of the items; `good` are those that the kernel has taken before. Raises KernelError when it is no
    item's fault.
    """
    try:
        take(items)
    except KernelError as error:
        whole = error
    else:
        return items, {}
    taken = [item for item in items if item in good]
    fresh = [item for item in items if item not in good]
    if not fresh:
        raise whole
    take(taken)
    if len(fresh) == 1:
        return taken, {fresh[0]: str(whole)}
    refused: dict[_T, str] = {}
    groups = _halves(fresh)
    while groups:
        group = groups.pop()
        try:
            take([*taken, *group])
        except KernelError as error:
            if len(group) > 1:
                groups += _halves(group)
                continue
            refused[group[0]] = str(error)
            if len(refused) > MOST_REFUSED:
                raise
        else:
            taken += group
    return taken, refused


def _halves(group: list[_T]) -> list[list[_T]]:
    middle = len(group) // 2
    return [group[middle:], group[:middle]]
