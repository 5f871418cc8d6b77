"""The kernel takes every ruleset, and every change leads to what the whole ruleset would have led to."""

import os
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.netns import datapath_traffic as traffic
from tests.netns.datapath_cluster import MARKS
from tests.netns.datapath_topology import Namespace
from tests.unit.node.desired_nodes import NUMBERS, nodes

from sluice_node.core.desired import DesiredNode
from sluice_node.core.diff import replacement, transaction
from sluice_node.core.ruleset import ruleset
from sluice_node.core.view import View

pytestmark = MARKS


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    made = Namespace(f"sl{os.getpid()}-rules")
    made.ip("link add sluice0 type vxlan id 101 dstport 4797 local 127.0.0.1")
    yield made
    made.close()


def words(listing: str) -> list[str]:
    """A listing without its order and layout, and without what counters counted."""
    return sorted(re.sub(r"packets \d+ bytes \d+", "", listing).replace(",", " ").split())


@settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(nodes(), min_size=2, max_size=4))
def test_changes_lead_where_the_whole_would(space: Namespace, steps: list[DesiredNode]) -> None:
    rules = [ruleset(View(step, NUMBERS, 1450))[0] for step in steps]
    changes = [transaction(old, new) for old, new in pairwise(rules)]
    by_changes = space.call(traffic.load_rules, [replacement(rules[0]), *changes])
    at_once = space.call(traffic.load_rules, [replacement(rules[-1])])
    assert words(by_changes) == words(at_once)
