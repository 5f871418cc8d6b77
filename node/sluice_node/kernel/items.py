"""What is done for one item after the other: none waits for another, and what the kernel refuses is told.

Must not be used for what the whole node rests on: that raises KernelError, and ends the apply.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from sluice_node.core.desired import Address
from sluice_node.core.failures import Failure
from sluice_node.kernel.errors import KernelError

_Item = TypeVar("_Item", bound=Hashable)


class Items:
    """Of one apply: what was refused, in words (`failures`) and as items (`missed`)."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.missed: set[Hashable] = set()

    def each(
        self,
        items: Iterable[_Item],
        act: Callable[[_Item], object],
        *,
        serves: Callable[[_Item], Address | None] = lambda _: None,
    ) -> int:
        """Do it for each; gives for how many it was done. `serves` names the egress IP that is not answered for without
        the item."""
        done = 0
        for item in items:
            try:
                act(item)
            except KernelError as error:
                self.miss(item, Failure(str(error), unanswered=serves(item)))
            else:
                done += 1
        return done

    def miss(self, item: Hashable, failure: Failure) -> None:
        """An item was refused."""
        self.missed.add(item)
        self.failures.append(failure)
