"""Alerts ask for metrics that the operator has, and say what to do."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from sluice_operator.shell.metrics import Metrics

Render = Callable[..., list[dict[str, Any]]]
FROM_PROMETHEUS = {"up"}
METRIC = re.compile(r"\b(up|sluice_[a-z_]+)\b")


@pytest.fixture
def alerts(render: Render) -> list[dict[str, Any]]:
    (rule,) = [
        item for item in render({"metrics": {"prometheusRule": {"enabled": True}}}) if item["kind"] == "PrometheusRule"
    ]
    return [alert for group in rule["spec"]["groups"] for alert in group["rules"]]


def test_every_metric_of_an_alert_exists(alerts: list[dict[str, Any]]) -> None:
    known = {family.name for family in Metrics().registry.collect()} | FROM_PROMETHEUS
    for alert in alerts:
        asked = set(METRIC.findall(alert["expr"]))
        assert asked, alert["alert"]
        assert asked <= known, alert["alert"]


def test_every_alert_says_what_is_the_matter_and_what_it_means(alerts: list[dict[str, Any]]) -> None:
    for alert in alerts:
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert alert["annotations"].keys() == {"summary", "description"}
        assert "for" in alert
