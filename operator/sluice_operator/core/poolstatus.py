"""A pool's status: is it healthy, is it running out, and may it go?

Invariants:
- Counts are of claims (EgressIP objects), the truth about assignment, not of statuses.
- A pool that is being deleted stays while anything uses it, and says how much.
- Nothing here names a policy, a namespace or an assigned address: tenants may read pools.
- Pure: no I/O; the time is an argument.
"""

from collections.abc import Iterator

from sluice_api.candidates import moved_on
from sluice_api.reasons import ConditionType, Reason
from sluice_operator.core import troubles
from sluice_operator.core.conditions import Verdict, conditions
from sluice_operator.core.degraded import Shortfall, degraded, stalled
from sluice_operator.core.gateway import deployment_name, proxy_url
from sluice_operator.core.gatewaystate import GatewayState
from sluice_operator.core.index import Index
from sluice_operator.core.pools import ResolvedPool
from sluice_operator.core.selectors import shown
from sluice_operator.core.silence import of_gateways
from sluice_operator.core.snapshot import EgressIP, FamilyCount, PolicyKey, Pool, PoolStatus, Settings
from sluice_operator.core.surroundings import Surroundings
from sluice_operator.core.words import count, names


def pool_status(
    resolved: ResolvedPool,
    index: Index,
    settings: Settings,
    *,
    gateways: GatewayState,
    surroundings: Surroundings,
    proxy_port: int,
    now: str,
) -> PoolStatus:
    """The status a pool ought to have."""
    pool = resolved.pool
    claims = index.claims_in.get(pool.name, ())
    policies = index.policies_of.get(pool.name, ())
    ready_on = index.ready_gateways.get(pool.name, ())
    hint = _where_to_look(pool, gateways, surroundings) if len(ready_on) < pool.gateways.replicas else ""
    accepted = _accepted(resolved)
    troubled = tuple(troubles.of_pool(pool.name, index))
    ready = _ready(
        resolved,
        accepted,
        claims=claims,
        policies=policies,
        gateways=gateways,
        ready_on=ready_on,
        troubled=troubled,
        hint=hint,
    )
    shortfalls = (
        ()
        if resolved.refusal is not None or pool.deleting
        else (*_of_gateways(pool, gateways, ready_on, hint), *surroundings.of_pool(resolved))
    )
    lacking = degraded((*troubled, *shortfalls, *of_gateways(ready_on, index)))
    ipv4, ipv6 = _family(resolved, claims, 4), _family(resolved, claims, 6)
    return PoolStatus(
        observed_generation=pool.generation,
        ipv4=ipv4,
        ipv6=ipv6,
        gateways_desired=pool.gateways.replicas,
        gateways_ready=len(ready_on),
        gateway_nodes=ready_on,
        policies=len(policies),
        namespaces=shown(pool.namespaces),
        proxy=proxy_url(pool, settings),
        proxy_port=proxy_port,
        conditions=conditions(
            pool.status.conditions,
            (accepted, ready, lacking, stalled((accepted, ready, lacking))),
            generation=pool.generation,
            now=now,
        ),
    )


def in_use(name: str, index: Index) -> bool:
    """Whether a pool must stay: a policy names it, or has one of its addresses. What rests does so without its pool."""
    return bool(index.policies_of.get(name)) or any(not c.resting_since for c in index.claims_in.get(name, ()))


def _family(resolved: ResolvedPool, claims: tuple[EgressIP, ...], version: int) -> FamilyCount:
    mine = [claim for claim in claims if claim.address.version == version]
    total = resolved.total(version)
    # What somebody else has cannot be given, unless it was given before.
    lost = resolved.taken.count(version) - sum(1 for claim in mine if claim.address in resolved.taken)
    within = {claim.address for claim in mine if claim.address in resolved}
    resting = sum(1 for claim in mine if claim.resting_since)
    last = resolved.pool.status.family(version).last_assigned
    kept = {address for address in resolved.reserved if address.version == version and address in resolved}
    if resolved.addresses is not None:
        last = moved_on(resolved.addresses, version, after=last, taken=within | kept | resolved.taken.singles(version))
    waiting = sum(1 for address in kept - within if address not in resolved.taken)
    return FamilyCount(
        total=total,
        assigned=len(mine) - resting,
        free=total - len(within) - lost - waiting,
        resting=resting,
        reserved=waiting,
        last_assigned=last,
    )


def _accepted(resolved: ResolvedPool) -> Verdict:
    if resolved.refusal is not None:
        return Verdict(ConditionType.ACCEPTED, "False", resolved.refusal.reason, resolved.refusal.message)
    return Verdict(ConditionType.ACCEPTED, "True", Reason.ACCEPTED, "")


def _ready(
    resolved: ResolvedPool,
    accepted: Verdict,
    *,
    claims: tuple[EgressIP, ...],
    policies: tuple[PolicyKey, ...],
    gateways: GatewayState,
    ready_on: tuple[str, ...],
    troubled: tuple[Shortfall, ...],
    hint: str,
) -> Verdict:
    pool, kind = resolved.pool, ConditionType.READY
    if pool.deleting:
        # Whose they are is for administrators only: tenants may read pools.
        if policies:
            message = (
                f"deletion waits for {count(len(policies), 'policy', 'policies')} using this pool; delete them or name "
                "another pool in their spec.pool (kubectl get egresspolicies --all-namespaces "
                f"--field-selector spec.pool={pool.name})"
            )
        else:
            held = [claim.address for claim in claims if not claim.resting_since]
            message = (
                f"deletion waits until every policy and node has let go of {count(len(held), 'address', 'addresses')} "
                f"(kubectl get egressips --field-selector spec.pool={pool.name})"
            )
        return Verdict(kind, "False", Reason.IN_USE, message)
    if not accepted.holds:
        return Verdict(kind, "False", accepted.reason, accepted.message)
    if not ready_on and gateways.refused:
        return Verdict(kind, "False", Reason.GATEWAY_REJECTED, "; ".join(gateways.refused))
    if not ready_on and troubled:
        return Verdict(kind, "False", troubled[0].reason, troubled[0].message)
    if not ready_on:
        message = f"none of {count(pool.gateways.replicas, 'gateway')} is ready; {hint}"
        return Verdict(kind, "False", Reason.NO_GATEWAY_READY, message)
    return Verdict(kind, "True", Reason.READY, "")


def _of_gateways(pool: Pool, gateways: GatewayState, ready_on: tuple[str, ...], hint: str) -> Iterator[Shortfall]:
    """What the pool has less of than its spec.gateways asks for."""
    for words in gateways.refused:
        yield Shortfall(Reason.GATEWAY_REJECTED, words)
    wanted = pool.gateways.replicas
    if len(ready_on) < wanted:
        yield Shortfall(
            Reason.GATEWAYS_MISSING,
            f"{len(ready_on)} of {count(wanted, 'gateway')} {'is' if len(ready_on) == 1 else 'are'} ready"
            f"{f' ({names(ready_on)})' if ready_on else ''}; {hint}",
        )


def _where_to_look(pool: Pool, gateways: GatewayState, surroundings: Surroundings) -> str:
    deployment = f"Deployment {deployment_name(pool.name)}"
    look = f"{deployment} says {gateways.complaint}" if gateways.complaint else f"see the pods of {deployment}"
    return "; ".join(filter(None, (look, surroundings.too_few(pool))))
