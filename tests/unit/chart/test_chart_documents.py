"""What a person reads for help is complete: every reason and every counter has its line."""

import re
from ipaddress import IPv4Address
from pathlib import Path

from sluice_api.reasons import Reason
from sluice_node.core.desired import DesiredNode, Peer, PolicyProgram, SliceOwner
from sluice_node.core.ruleset import ruleset
from sluice_node.core.tables import Table
from sluice_node.core.view import View

TROUBLESHOOTING = Path(__file__).parents[3] / "docs" / "troubleshooting.md"
OPERATIONS = TROUBLESHOOTING.with_name("operations.md")
ARCHITECTURE = TROUBLESHOOTING.with_name("architecture.md")
ALL_IS_WELL = {Reason.ACCEPTED, Reason.ASSIGNED, Reason.PROGRAMMED, Reason.READY, Reason.AS_EXPECTED}


def first_column(heading: str) -> list[str]:
    """The first cells of the table whose head begins with `heading`."""
    _, _, rest = TROUBLESHOOTING.read_text().partition(f"| {heading} |")
    table, _, _ = rest.partition("\n\n")
    return re.findall(r"^\| `([A-Za-z_]+)` \|", table, re.MULTILINE)


def test_there_is_a_remedy_for_every_reason_that_is_not_well() -> None:
    assert first_column("Reason") == [reason.value for reason in Reason if reason not in ALL_IS_WELL]


def test_every_counter_of_the_kernel_rules_is_explained() -> None:
    counters = {name for table in tables() for name in table.counters}
    assert set(first_column("Counter")) == counters


def test_the_walk_of_a_packet_names_the_chains_and_sets_that_there_are() -> None:
    _, _, walk = ARCHITECTURE.read_text().partition("## The walk of a packet")
    walk, _, _ = walk.partition("## Decisions")
    known = {"sluice0"}
    hooked = set()
    for table in tables():
        known |= {chain.name for chain in table.chains} | {f"@{item.name}" for item in table.sets}
        known |= set(table.counters)
        hooked |= {chain.name for chain in table.chains if chain.hook}
    named = set()
    for word in re.findall(r"`(@?[a-z]+[a-z0-9_]*(?:_[NPKS])?(?:4/6(?:_S)?)?)`", walk):
        for letter, instance in {"N": "7", "P": "partners", "K": "1", "S": "1024"}.items():
            word = re.sub(f"_{letter}$", f"_{instance}", word)  # noqa: PLW2901
        named.add(word.replace("4/6", "4"))
    assert len(named) > 20
    assert named <= known, named - known
    assert hooked <= named, hooked - named


def tables() -> tuple[Table, ...]:
    """The rules of a gateway node with one policy and one peer."""
    address = IPv4Address("198.51.100.17")
    node = DesiredNode(
        node="n1",
        uplinks=("eth0",),
        tunnel_address=IPv4Address("192.0.2.1"),
        tunnel_mac="02:00:5e:00:53:01",
        peers=(Peer("n2", IPv4Address("192.0.2.2"), "02:00:5e:00:53:02"),),
        policies=(PolicyProgram(7, "partners", (address,)),),
        pods={IPv4Address("10.0.0.5"): 7},
        live_gateways={"partners": ("n1", "n2")},
        slices=(SliceOwner(address, 2048, 1024, "n1"), SliceOwner(address, 3072, 1024, "n2")),
        is_gateway=True,
    )
    rules, _ = ruleset(View(node, {"n2": 1}, 1450))
    return rules.tables


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
