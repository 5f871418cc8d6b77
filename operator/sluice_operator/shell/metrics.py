"""What Prometheus scrapes and what the kubelet asks: /metrics, /healthz, /readyz.

Invariants: one registry of our own, so nothing is counted that is not documented here; label values are pools, never
policies or addresses, so the number of series follows the number of pools.
"""

from collections import Counter as TallyOf
from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from sluice_api.reasons import ConditionType
from sluice_operator.core.snapshot import Snapshot

PLAN_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


_ABNORMAL: Final = frozenset(kind.value for kind in ConditionType if kind.abnormal)


class Metrics:
    """The operator's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leader = Gauge("sluice_operator_leader", "1 on the replica that leads.", registry=self.registry)
        self.writes = Counter("sluice_operator_writes", "Writes the API server accepted.", registry=self.registry)
        self.rejections = Counter(
            "sluice_operator_rejections", "Writes the API server will never accept.", registry=self.registry
        )
        self.conflicts = Counter(
            "sluice_operator_conflicts", "Plans made again because something had moved on.", registry=self.registry
        )
        self.failures = Counter("sluice_operator_failures", "Plans that failed by a fault.", registry=self.registry)
        self.plan_seconds = Histogram(
            "sluice_operator_plan_seconds", "Time to make one plan.", registry=self.registry, buckets=PLAN_BUCKETS
        )
        self.addresses = Gauge(
            "sluice_pool_addresses", "Addresses of a pool.", ("pool", "family", "state"), registry=self.registry
        )
        self.gateways = Gauge("sluice_pool_gateways", "Gateways of a pool.", ("pool", "state"), registry=self.registry)
        self.silent = Gauge(
            "sluice_silent_agents", "Nodes without a sign of life from an agent.", registry=self.registry
        )
        self.policies = Gauge("sluice_policies", "Policies by readiness.", ("pool", "ready"), registry=self.registry)
        self.abnormal = Gauge(
            "sluice_abnormal",
            "Pools and policies that are Degraded or Stalled.",
            ("kind", "pool", "condition", "reason"),
            registry=self.registry,
        )

    def observe(self, snapshot: Snapshot, *, seconds: float) -> None:
        """Take the figures of a snapshot that was just planned for."""
        self.plan_seconds.observe(seconds)
        for gauge in (self.addresses, self.gateways, self.policies, self.abnormal):
            gauge.clear()
        self.silent.set(len(snapshot.silent))
        for name, pool in snapshot.pools.items():
            for family, counted in (("IPv4", pool.status.ipv4), ("IPv6", pool.status.ipv6)):
                self.addresses.labels(name, family, "assigned").set(counted.assigned)
                self.addresses.labels(name, family, "resting").set(counted.resting)
                self.addresses.labels(name, family, "reserved").set(counted.reserved)
                self.addresses.labels(name, family, "free").set(counted.free)
            self.gateways.labels(name, "desired").set(pool.status.gateways_desired)
            self.gateways.labels(name, "ready").set(pool.status.gateways_ready)
        self._observe_abnormal(snapshot)
        tally: TallyOf[tuple[str, str]] = TallyOf()
        for policy in snapshot.policies.values():
            if policy.pool in snapshot.pools:  # a pool that does not exist must not become a label
                ready = any(entry.type == "Ready" and entry.status == "True" for entry in policy.status.conditions)
                tally[policy.pool, "true" if ready else "false"] += 1
        for (pool_name, state), number in tally.items():
            self.policies.labels(pool_name, state).set(number)

    def _observe_abnormal(self, snapshot: Snapshot) -> None:
        """Count what is Degraded or Stalled, by reason; policies of a pool that does not exist under no pool's name."""
        found = [("EgressPool", name, pool.status.conditions) for name, pool in snapshot.pools.items()]
        found += [
            ("EgressPolicy", policy.pool if policy.pool in snapshot.pools else "", policy.status.conditions)
            for policy in snapshot.policies.values()
        ]
        tally = TallyOf(
            (kind, pool, entry.type, entry.reason)
            for kind, pool, conditions in found
            for entry in conditions
            if entry.type in _ABNORMAL and entry.status == "True"
        )
        for labels, number in tally.items():
            self.abnormal.labels(*labels).set(number)


async def serve(metrics: Metrics, *, host: str | None, port: int, ready: Callable[[], bool]) -> web.AppRunner:
    """Serve until the returned runner is cleaned up. `ready` is asked at each /readyz."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the stores have not synced yet\n")

    application = web.Application()
    application.add_routes([web.get("/metrics", show), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
