"""A name's addresses in every family that can be dialled: several questions, one answer."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from .core.dns import RecordType
from .core.host import Address
from .engine.resolver import Outcome, ResolveError, Resolver

_KINDS: Final = {4: RecordType.A, 6: RecordType.AAAA}


class Lookup:
    """Asks for each family and calls `done` once.

    With the addresses of all that answered, IPv6 first and alternating (RFC 8305, section 4). Only when no family has
    an address is the outcome an error, or empty.
    """

    __slots__ = ("_done", "_expected", "_outcomes")

    def __init__(self, done: Callable[[Outcome], None]) -> None:
        self._done: Callable[[Outcome], None] | None = done
        self._expected = 0
        self._outcomes: dict[int, Outcome] = {}

    def start(self, resolver: Resolver, name: str, versions: Sequence[int]) -> None:
        """versions: the families (4, 6) to ask for; at least one."""
        self._expected = len(versions)
        for version in versions:
            resolver.resolve(name, _KINDS[version], partial(self._collect, version))

    def cancel(self) -> None:
        """`done` is not called any more."""
        self._done = None

    def _collect(self, version: int, outcome: Outcome) -> None:
        self._outcomes[version] = outcome
        if len(self._outcomes) == self._expected and self._done is not None:
            self._done(merge(self._outcomes))


def merge(outcomes: dict[int, Outcome]) -> Outcome:
    """One outcome of those of several families."""
    errors: list[ResolveError] = []
    families: list[list[Address]] = []
    for version in sorted(outcomes, reverse=True):
        outcome = outcomes[version]
        if isinstance(outcome, ResolveError):
            errors.append(outcome)
        else:
            families.append(list(outcome))
    addresses: list[Address] = []
    while any(families):
        addresses += [family.pop(0) for family in families if family]
    if not addresses and errors:
        return errors[0]
    return tuple(addresses)
