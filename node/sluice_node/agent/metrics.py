"""The agent's metrics. Each is documented where it is made; labels have few values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(frozen=True, slots=True)
class Figures:
    """What is counted when it is asked for. `rtts` in seconds by gateway node, `live` gateways by pool."""

    selected_pods: int
    policies: int
    live: Mapping[str, int]
    held: int
    revision: int
    rtts: Mapping[str, float]
    watch_restarts: int
    dropped: Mapping[str, int]


class Metrics:
    """A registry of its own, so that a test can have several."""

    def __init__(self) -> None:
        # When a counter was made is no figure of ours, and would double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._apply = Histogram(
            "sluice_agent_apply_seconds", "Time to program a change", buckets=_BUCKETS, registry=self._registry
        )
        self._errors = Counter("sluice_agent_apply_errors", "Changes that the kernel refused", registry=self._registry)
        self._pods = self._gauge("selected_pods", "Pods of this node that a policy selects")
        self._policies = self._gauge("policies", "Policies programmed on this node")
        self._live = self._gauge("live_gateways", "Gateways that answer this node", "pool")
        self._held = self._gauge("held_egress_ips", "Egress IPs that this node answers for")
        self._revision = self._gauge("revision", "Revision of policies that the kernel holds")
        self._rtts = self._gauge("probe_rtt_seconds", "Smoothed round trip to a gateway's kernel and back", "node")
        self._totals = _Totals()
        self._registry.register(self._totals)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"sluice_agent_{name}", text, labels, registry=self._registry)

    def applied(self, seconds: float) -> None:
        """The kernel took a change."""
        self._apply.observe(seconds)

    def apply_failed(self) -> None:
        """The kernel refused a change."""
        self._errors.inc()

    def render(self, figures: Figures) -> bytes:
        """Everything in the text format of Prometheus."""
        self._pods.set(figures.selected_pods)
        self._policies.set(figures.policies)
        self._held.set(figures.held)
        self._revision.set(figures.revision)
        self._live.clear()
        for pool, count in figures.live.items():
            self._live.labels(pool).set(count)
        self._rtts.clear()
        for node, rtt in figures.rtts.items():
            self._rtts.labels(node).set(rtt)
        self._totals.figures = figures
        return generate_latest(self._registry)


class _Totals(Collector):
    """Counters that are kept elsewhere: by the kernel, and by the watches."""

    def __init__(self) -> None:
        self.figures: Figures | None = None

    def collect(self) -> list[CounterMetricFamily]:
        restarts = CounterMetricFamily("sluice_agent_watch_restarts", "Watches that broke and were taken up again")
        dropped = CounterMetricFamily("sluice_agent_dropped_packets", "Packets dropped, by reason", labels=["reason"])
        if self.figures is not None:
            restarts.add_metric([], self.figures.watch_restarts)
            for reason, packets in sorted(self.figures.dropped.items()):
                dropped.add_metric([reason], packets)
        return [restarts, dropped]
