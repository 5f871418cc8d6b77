"""Which policies are accepted: whether the spec stands, the pool is there, and the pool admits the namespace.

Invariants:
- What a policy is told names only pools that its namespace may use, and the one that it named itself.
- A namespace is matched against the pools once a plan, however many of its policies are refused.
- Pure: no I/O, no clock.
"""

from sluice_api.reasons import Reason
from sluice_operator.core.pools import Refusal, admits
from sluice_operator.core.snapshot import Policy, PolicyKey, Pool, Snapshot
from sluice_operator.core.words import names


def refusals(snapshot: Snapshot) -> dict[PolicyKey, Refusal | None]:
    """By policy why it is not accepted; None when it is."""
    admission = _Admission(snapshot)
    return {key: admission.refusal(policy) for key, policy in snapshot.policies.items()}


class _Admission:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._usable: dict[str, str] = {}

    def refusal(self, policy: Policy) -> Refusal | None:
        if policy.problems:
            return Refusal(Reason.INVALID_SPEC, "; ".join(policy.problems))
        pool, namespace = self._snapshot.pools.get(policy.pool), policy.key.namespace
        if pool is None:
            return Refusal(
                Reason.POOL_NOT_FOUND,
                f"pool {policy.pool} does not exist ({self._usable_by(namespace)}); create it or correct spec.pool",
            )
        if not self._admits(pool, namespace):
            return Refusal(
                Reason.NAMESPACE_NOT_ALLOWED,
                f"namespace {namespace} does not match spec.namespaces of pool {pool.name}; label the namespace so "
                f"that it matches, or name another pool in spec.pool ({self._usable_by(namespace)})",
            )
        return None

    def _admits(self, pool: Pool, namespace: str) -> bool:
        return admits(pool, self._snapshot.namespaces.get(namespace))

    def _usable_by(self, namespace: str) -> str:
        """The pools that a policy of this namespace could name."""
        if namespace not in self._usable:
            pools = self._snapshot.pools
            found = sorted(name for name, pool in pools.items() if self._admits(pool, namespace))
            self._usable[namespace] = f"namespace {namespace} may use {names(found) if found else 'none'}"
        return self._usable[namespace]
