"""Which addresses a policy uses, which it still has to claim, and which it no longer needs.

Invariants:
- A claim (an EgressIP object) is the truth: what a policy has claimed it keeps, whatever became of its status.
- Only an address that no claim holds is claimed, and within one plan each address once. The API server refuses a
  second object of the same name, so even two leaders cannot give one address to two policies.
- Idempotent: when the claims exist the next plan claims nothing.
- Restore before allocate: addresses that a status remembers and addresses that are asked for by name are settled for
  every policy before anyone is given "the lowest free one".
- Make before break: an address is let go only when the one that replaces it is claimed.
- Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sluice_api.reasons import Reason
from sluice_operator.core.pools import Refusal, ResolvedPool
from sluice_operator.core.snapshot import Address, EgressIP, Policy, PolicyKey
from sluice_operator.core.words import names


@dataclass(frozen=True, slots=True)
class Allotment:
    """The outcome for one policy: `used` are claims it has, `new` are addresses to claim, `refusals` say what lacks."""

    used: tuple[EgressIP, ...] = ()
    new: tuple[Address, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    outside: tuple[Address, ...] = ()
    """Addresses in use that are no longer within the pool's ranges: kept until the policy lets go of them."""


class Allocator:
    """Decides for all policies of one snapshot; create one a plan."""

    def __init__(self, pools: Mapping[str, ResolvedPool], claims: Iterable[EgressIP]) -> None:
        self._pools = pools
        self._owners: dict[Address, PolicyKey] = {}
        self._claimed_in: dict[Address, str] = {}
        for claim in claims:
            self._owners[claim.address] = claim.policy
            self._claimed_in[claim.address] = claim.pool
        self._cursors: dict[tuple[str, int], Iterator[Address]] = {}

    def allot(
        self, policies: Iterable[Policy], claims_of: Mapping[PolicyKey, tuple[EgressIP, ...]]
    ) -> dict[PolicyKey, Allotment]:
        """Decide for `policies` (those that may use their pools), older ones first."""
        decided: dict[PolicyKey, Allotment] = {}
        open_ones: list[tuple[Policy, list[EgressIP]]] = []
        for policy in policies:
            mine = [claim for claim in claims_of.get(policy.key, ()) if claim.pool == policy.pool]
            if self._has_all(policy, mine):
                decided[policy.key] = self._allotment(policy, used=mine)
            else:
                open_ones.append((policy, mine))
        open_ones.sort(key=lambda entry: (entry[0].created, entry[0].key))
        named = [self._named(policy, mine) for policy, mine in open_ones]
        for (policy, mine), answers in zip(open_ones, named, strict=True):
            decided[policy.key] = self._settle(policy, mine, answers)
        return decided

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
            requested = next((address for address in policy.requested if address.version == version), None)
            if requested is not None:
                if requested not in held:
                    answers[version] = self._take(policy, pool, requested) or requested
                continue
            if version in versions:
                continue
            remembered = next((address for address in policy.status.addresses if address.version == version), None)
            if remembered is not None and self._take(policy, pool, remembered) is None:
                answers[version] = remembered
        return answers

    def _settle(self, policy: Policy, mine: list[EgressIP], named: Mapping[int, Address | Refusal]) -> Allotment:
        """Second pass: what is used, with the lowest free address for each family that has nothing yet."""
        pool = self._pools[policy.pool]
        used: list[EgressIP] = []
        new: list[Address] = []
        refusals: list[Refusal] = []
        for version in _families(policy, pool, [claim.address.version for claim in mine]):
            held = _preferred(policy, [claim for claim in mine if claim.address.version == version])
            answer = named.get(version)
            if held is not None:
                used.append(held)
            if answer is None and held is None:
                answer = self._lowest_free(policy, pool, version)
            if isinstance(answer, Refusal):
                kept = f"; {held.address} is kept until then" if held is not None else ""
                refusals.append(Refusal(answer.reason, answer.message + kept))
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
        return Allotment(tuple(used), new, refusals, tuple(outside))

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
        owner = self._owners.get(address)
        if owner is not None and owner != policy.key:
            return Refusal(
                Reason.ADDRESS_IN_USE,
                f"{address} belongs to policy {owner}; request another address or remove it there",
            )
        before = self._claimed_in.get(address)
        if before is not None:
            return Refusal(
                Reason.PENDING,
                f"{address} is still claimed from pool {before}; it moves when every node has let go of it",
            )
        self._owners[address] = policy.key
        return None

    def _lowest_free(self, policy: Policy, pool: ResolvedPool, version: int) -> Address | Refusal:
        if not pool.gives:
            return _not_giving(pool)
        # Taken addresses only grow while one plan is made, so the search goes on where the last one ended.
        cursor = self._cursors.setdefault((pool.pool.name, version), pool.walk(version))
        for address in cursor:
            if address not in self._owners:
                self._owners[address] = policy.key
                return address
        total, name = pool.total(version), pool.pool.name
        if not total:
            return Refusal(
                Reason.POOL_EXHAUSTED,
                f"pool {name} has no IPv{version} addresses; add some to the pool, "
                f"or leave IPv{version} out of spec.addresses.families",
            )
        return Refusal(
            Reason.POOL_EXHAUSTED,
            f"pool {name} has no free IPv{version} address ({total} of {total} assigned); "
            f"add addresses to the pool, remove policies, or leave IPv{version} out of spec.addresses.families",
        )


def _families(policy: Policy, pool: ResolvedPool, held: Iterable[int]) -> list[int]:
    """The families a policy has by now or ought to have; a pool that lost a family does not take it from a policy."""
    if policy.families is not None:
        return sorted(policy.families)
    return sorted(pool.families.union(held))


def _preferred(policy: Policy, claims: list[EgressIP]) -> EgressIP | None:
    """Of several claims of one family (a request changed, a plan was interrupted) the one to go on with."""
    for wanted in (policy.requested, policy.status.addresses):
        for claim in claims:
            if claim.address in wanted:
                return claim
    return claims[0] if claims else None


def _not_giving(pool: ResolvedPool) -> Refusal:
    name = pool.pool.name
    if pool.pool.deleting:
        return Refusal(Reason.PENDING, f"pool {name} is being deleted; name another pool in spec.pool")
    why = pool.refusal.message if pool.refusal is not None else "its status says why"
    return Refusal(Reason.PENDING, f"pool {name} is not accepted: {why}")
