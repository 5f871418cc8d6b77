"""Which address of a pool is handed out next: those that were never used before those that were.

The search goes on behind the last address that it gave (`status.ipv4.lastAssigned` of the pool) and starts over at the
end. So an address that came free is given away as late as can be, by one remembered address and without a record of
every one that was ever used. The agents ask on the link for the first of these before they are given.

Invariants:
- The same pool, place and taken addresses give the same order, in the operator and in every agent.
- The place only moves over addresses that are taken, so forgetting it (a lost status) loses a preference, nothing else.
- Standard library only, no I/O; cost follows the addresses that are looked at.
"""

from collections.abc import Collection, Container, Iterator

from sluice_api.addresses import Address, PoolAddresses


def candidates(
    pool: PoolAddresses, version: int, *, after: Address | None, taken: Container[Address]
) -> Iterator[Address]:
    """The addresses of a family that are not `taken`, in the order in which they are handed out.

    `after` is the place of the search, None before the first one. `taken` may grow while the answer is read.
    """
    return (address for address in pool.of_family(version, behind=after) if address not in taken)


def moved_on(pool: PoolAddresses, version: int, *, after: Address | None, taken: Collection[Address]) -> Address | None:
    """The place of the search once the taken addresses right behind `after` have been passed.

    `taken` are addresses of this family of the pool, each once.
    """
    if len(taken) >= pool.count(version):  # perhaps all of them: then there is nothing to search, nor to pass
        return after
    for address in pool.of_family(version, behind=after):
        if address not in taken:
            break
        after = address
    return after
