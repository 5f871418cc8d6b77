"""Which nodes ought to have an agent, and which agent is silent, by the operator's own watching alone."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_api.names import agent_lease
from sluice_api.timers import HEARTBEAT, SILENCE, SILENCE_LOOK
from sluice_operator.core.agents import AgentSet, Presence, Toleration, Voice, expected, having, listen
from sluice_operator.core.project_agents import agent_set, renewals
from sluice_operator.core.snapshot import ClusterNode, EgressNode, Selector, Taint

LINUX = AgentSet(Selector(labels=(("kubernetes.io/os", "linux"),)), (Toleration(value=None),))


def _node(name: str = "n1", *taints: Taint, **labels: str) -> ClusterNode:
    found = {"kubernetes.io/os": "linux"} | {key.replace("__", "/"): value for key, value in labels.items()}
    return ClusterNode(name, "uid", labels=found, taints=taints)


def _pod_spec(**spec: object) -> Mapping[str, object]:
    return {"spec": {"template": {"spec": spec}}}


class Watch:
    """An operator that looks every few seconds at one node."""

    def __init__(self) -> None:
        self.presences: dict[str, Presence] = {}
        self.beats = 0

    def look(self, *, beat: bool, elapsed: float = SILENCE_LOOK) -> Voice:
        self.beats += beat
        lease = {agent_lease("n1"): str(self.beats)} if self.beats else {}
        self.presences = listen(self.presences, ["n1"], lease, elapsed=elapsed)
        return self.presences["n1"].voice


def test_an_agent_is_unheard_until_it_renews_while_somebody_watches() -> None:
    watch = Watch()
    assert watch.look(beat=True) is Voice.UNHEARD, "the Lease may be a dead one's"
    assert watch.look(beat=False) is Voice.UNHEARD
    assert watch.look(beat=True) is Voice.HEARD


def test_a_dead_agent_is_silent_within_the_promise_and_not_before_its_time() -> None:
    watch = Watch()
    watch.look(beat=True)
    watch.look(beat=True)
    voices = [watch.look(beat=False) for _ in range(round(SILENCE / SILENCE_LOOK))]
    assert voices[:-1] == [Voice.HEARD] * (len(voices) - 1)
    assert voices[-1] is Voice.SILENT
    assert watch.look(beat=True) is Voice.HEARD


def test_a_node_that_never_had_an_agent_is_silent_after_the_same_time() -> None:
    watch = Watch()
    voices = [watch.look(beat=False) for _ in range(1 + round(SILENCE / SILENCE_LOOK))]
    assert voices[-2:] == [Voice.UNHEARD, Voice.SILENT]


def test_an_outage_of_the_api_server_silences_nobody() -> None:
    watch = Watch()
    watch.look(beat=True)
    watch.look(beat=True)
    watch.look(beat=False)
    assert watch.look(beat=False, elapsed=300) is Voice.HEARD
    assert watch.look(beat=False) is Voice.HEARD
    assert watch.look(beat=True) is Voice.HEARD


def test_who_is_silent_stays_so_through_an_outage() -> None:
    watch = Watch()
    for _ in range(6):
        watch.look(beat=False)
    assert watch.look(beat=False, elapsed=300) is Voice.SILENT


@given(st.lists(st.integers(1, int(HEARTBEAT / SILENCE_LOOK) + 1), min_size=1, max_size=50))
def test_an_agent_that_renews_is_never_silent(pauses: list[int]) -> None:
    """Looks between two renewals: a renewal that comes every HEARTBEAT, seen up to one look late."""
    watch = Watch()
    for pause in pauses:
        for _ in range(pause):
            assert watch.look(beat=False) is not Voice.SILENT
        watch.look(beat=True)


def test_a_node_that_is_gone_is_forgotten() -> None:
    assert listen({"n1": Presence("1", 30, Voice.SILENT)}, [], {}, elapsed=5) == {}


def test_voices_are_told_apart() -> None:
    presences = {"a": Presence("1"), "b": Presence("1", voice=Voice.HEARD), "c": Presence(None, 30, Voice.SILENT)}
    assert [having(voice, presences) for voice in (Voice.UNHEARD, Voice.HEARD, Voice.SILENT)] == [{"a"}, {"b"}, {"c"}]


@pytest.mark.parametrize(
    ("agents", "node", "there"),
    [
        (LINUX, _node(), True),
        (LINUX, _node(kubernetes_io__os="linux"), True),
        (LINUX, ClusterNode("w", "uid", labels={"kubernetes.io/os": "windows"}), False),
        (LINUX, _node("n1", Taint("dedicated", "gpu", "NoSchedule")), True),
        (AgentSet(Selector()), _node("n1", Taint("dedicated", "gpu", "NoSchedule")), False),
        (AgentSet(Selector()), _node("n1", Taint("dedicated", "gpu", "PreferNoSchedule")), True),
        (AgentSet(Selector()), _node("n1", Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")), True),
        (AgentSet(Selector()), _node("n1", Taint("node.kubernetes.io/not-ready", "", "NoExecute")), True),
        (
            AgentSet(Selector(), (Toleration("dedicated", "gpu", "NoSchedule"),)),
            _node("n1", Taint("dedicated", "gpu", "NoSchedule")),
            True,
        ),
        (
            AgentSet(Selector(), (Toleration("dedicated", "gpu", "NoSchedule"),)),
            _node("n1", Taint("dedicated", "tpu", "NoSchedule")),
            False,
        ),
    ],
)
def test_an_agent_is_expected_where_the_daemonset_runs_one(agents: AgentSet, node: ClusterNode, there: bool) -> None:
    assert expected(agents, {node.name: node}, {}) == ({node.name} if there else set())


def test_a_node_that_reported_is_expected_to_go_on_even_without_a_daemonset() -> None:
    reports = {"n1": EgressNode("n1", 1), "gone": EgressNode("gone", 1), "n3": EgressNode("n3", 1, removing=True)}
    nodes = {name: _node(name) for name in ("n1", "n2", "n3")}
    assert expected(None, nodes, reports) == {"n1"}
    assert expected(LINUX, nodes, reports) == {"n1", "n2"}, "a node that is emptied of Sluice may be silent"


def test_a_daemonset_is_read_as_kubernetes_reads_it() -> None:
    terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}, {"matchFields": [{}]}]
    agents = agent_set(
        _pod_spec(
            nodeSelector={"kubernetes.io/os": "linux"},
            tolerations=[{"operator": "Exists", "effect": "NoSchedule"}, {"key": "k", "value": "v"}],
            affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}},
        )
    )
    assert agents.tolerations == (Toleration("", None, "NoSchedule"), Toleration("k", "v", ""))
    assert agents.admits(_node(zone="a"))
    assert not agents.admits(_node(zone="b"))
    assert not agents.admits(_node())
    assert agent_set({}).admits(_node())


def test_leases_without_a_renewal_are_as_good_as_none() -> None:
    leases = [
        {"metadata": {"name": "a"}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}},
        {"metadata": {"name": "b"}, "spec": {}},
        {"metadata": {"name": "c"}},
    ]
    assert renewals(leases) == {"a": "2026-01-01T00:00:00.000000Z"}


def test_the_name_of_a_lease_is_one_and_the_nodes_own_however_long() -> None:
    long = ["a" * 253, "a" * 252 + "b"]
    names = {agent_lease(node) for node in ["n1", *long]}
    assert "sluice-agent-n1" in names
    assert len(names) == 3
    assert all(len(name) <= 253 for name in names)
