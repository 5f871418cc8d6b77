"""What each pool can give: its addresses, whether it is accepted, whether it is on its way out.

Invariants:
- An address lies within the ranges of at most one accepted pool: of two pools that overlap the younger is not
  accepted, so a new pool never disturbs one that is in use.
- A pool that is not accepted gives nothing new; what was assigned from it before stays. (One exception: where only
  single addresses are withheld, the others are given. See `taken`.)
- An address that somebody else has is never given.
- Pure: no I/O, no clock.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import filterfalse

from sluice_api.addresses import AddressError, PoolAddresses
from sluice_api.candidates import candidates
from sluice_api.reasons import Reason
from sluice_operator.core.snapshot import Address, Namespace, Pool, Reservation, Snapshot
from sluice_operator.core.survey import awaited
from sluice_operator.core.taken import NOTHING, Takings, takings


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something is not accepted or not assigned."""

    reason: Reason
    message: str
    told: str = ""
    """The same for administrators, by way of an Event: names what the message, which tenants may read, leaves out."""
    passing: bool = False
    """Whether it ends by itself, though its reason mostly does not."""


@dataclass(frozen=True, slots=True)
class ResolvedPool:
    """A pool with its addresses read; `addresses` is None when they cannot be. `families`: those it has.

    `taken` is what others have of it, `awaited` the nodes that have yet to look (see `survey`), `reserved` what is kept
    for somebody (see `shares`).
    """

    pool: Pool
    addresses: PoolAddresses | None
    families: frozenset[int]
    refusal: Refusal | None
    taken: Takings = NOTHING
    awaited: frozenset[str] = frozenset()
    reserved: Mapping[Address, Reservation] = field(default_factory=dict)

    @property
    def gives(self) -> bool:
        """Whether new addresses may be assigned from it, other than those that are taken."""
        sound = self.refusal is None or (self.refusal.reason == Reason.ADDRESS_TAKEN and not self.taken.whole)
        return sound and not self.pool.deleting and not self.awaited

    def __contains__(self, address: Address) -> bool:
        return self.addresses is not None and address in self.addresses

    def total(self, version: int) -> int:
        """How many addresses of a family it has."""
        return 0 if self.addresses is None else self.addresses.count(version)

    def candidates(self, version: int, *, taken: Container[Address]) -> Iterator[Address]:
        """Its addresses of a family that neither are `taken` nor reserved nor somebody else's, in order of search."""
        if self.addresses is None:
            return iter(())
        after = self.pool.status.family(version).last_assigned
        found = candidates(self.addresses, version, after=after, taken=taken)
        if self.reserved:
            found = filterfalse(self.reserved.__contains__, found)
        return (address for address in found if address not in self.taken) if self.taken else found


def judge(snapshot: Snapshot) -> Mapping[str, ResolvedPool]:
    """What each pool of a snapshot can give: by its spec, by who else has its addresses, by who has yet to look."""
    resolved = resolve(snapshot.pools.values())
    missing = awaited(snapshot)
    readable = {name: entry.addresses for name, entry in resolved.items() if entry.addresses is not None}
    taken = takings(readable, snapshot)
    return {
        name: _amended(entry, taken.get(name, entry.taken), missing.get(name, entry.awaited))
        for name, entry in resolved.items()
    }


def _amended(resolved: ResolvedPool, taken: Takings, missing: frozenset[str]) -> ResolvedPool:
    if not taken and not missing:
        return resolved
    refusal, name = resolved.refusal, resolved.pool.name
    if taken and refusal is None:
        refusal = Refusal(Reason.ADDRESS_TAKEN, taken.message(name), taken.message(name, full=True))
    return replace(resolved, refusal=refusal, taken=taken, awaited=missing)


def admits(pool: Pool, namespace: Namespace | None) -> bool:
    """Whether policies of a namespace may use a pool; None: the namespace is not known (yet, or any more)."""
    return pool.namespaces is None or (namespace is not None and pool.namespaces.matches(namespace.labels))


def resolve(pools: Iterable[Pool]) -> Mapping[str, ResolvedPool]:
    """Read every pool's addresses and decide which specs stand, older ones first.

    Who else has an address does not count here: a pool's claim to its range must not come and go with a neighbour.
    """
    resolved: dict[str, ResolvedPool] = {}
    for pool in sorted(pools, key=lambda pool: (pool.created, pool.name)):
        try:
            addresses = PoolAddresses.parse(pool.addresses, pool.exclude)
        except AddressError as error:
            resolved[pool.name] = ResolvedPool(pool, None, frozenset(), Refusal(Reason.INVALID_SPEC, str(error)))
            continue
        families = frozenset(version for version in (4, 6) if addresses.blocks(version))
        overlap = _overlap(pool, addresses, resolved.values())
        problem = Refusal(Reason.INVALID_SPEC, "; ".join(pool.problems)) if pool.problems else None
        reserved = {entry.address: entry for entry in pool.reservations}
        resolved[pool.name] = ResolvedPool(pool, addresses, families, overlap or problem, reserved=reserved)
    return resolved


def _overlap(pool: Pool, addresses: PoolAddresses, older: Iterable[ResolvedPool]) -> Refusal | None:
    for other in older:
        if other.addresses is None or (other.refusal is not None and not other.pool.problems):
            continue  # a slip elsewhere in an older pool's spec gives nobody else its addresses
        shared = addresses.overlap(other.addresses)
        if shared is not None:
            return Refusal(
                Reason.OVERLAPS_POOL,
                f"{shared} is also in pool {other.pool.name}, which is older; "
                f"remove it from spec.addresses of {pool.name} or of {other.pool.name}, or add it to spec.exclude",
            )
    return None
