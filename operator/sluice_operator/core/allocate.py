"""Which addresses a policy uses, which it still has to claim, and which it no longer needs.

Invariants:
- A claim (an EgressIP object) is the truth: what a policy has claimed it keeps, whatever became of its status.
- Only an address that no claim holds is claimed, and within one plan each address once. The API server refuses a
  second object of the same name, so even two leaders cannot give one address to two policies.
- Idempotent: when the claims exist the next plan claims nothing.
- Restore before allocate: addresses that a status remembers and addresses that are asked for by name are settled for
  every policy before anyone is given the next free one. What a status remembers nobody else is given: nodes use it.
- What is reserved, and how much a namespace may have, is respected (see `shares`).
- What rests (see `rest`) is given to the policy that it rests for and to no other.
- Of two claims of one policy the older one counts: the younger was made because the older was not there (a backup that
  was restored late). What was asked for by name counts before it.
- Make before break: an address is let go only when the one that replaces it is claimed.
- Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from sluice_api.addresses import object_name
from sluice_api.reasons import Reason
from sluice_operator.core import rest
from sluice_operator.core.pools import Refusal, ResolvedPool
from sluice_operator.core.shares import Quotas, is_kept_from, reserved_for
from sluice_operator.core.snapshot import Address, EgressIP, Policy, PolicyKey, Pool
from sluice_operator.core.words import names


@dataclass(frozen=True, slots=True)
class Allotment:
    """The outcome for one policy: `used` are claims it has, `new` are addresses to claim, `refusals` say what lacks."""

    used: tuple[EgressIP, ...] = ()
    new: tuple[Address, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    outside: tuple[Address, ...] = ()
    """Addresses in use that are no longer within the pool's ranges: kept until the policy lets go of them."""
    waits: bool = False
    """Its pool is not judged yet (see `survey`): nothing is to be said of what it lacks before that."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """What is used, as addresses."""
        return tuple(claim.address for claim in self.used)

    @property
    def is_claimed(self) -> bool:
        """Whether nothing is left to claim, and nothing that is used rests: then a status may name it."""
        return not self.new and not any(claim.resting_since for claim in self.used)


class Allocator:
    """Decides for all policies of one snapshot; create one a plan."""

    def __init__(
        self, pools: Mapping[str, ResolvedPool], claims: Iterable[EgressIP], *, policies: Iterable[Policy] = ()
    ) -> None:
        """`policies` are all there are, those that may not use their pools too: their statuses name what nodes use."""
        self._pools = pools
        self._claims = {claim.address: claim for claim in claims}
        self._owners: dict[Address, PolicyKey] = {address: claim.policy for address, claim in self._claims.items()}
        lost = [
            (policy.created, policy.key, address)
            for policy in policies
            for address in policy.status.addresses
            if address not in self._owners
        ]
        for _, key, address in sorted(lost, key=lambda entry: entry[:2]):
            self._owners.setdefault(address, key)
        self._quotas = Quotas(self._claims.values(), self._by_name)
        self._cursors: dict[tuple[str, int], Iterator[Address]] = {}
        self._resting: dict[tuple[str, int], tuple[int, str]] = {}

    def allot(
        self, policies: Iterable[Policy], claims_of: Mapping[PolicyKey, tuple[EgressIP, ...]]
    ) -> dict[PolicyKey, Allotment]:
        """Decide for `policies` (those that may use their pools), older ones first."""
        decided: dict[PolicyKey, Allotment] = {}
        open_ones: list[tuple[Policy, list[EgressIP]]] = []
        for policy in policies:
            mine = [claim for claim in claims_of.get(policy.key, ()) if self._counts(claim, policy)]
            if self._has_all(policy, mine):
                decided[policy.key] = self._allotment(policy, used=mine)
            else:
                open_ones.append((policy, mine))
        open_ones.sort(key=lambda entry: (entry[0].created, entry[0].key))
        named = [self._named(policy, mine) for policy, mine in open_ones]
        for (policy, mine), answers in zip(open_ones, named, strict=True):
            decided[policy.key] = self._settle(policy, mine, answers)
        return decided

    def _counts(self, claim: EgressIP, policy: Policy) -> bool:
        """Whether a claim of a policy is one to go on with; one that rests only if its pool still has the address."""
        return claim.pool == policy.pool and (not claim.resting_since or claim.address in self._pools[policy.pool])

    def _has_all(self, policy: Policy, mine: list[EgressIP]) -> bool:
        """Whether a policy that asks for no exact address has one of each family: nearly all have, nearly always."""
        held = [claim.address.version for claim in mine]
        return not policy.requested and held == _families(policy, self._pools[policy.pool], held)

    def _named(self, policy: Policy, mine: list[EgressIP]) -> dict[int, Address | Refusal]:
        """First pass, by family: the exact address that the policy asks for or remembers, where it must be claimed."""
        pool = self._pools[policy.pool]
        held = [claim.address for claim in mine]
        versions = [address.version for address in held]
        answers: dict[int, Address | Refusal] = {}
        for version in _families(policy, pool, versions):
            remembered = next((address for address in policy.status.addresses if address.version == version), None)
            if version not in versions and remembered is not None and self._take(policy, pool, remembered) is None:
                answers[version] = remembered
                continue
            requested = next((address for address in policy.requested if address.version == version), None)
            if requested is not None and requested not in held:
                answers[version] = self._take(policy, pool, requested) or requested
        return answers

    def _settle(self, policy: Policy, mine: list[EgressIP], named: Mapping[int, Address | Refusal]) -> Allotment:
        """Second pass: what is used, with the next free address for each family that has nothing yet."""
        pool = self._pools[policy.pool]
        used: list[EgressIP] = []
        new: list[Address] = []
        refusals: list[Refusal] = []
        for version in _families(policy, pool, [claim.address.version for claim in mine]):
            held = _preferred(policy, [claim for claim in mine if claim.address.version == version])
            answer = named.get(version)
            if held is not None and held.resting_since and answer is not None and not isinstance(answer, Refusal):
                held = None  # nothing uses it, so there is nothing to bridge until the other one is claimed
            if held is not None:
                used.append(held)
            if answer is None and held is None:
                answer = self._next_free(policy, pool, version)
            if isinstance(answer, Refusal):
                kept = f"; {held.address} is kept until then" if held is not None else ""
                refusals.append(replace(answer, message=answer.message + kept))
            elif answer is not None:
                new.append(answer)
        return self._allotment(policy, used=used, new=tuple(new), refusals=tuple(refusals))

    def _allotment(
        self,
        policy: Policy,
        *,
        used: list[EgressIP],
        new: tuple[Address, ...] = (),
        refusals: tuple[Refusal, ...] = (),
    ) -> Allotment:
        pool = self._pools[policy.pool]
        outside = (claim.address for claim in used if pool.addresses is not None and claim.address not in pool)
        return Allotment(tuple(used), new, refusals, tuple(outside), waits=bool(refusals and pool.awaited))

    def _take(self, policy: Policy, pool: ResolvedPool, address: Address) -> Refusal | None:
        """Reserve one exact address, or say why not."""
        if not pool.gives:
            return _not_giving(pool)
        if address not in pool:
            return Refusal(
                Reason.ADDRESS_NOT_IN_POOL,
                f"spec.addresses.requested: {address} is not an address of pool {pool.pool.name}; "
                f"request one of {names(pool.pool.addresses)}, or add it to the pool",
            )
        refusal = self._withheld(policy, pool, address)
        if refusal is None:
            self._give(policy, address)
        return refusal

    def _withheld(self, policy: Policy, pool: ResolvedPool, address: Address) -> Refusal | None:
        """Why an address of a pool is not for this policy; None when it may claim it."""
        lost = address in policy.status.addresses  # nodes use it: it was given, and only its claim is gone
        owner, claim = self._owners.get(address), self._claims.get(address)
        if owner is not None and owner != policy.key:
            return Refusal(Reason.ADDRESS_IN_USE, self._whose(policy, address, owner, claim))
        if is_kept_from(policy, pool, address) and not lost:
            return Refusal(
                Reason.ADDRESS_IN_USE,
                f"spec.addresses.requested: {address} is reserved for others; request another address, or none",
            )
        taken = pool.taken.of(address)
        if taken is not None:
            return Refusal(
                Reason.ADDRESS_TAKEN,
                f"spec.addresses.requested: {address} is not free ({taken.owner}); request another address, or none",
            )
        if claim is not None:
            return Refusal(
                Reason.PENDING,
                f"{address} is still claimed from pool {claim.pool}; it moves as soon as no node uses it",
            )
        return None if lost else self._quotas.refusal(policy, address.version)

    def _give(self, policy: Policy, address: Address) -> None:
        self._owners[address] = policy.key
        self._quotas.take(policy, address.version)

    def _whose(self, policy: Policy, address: Address, owner: PolicyKey, claim: EgressIP | None) -> str:
        until = rest.until(claim, self._by_name) if claim is not None else ""
        if until:
            return (
                f"{address} rests until {until} for the policy that had it; request another address, or have an "
                f"administrator end the rest: kubectl delete egressip {object_name(address)}"
            )
        # Other tenants' policies are not for this one's author to read of.
        known = f"policy {owner.name}" if owner.namespace == policy.key.namespace else "another policy"
        return f"spec.addresses.requested: {address} belongs to {known}; request another address, or none"

    @cached_property
    def _by_name(self) -> dict[str, Pool]:
        return {name: resolved.pool for name, resolved in self._pools.items()}

    def _next_free(self, policy: Policy, pool: ResolvedPool, version: int) -> Address | Refusal:
        if not pool.gives:
            return _not_giving(pool)
        # Taken addresses only grow while one plan is made, so the search goes on where the last one ended.
        exceeded = self._quotas.refusal(policy, version)
        if exceeded is not None:
            return exceeded
        key = (pool.pool.name, version)
        if key not in self._cursors:
            self._cursors[key] = pool.candidates(version, taken=self._owners)
        kept = (a for a in reserved_for(policy, pool, version) if a not in self._owners and a not in pool.taken)
        for address in chain(kept, self._cursors[key]):
            self._give(policy, address)
            return address
        total, name, lost = pool.total(version), pool.pool.name, self._lost(pool, version)
        kept_back = sum(1 for a in pool.reserved if a.version == version and a in pool and a not in self._owners)
        others = f", {lost} in use by others" if lost else ""
        others += f", {kept_back} reserved" if kept_back else ""
        lost += kept_back
        if not total:
            return Refusal(
                Reason.POOL_EXHAUSTED,
                f"pool {name} has no IPv{version} addresses; add some to the pool, "
                f"or leave IPv{version} out of spec.addresses.families",
            )
        resting, until = self._rests(pool, version)
        if resting:
            return Refusal(
                Reason.POOL_EXHAUSTED,
                f"pool {name} has no free IPv{version} address ({total - resting - lost} of {total} assigned, "
                f"{resting} resting for policies that had them{others}); the next comes free at {until}; "
                "add addresses to the pool, or have an administrator end a rest (kubectl delete egressip)",
                passing=True,
            )
        return Refusal(
            Reason.POOL_EXHAUSTED,
            f"pool {name} has no free IPv{version} address ({total - lost} of {total} assigned{others}); "
            f"add addresses to the pool, remove policies, or leave IPv{version} out of spec.addresses.families",
        )

    def _lost(self, pool: ResolvedPool, version: int) -> int:
        """How many addresses of a pool and family nobody can be given, since something else has them."""
        if not pool.taken:
            return 0
        given = sum(1 for address in self._owners if address.version == version and address in pool.taken)
        return pool.taken.count(version) - given

    def _rests(self, pool: ResolvedPool, version: int) -> tuple[int, str]:
        """How many addresses of a pool and family rest, and until when the first of them."""
        key = (pool.pool.name, version)
        if key not in self._resting:
            ends = [
                rest.until(claim, self._by_name)
                for claim in self._claims.values()
                if claim.address.version == version and claim.resting_since and claim.address in pool
            ]
            self._resting[key] = len(ends), min(ends, default="")
        return self._resting[key]


def _families(policy: Policy, pool: ResolvedPool, held: Iterable[int]) -> list[int]:
    """The families a policy has by now or ought to have; a pool that lost a family does not take it from a policy."""
    if policy.families is not None:
        return sorted(policy.families)
    return sorted(pool.families.union(held))


def _preferred(policy: Policy, claims: list[EgressIP]) -> EgressIP | None:
    """Of several claims of one family (a request changed, a plan was interrupted) the one to go on with."""
    for claim in claims:
        if claim.address in policy.requested:
            return claim
    active = [claim for claim in claims if not claim.resting_since]
    if active:
        return min(active, key=lambda claim: (claim.claimed, claim.address not in policy.status.addresses))
    return max(claims, key=lambda claim: claim.resting_since, default=None)


def _not_giving(pool: ResolvedPool) -> Refusal:
    """Why a pool gives nothing. What is wrong with it may name other pools, which is not for every tenant to read."""
    name = pool.pool.name
    if pool.pool.deleting:
        return Refusal(Reason.PENDING, f"pool {name} is being deleted; name another pool in spec.pool")
    if pool.refusal is None:
        return Refusal(Reason.PENDING, f"the nodes have yet to see whether the addresses of pool {name} are free")
    return Refusal(
        Reason.PENDING,
        f"pool {name} is not accepted ({pool.refusal.reason}), and gives nothing until its administrator has mended "
        "it; its status says what is wrong",
    )
