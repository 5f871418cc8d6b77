"""plan(snapshot) -> Plan: everything the operator decides, in one place and without doing any of it.

```
  snapshot            what is missing                         action, in this order
  pool                its finalizer, or to be let go          SetFinalizers
  policy without id   a number                                AdvanceIds       (compare-and-swap)
  policy, no claim    an address                              Claim            (create: the name is the lock)
  claim x node        a slice of ports                        WriteClaimStatus
  claim, no use       its rest                                WriteClaimStatus
  policy status       id, addresses, revision, conditions     WritePolicyStatus (ascending revision)
  claim, rested       nothing                                 Release
  pool                Deployment, Service, budget             ApplyGatewayObject / DeleteGatewayObject
  pool status         counts, conditions                      WritePoolStatus
```

Invariants:
- A status mentions only addresses whose claim is in the snapshot and does not rest. So a plan that creates claims, or
  ends the rest of one, leaves the statuses of their policies to the next one, and there is no instruction between two
  writes at which a crash loses or doubles anything.
- A claim begins to rest only when no status names its address and no node can be using it, and is deleted only when it
  has rested.
- A plan from the state that a plan leads to is, after a few rounds, empty.
- Pure: no I/O, no clock, no state between calls.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from sluice_api.addresses import object_name
from sluice_api.names import FINALIZER_IN_USE
from sluice_api.reasons import Reason
from sluice_operator.core import gateway, ids, keep, notices, ports, rest, vanished
from sluice_operator.core.actions import (
    Action,
    AdvanceIds,
    Claim,
    DeleteGatewayObject,
    Plan,
    Release,
    SetFinalizers,
    WriteClaimStatus,
    WritePolicyStatus,
    WritePoolStatus,
)
from sluice_operator.core.admission import refusals
from sluice_operator.core.allocate import Allocator, Allotment
from sluice_operator.core.claimstatus import conditions_of
from sluice_operator.core.gatewaystate import GatewayState, state_of
from sluice_operator.core.index import Index, build
from sluice_operator.core.keep import moves_along
from sluice_operator.core.moved import moves
from sluice_operator.core.moved import notices as changes_told
from sluice_operator.core.pools import Refusal, ResolvedPool, admits, judge
from sluice_operator.core.poolstatus import in_use, pool_status
from sluice_operator.core.snapshot import EgressIP, Policy, PolicyKey, Pool, Slice, Snapshot
from sluice_operator.core.status import PolicyFacts, policy_status
from sluice_operator.core.surroundings import Surroundings
from sluice_operator.core.vanished import Vanished
from sluice_operator.core.words import count, names


def plan(snapshot: Snapshot) -> Plan:
    """The writes that bring the cluster closer to what its pools and policies ask for."""
    planner = _Planner(snapshot)
    return Plan(
        (
            *planner.hold_pools(),
            *planner.draw_ids(),
            *planner.claim(),
            *planner.write_claims(),
            *planner.write_policies(),
            *planner.release(),
            *planner.gateways(),
            *planner.write_pools(),
        )
    )


class _Portions(NamedTuple):
    """Slices of a claim, the nodes for which none is left, and how many nodes have one."""

    slices: tuple[Slice, ...]
    left: tuple[str, ...]
    nodes: int


@dataclass(frozen=True, slots=True)
class _Ports:
    """What to write into claims, and the slices of those of which some node got none."""

    writes: tuple[WriteClaimStatus, ...]
    short: Mapping[str, _Portions]


class _Planner:
    """One snapshot's decisions. Everything shared between the steps is computed once, in the constructor."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._index: Index = build(snapshot)
        self._surroundings = Surroundings(snapshot)
        self._pools: Mapping[str, ResolvedPool] = judge(snapshot)
        self._refusals = refusals(snapshot)
        self._allotments = self._allot()
        # A policy that is about to claim gets its status, and hence its id, from the next plan; so does one whose pool
        # is not judged yet; one that is not accepted needs none.
        self._claiming = {
            key for key, allotment in self._allotments.items() if allotment.waits or not allotment.is_claimed
        }
        refused = {key for key, refusal in self._refusals.items() if refusal is not None}
        self._ids = ids.assign(snapshot.policies.values(), last=snapshot.ids.last, later=self._claiming | refused)
        self._proxy_ports = gateway.proxy_ports(snapshot.pools.values(), snapshot.gateway_objects)
        self._gateways: Mapping[str, GatewayState] = {
            name: state_of(pool, snapshot, snapshot.settings, proxy_port=self._proxy_ports[name])
            for name, pool in snapshot.pools.items()
        }
        self._rests = self._lay_to_rest()
        self._ports = self._assign_ports()
        # Another write changes the counts of these pools: their statuses are for the next plan.
        self._recounted = {snapshot.policies[key].pool for key in self._claiming}
        self._recounted |= {
            claim.pool
            for claim in snapshot.egress_ips.values()
            if claim.resting_since != self._rests.get(claim.name, "")
        }

    def _allot(self) -> dict[PolicyKey, Allotment]:
        """Addresses of every policy; one that is refused, or was given none, goes on with what it has."""
        claims_of, policies = self._index.claims_of, self._snapshot.policies
        allowed = [policies[key] for key, refusal in self._refusals.items() if refusal is None]
        allocator = Allocator(self._pools, self._snapshot.egress_ips.values(), policies=policies.values())
        allotments = allocator.allot(allowed, claims_of)
        for key, claims in claims_of.items():
            policy, found = policies.get(key), allotments.get(key, Allotment())
            if policy is None or found.used or found.new:
                continue
            usable = (claim for claim in claims if self._may_use(policy, claim) and not moves_along(policy, claim))
            allotments[key] = replace(found, used=keep.kept(policy, usable))
        return allotments

    def _may_use(self, policy: Policy, claim: EgressIP) -> bool:
        pool = self._snapshot.pools.get(claim.pool)
        return pool is not None and admits(pool, self._snapshot.namespaces.get(policy.key.namespace))

    def _lay_to_rest(self) -> dict[str, str]:
        """By claim that is to rest: since when."""
        used = {claim.name for allotment in self._allotments.values() for claim in allotment.used}
        return {
            name: rest.beginning(claim.resting_since, now=self._snapshot.now)
            for name, claim in self._snapshot.egress_ips.items()
            if name not in used and (claim.resting_since or self._let_go(claim))
        }

    def _let_go(self, claim: EgressIP) -> bool:
        """Whether the policy of a claim that is not used needs it no more, and no node can be using it still."""
        policy = self._snapshot.policies.get(claim.policy)
        if policy is None:
            return claim.policy not in self._index.listed
        allotment = self._allotments.get(policy.key, Allotment())
        settled = allotment.is_claimed and (not allotment.refusals or moves_along(policy, claim))
        if self._refusals[policy.key] is not None or not settled or claim.address in policy.status.addresses:
            return False
        # The policy lives and its status no longer names the address: safe once every node has programmed that status.
        return not self._index.behind(policy.status.revision)

    def _assign_ports(self) -> _Ports:
        writes: list[WriteClaimStatus] = []
        short: dict[str, _Portions] = {}
        answers: dict[tuple[int, int | None], _Portions] = {}
        for claim in self._snapshot.egress_ips.values():
            pool, since = self._snapshot.pools.get(claim.pool), self._rests.get(claim.name, "")
            if claim.deleting:
                continue
            # Projections share equal slices (see `project`), so the question is mostly one that was just answered.
            size = pool.ports_per_slice if pool is not None and not since else None
            question = (id(claim.slices), size)
            if question not in answers:
                answers[question] = self._portions(claim, size=size)
            slices, left, used = answers[question]
            if pool is None and not since:  # nobody can say how large a slice is to be
                slices, used = claim.slices, claim.nodes
            if left:
                short[claim.name] = answers[question]
            said = conditions_of(claim, pool, self._index, slices=slices, resting_since=since, now=self._snapshot.now)
            if (slices, used, since, said) != (claim.slices, claim.nodes, claim.resting_since, claim.conditions):
                writes.append(
                    WriteClaimStatus(claim.name, slices, since, said, claim.generation, claim.resource_version)
                )
        return _Ports(tuple(writes), short)

    def _portions(self, claim: EgressIP, *, size: int | None) -> _Portions:
        """A claim's slices, of `size` ports each; without a size (it rests) no node gets one."""
        vanished_ones = Vanished(self._snapshot)
        if size is None:
            slices, left = vanished_ones.of_resting(claim), tuple[str, ...]()
        else:
            slices, left = ports.assign(claim.slices, self._snapshot.nodes, size=size, gone=vanished_ones.kept)
        return _Portions(slices, left, sum(1 for entry in slices if not entry.vanished))

    def hold_pools(self) -> Iterator[Action]:
        """Put the finalizer on every pool, so that a pool cannot vanish under a claim that is being made.

        Take it from a pool that is being deleted and that nothing uses.
        """
        for pool in self._snapshot.pools.values():
            finalizers = self._finalizers_of(pool)
            if finalizers != pool.finalizers:
                yield SetFinalizers(pool.name, finalizers, pool.resource_version)

    def _finalizers_of(self, pool: Pool) -> tuple[str, ...]:
        others = tuple(name for name in pool.finalizers if name != FINALIZER_IN_USE)
        if not pool.deleting:
            return pool.finalizers if FINALIZER_IN_USE in pool.finalizers else (*others, FINALIZER_IN_USE)
        return pool.finalizers if in_use(pool.name, self._index) else others

    def draw_ids(self) -> Iterator[Action]:
        """Move the counter past the ids that statuses are about to name."""
        if self._ids.drawn:
            yield AdvanceIds(self._ids.last, self._snapshot.ids.resource_version)

    def claim(self) -> Iterator[Action]:
        """Claim what policies lack."""
        for key, allotment in self._allotments.items():
            policy = self._snapshot.policies[key]
            for address in allotment.new:
                yield Claim(object_name(address), address, policy.pool, key, policy.uid, claimed=self._snapshot.now)

    def write_claims(self) -> Iterator[Action]:
        """Slices for nodes that came, none for nodes that went or while nobody uses the address; rests."""
        yield from self._ports.writes

    def write_policies(self) -> Iterator[Action]:
        """Statuses that differ, in ascending revision (see `status.policy_status` for why the order matters)."""
        newest = max((policy.status.revision for policy in self._snapshot.policies.values()), default=0)
        writes: list[WritePolicyStatus] = []
        for key, policy in self._snapshot.policies.items():
            if key in self._claiming:
                continue
            allotment, claims = self._allotments.get(key, Allotment()), self._index.claims_of.get(key, ())
            refusal = self._refusals[key]
            moved = moves(allotment.used, claims, self._snapshot.pools) if len(claims) > len(allotment.used) else ()
            facts = PolicyFacts(
                refusal=refusal and replace(refusal, message=refusal.message + keep.words(allotment.used, claims)),
                unassigned=tuple(self._lacking(policy, allotment)),
                addresses=allotment.addresses,
                outside=allotment.outside,
                moved=moved,
                taken=tuple(self._taken(allotment)),
                futile=tuple(self._surroundings.of_policy(policy, allotment.addresses)) if refusal is None else (),
                id=self._ids.ids.get(key),
                newest_revision=newest,
            )
            status = policy_status(policy, facts, self._index, now=self._snapshot.now)
            newest = max(newest, status.revision)
            if status != policy.status:
                told = notices.of_policy(policy, status.conditions) + changes_told(policy, status.addresses, moved)
                writes.append(WritePolicyStatus(key, status, policy.resource_version, told))
        yield from sorted(writes, key=lambda write: write.status.revision)

    def _taken(self, allotment: Allotment) -> Iterator[str]:
        """What a policy has that somebody else has too, in words."""
        for claim in allotment.used:
            resolved = self._pools.get(claim.pool)
            taking = resolved.taken.of(claim.address) if resolved is not None else None
            if taking is not None:
                yield f"{claim.address} ({taking.owner})"

    def _lacking(self, policy: Policy, allotment: Allotment) -> Iterator[Refusal]:
        yield from allotment.refusals
        for claim in allotment.used:
            short = self._ports.short.get(claim.name)
            if short is not None:
                size = self._snapshot.pools[claim.pool].ports_per_slice
                resting = vanished.words(short.slices, resting=self._snapshot.settings.vanished_node_rest)
                yield Refusal(
                    Reason.PORTS_EXHAUSTED,
                    f"{claim.address} has {count(len(short.slices), 'slice')} of {size} ports{resting}, none is left "
                    f"for {names(short.left)}, whose pods are dropped; use a pool with smaller spec.portsPerSlice",
                )
        if policy.key not in self._ids.ids and self._refusals[policy.key] is None:
            yield Refusal(Reason.PENDING, "every policy id is in use; delete policies that are no longer needed")

    def release(self) -> Iterator[Action]:
        """Delete claims that have rested, unless a policy of that name has come and is not (yet) accepted.

        One that still has slices waits: their nodes have vanished, and may go on with what they were told.
        """
        pools, now = self._snapshot.pools, self._snapshot.now
        for claim in self._snapshot.egress_ips.values():
            since = self._rests.get(claim.name)
            if claim.deleting or since is None or since != claim.resting_since or claim.slices:
                continue
            policy = self._snapshot.policies.get(claim.policy)
            if policy is not None and self._refusals[policy.key] is not None:
                continue
            if rest.is_over(claim, pools, now=now) or (policy is not None and moves_along(policy, claim)):
                yield Release(claim.name, claim.uid, claim.address, claim.policy, claim.resource_version)

    def gateways(self) -> Iterator[Action]:
        """Bring each pool's gateway objects to what they ought to be."""
        for name, resolved in self._pools.items():
            pool = resolved.pool
            if pool.deleting and not in_use(name, self._index):
                continue
            state = self._gateways[name]
            yield from state.applies
            yield from self._surplus(pool, {gateway.key_of(document) for document in state.documents})

    def _surplus(self, pool: Pool, wanted: set[tuple[str, str]]) -> Iterable[Action]:
        for key, live in self._snapshot.gateway_objects.items():
            if live.pool == pool.name and key not in wanted and not live.deleting:
                yield DeleteGatewayObject(*key)

    def write_pools(self) -> Iterator[Action]:
        """Pool statuses that differ."""
        for name, resolved in self._pools.items():
            pool = resolved.pool
            if name in self._recounted or self._finalizers_of(pool) != pool.finalizers:
                continue  # another write changes the pool or its counts: its status is for the next plan
            if self._gateways[name].undecided and not (pool.deleting and not in_use(name, self._index)):
                continue  # whether the API server takes its gateway objects is known to the next plan
            if resolved.awaited:
                continue  # not judged yet
            status = pool_status(
                resolved,
                self._index,
                self._snapshot.settings,
                gateways=self._gateways[name],
                surroundings=self._surroundings,
                proxy_port=self._proxy_ports[name],
                now=self._snapshot.now,
            )
            if status != pool.status:
                told = notices.of_pool(pool, status.conditions, resolved.refusal)
                yield WritePoolStatus(name, status, pool.resource_version, told)
