"""Who may have how much of a pool: addresses that are reserved, and how many one namespace may have.

Invariants:
- A reserved address is given to nobody but whom it is reserved for, and those are given it before any other.
- Neither takes anything away: what is assigned, or rests for its policy, stays what it is when a reservation is made or
  a quota is lowered.
- A quota counts addresses that rest too, or a tenant could use up a pool by making policies and deleting them.
- Pure: no I/O, no clock.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sluice_api.reasons import Reason
from sluice_operator.core import rest
from sluice_operator.core.pools import Refusal, ResolvedPool
from sluice_operator.core.snapshot import Address, EgressIP, Policy, Pool


def reserved_for(policy: Policy, pool: ResolvedPool, version: int) -> Iterator[Address]:
    """Addresses of a family that are reserved for a policy, those for it alone before those for its namespace."""
    found = [entry for entry in pool.reserved.values() if entry.address.version == version and entry.admits(policy.key)]
    found.sort(key=lambda entry: not entry.policy)
    return (entry.address for entry in found)


def is_kept_from(policy: Policy, pool: ResolvedPool, address: Address) -> bool:
    """Whether an address is reserved for others than this policy."""
    entry = pool.reserved.get(address)
    return entry is not None and not entry.admits(policy.key)


@dataclass(slots=True)
class Quotas:
    """How many addresses namespaces have of pools that limit them; `take` counts one more while a plan is made."""

    claims: Iterable[EgressIP]
    pools: Mapping[str, Pool]
    _held: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    _resting: dict[tuple[str, str, int], list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limited = {name for name, pool in self.pools.items() if pool.quota is not None}
        for claim in self.claims if limited else ():
            if claim.pool in limited:
                key = (claim.pool, claim.policy.namespace, claim.address.version)
                self._held[key] += 1
                if claim.resting_since:
                    self._resting.setdefault(key, []).append(rest.until(claim, self.pools))

    def refusal(self, policy: Policy, version: int) -> Refusal | None:
        """Why a policy's namespace may have no further address of a family of its pool; None when it may."""
        pool = self.pools[policy.pool]
        key = (pool.name, policy.key.namespace, version)
        if pool.quota is None or self._held[key] < pool.quota:
            return None
        ends = self._resting.get(key, ())
        resting = f", {len(ends)} of them resting, the first until {min(ends)}" if ends else ""
        return Refusal(
            Reason.QUOTA_EXCEEDED,
            f"namespace {policy.key.namespace} has {self._held[key]} IPv{version} addresses of pool {pool.name}, whose "
            f"spec.quota.addressesPerNamespace is {pool.quota}{resting}; delete policies of the namespace, or ask the "
            "administrator of the pool for more",
        )

    def take(self, policy: Policy, version: int) -> None:
        """Count an address that is about to be claimed."""
        self._held[policy.pool, policy.key.namespace, version] += 1
