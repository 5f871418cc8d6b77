"""What a person reads for help is complete: every reason and every counter has its line."""

import re
from ipaddress import ip_address
from pathlib import Path

from sluice_api.reasons import Reason
from sluice_node.core.desired import DesiredNode
from sluice_node.core.ruleset import ruleset
from sluice_node.core.view import View

TROUBLESHOOTING = Path(__file__).parents[3] / "docs" / "troubleshooting.md"
OPERATIONS = TROUBLESHOOTING.with_name("operations.md")
ALL_IS_WELL = {Reason.ACCEPTED, Reason.ASSIGNED, Reason.PROGRAMMED, Reason.READY}


def first_column(heading: str) -> list[str]:
    """The first cells of the table whose head begins with `heading`."""
    _, _, rest = TROUBLESHOOTING.read_text().partition(f"| {heading} |")
    table, _, _ = rest.partition("\n\n")
    return re.findall(r"^\| `([A-Za-z_]+)` \|", table, re.MULTILINE)


def test_there_is_a_remedy_for_every_reason_that_is_not_well() -> None:
    assert first_column("Reason") == [reason.value for reason in Reason if reason not in ALL_IS_WELL]


def test_every_counter_of_the_kernel_rules_is_explained() -> None:
    node = DesiredNode(
        node="n1", uplinks=("eth0",), tunnel_address=ip_address("192.0.2.1"), tunnel_mac="02:00:5e:00:53:01"
    )
    counters = {name for table in ruleset(View(node, {}, 1450)).tables for name in table.counters}
    assert set(first_column("Counter")) == counters


def test_every_metric_is_explained() -> None:
    from sluice_node.agent.metrics import Figures
    from sluice_node.agent.metrics import Metrics as AgentMetrics
    from sluice_operator.shell.metrics import Metrics as OperatorMetrics

    figures = Figures(selected_pods=0, policies=0, live={}, held=0, revision=0, rtts={}, watch_restarts=0, dropped={})
    agent = re.findall(r"^# TYPE (sluice_\w+) (\w+)", AgentMetrics().render(figures).decode(), re.MULTILINE)
    operator = [(family.name, family.type) for family in OperatorMetrics().registry.collect()]
    names = {name.removesuffix("_total") + ("_total" if kind == "counter" else "") for name, kind in agent + operator}
    assert documented_metrics() == {name for name in names if not name.endswith("_created")}


def documented_metrics() -> set[str]:
    """Names in the tables of docs/operations.md; `_x` after `sluice_agent_y` is short for `sluice_agent_x`."""
    found: set[str] = set()
    for line in OPERATIONS.read_text().splitlines():
        cell = line.strip("|").split(" | ")[0]
        for name in re.findall(r"`(_?[a-z_]+)(?:\{[a-z, ]+\})?`", cell if line.startswith("| `sluice_") else ""):
            prefix = "sluice_operator" if "sluice_operator" in cell else "sluice_agent"
            found.add(prefix + name if name.startswith("_") else name)
    return found
