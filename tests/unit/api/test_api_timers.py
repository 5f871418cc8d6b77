"""The timers keep what their table says, together."""

import ast
from pathlib import Path

from sluice_api import timers
from sluice_api.reference import timers_page

ROOT = Path(__file__).parents[3]
PROGRAMS = ("operator", "node", "proxy")


def test_every_timer_is_in_the_table_with_what_rests_on_it() -> None:
    page = timers_page()
    for name, timer in timers.timers().items():
        assert f"| `{name}` | {timer:g} |" in page
        assert all((timer.what, timer.keeps))


def test_no_bare_number_hides_between_the_timers() -> None:
    """A duration without its row would be a promise that nobody can look up."""
    bare = {name for name, value in vars(timers).items() if name.isupper() and type(value) is float}
    assert not bare


def test_every_timer_is_read_by_a_program() -> None:
    read: set[str] = set()
    for program in PROGRAMS:
        for path in (ROOT / program).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == "sluice_api.timers":
                    read |= {alias.name for alias in node.names}
    derived = {"GATEWAY_DEATH"}
    assert timers.timers().keys() - derived <= read


def test_a_dead_agent_is_noticed_within_thirty_seconds() -> None:
    hung = timers.HEARTBEAT_PROOF
    seen = timers.SILENCE_LOOK
    judged = timers.SILENCE
    assert hung + seen + judged <= 30


def test_an_agent_may_miss_a_renewal_by_a_fault_of_a_moment() -> None:
    assert timers.HEARTBEAT + 2 * timers.AGENT_RETRY_FIRST + timers.HEARTBEAT_PROOF < timers.SILENCE


def test_a_leader_stops_before_another_may_begin() -> None:
    assert timers.LEASE_RETRY + timers.LEASE_ATTEMPT <= timers.LEASE_DURATION - timers.LEASE_MARGIN
