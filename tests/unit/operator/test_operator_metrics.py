"""What is scraped of conditions: how many objects, of which pool, for which reason, and never a policy's name."""

from prometheus_client import CollectorRegistry

from sluice_operator.core.snapshot import (
    Condition,
    Policy,
    PolicyKey,
    PolicyStatus,
    Pool,
    PoolStatus,
    Settings,
    Snapshot,
)
from sluice_operator.shell.metrics import Metrics


def _said(kind: str, status: str, reason: str) -> Condition:
    return Condition(kind, status, reason, "words", 1, "t")


def _policy(name: str, pool: str, *conditions: Condition) -> Policy:
    return Policy(PolicyKey("a", name), name, 1, "2026", pool, status=PolicyStatus(conditions=conditions))


def _series(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    (family,) = [found for found in registry.collect() if found.name == "sluice_abnormal"]
    return {
        tuple(sample.labels[name] for name in ("kind", "pool", "condition", "reason")): sample.value
        for sample in family.samples
    }


def test_what_is_degraded_or_stalled_is_counted_by_reason_until_it_is_over() -> None:
    lacking = (_said("Ready", "True", "Ready"), _said("Degraded", "True", "GatewaysMissing"))
    stalled = (_said("Degraded", "False", "AsExpected"), _said("Stalled", "True", "PoolNotFound"))
    policies = [_policy("one", "q", *stalled), _policy("two", "q", *stalled), _policy("three", "p")]
    snapshot = Snapshot(
        now="now",
        settings=Settings("s", "i"),
        pools={"p": Pool("p", "u", 1, "2026", (), status=PoolStatus(conditions=lacking))},
        policies={policy.key: policy for policy in policies},
    )
    metrics = Metrics()
    metrics.observe(snapshot, seconds=0.0)
    assert _series(metrics.registry) == {
        ("EgressPool", "p", "Degraded", "GatewaysMissing"): 1.0,
        ("EgressPolicy", "", "Stalled", "PoolNotFound"): 2.0,  # a pool that does not exist becomes no label
    }
    metrics.observe(Snapshot(now="now", settings=Settings("s", "i")), seconds=0.0)
    assert _series(metrics.registry) == {}
